"""The verbs that look at an index: no farm, docker or registry is needed for that."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

from curator.cli._ports import now
from curator.publish import Committed, publish
from curator.store import open_store
from tests.publishing import CANDIDATE, Farm
from tests.signing import new_signer, private_pem

if TYPE_CHECKING:
    from pathlib import Path

    from curator.sign import Signer
    from tests.azurite import Azurite


@dataclass(frozen=True)
class Shop:
    """A directory with an index and no farm."""

    farm: Farm
    signer: Signer

    def index(self, *arguments: str, code: int = 0) -> Any:
        result = self.run("--json", "index", *arguments)
        assert result.returncode == code, result.stdout + result.stderr
        return json.loads(result.stdout)["data"]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from curator.cli import main; main()", *arguments]
        store = str(self.farm.root / "store")
        return subprocess.run(
            [*command, "--store", store],
            cwd=self.farm.root,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    signer = new_signer()
    farm = Farm(tmp_path, signer=signer)
    farm.publish(farm.change(), farm.change("14.1.1", verdict=CANDIDATE), now=now())
    farm.publish(farm.change("14.2.1"), now=now())
    return Shop(farm=farm, signer=signer)


def test_what_an_index_says_of_itself(shop: Shop) -> None:
    assert shop.index("status") == {"generation": 2, "head": 2, "entries": 3}
    (publish,) = json.loads(
        (shop.farm.root / "store/v1/gen/00000000000000000002.json").read_bytes()
    )["publishes"]
    assert shop.index("status", publish)["generation"] == 2
    assert shop.index("status", "ffff", code=1)["generation"] is None
    entries = shop.index("show", "cupy-14.2.*")["entries"]
    assert [entry["stack"]["version"] for entry in entries] == ["14.2.0", "14.2.1"]


def test_what_changed(shop: Shop) -> None:
    newest = shop.index("diff")
    assert (newest["from"], newest["to"], len(newest["added"])) == (1, 2, 1)
    assert newest["tags"]["cupy:14.2"]["from"] != newest["tags"]["cupy:14.2"]["to"]
    whole = shop.index("diff", "0", "2")
    assert (len(whole["added"]), whole["changed"], whole["gone"]) == (3, [], [])
    back = shop.index("diff", "2", "1")
    assert (back["added"], len(back["gone"])) == ([], 1)
    assert shop.run("index", "diff", "1", "9").returncode == 2
    text = shop.run("index", "diff").stdout
    assert "Generation 1 to 2: 1 added, 0 changed, 0 gone, 3 tags moved." in text


def test_verify_trusts_the_keys_it_is_given(shop: Shop, tmp_path: Path) -> None:
    assert shop.index("verify")["findings"] == []
    own, other = tmp_path / "own.pub", tmp_path / "other.pub"
    own.write_text(shop.signer.public[0].public)
    other.write_text(new_signer().public[0].public)
    codes = [f["code"] for f in shop.index("verify", "--key", str(other), code=1)["findings"]]
    assert "signature" in codes
    assert shop.index("verify", "--key", str(own))["findings"] == []
    other.write_bytes(private_pem())
    assert shop.run("index", "verify", "--key", str(other)).returncode == 2


def test_verify_finds_what_is_damaged(shop: Shop) -> None:
    for shard in (shop.farm.root / "store/v1/shard").glob("*.json"):
        shard.write_bytes(shard.read_bytes() + b" ")
    findings = shop.index("verify", code=1)["findings"]
    assert [finding["code"] for finding in findings] == ["shard", "shard"]
    assert "its bytes hash to" in shop.run("index", "verify").stdout


VERBS = (["verify"], ["status"], ["status", "f"], ["show"], ["show", "x-*"], ["diff"])


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_a_place_without_an_index_is_an_error(tmp_path: Path, verb: list[str]) -> None:
    empty = Shop(farm=Farm(tmp_path), signer=new_signer())
    result = empty.run("index", *verb)
    assert (result.returncode, result.stdout) == (2, "")
    assert f"there is no index at {tmp_path / 'store'}" in result.stderr
    assert "--store" in result.stderr.partition("store (")[2]
    assert not (tmp_path / "store").exists()


def test_what_is_left_of_an_index_is_looked_at(shop: Shop) -> None:
    (shop.farm.root / "store/v1/head.json").unlink()
    (shop.farm.root / "store/v1/gen/00000000000000000001.json").unlink()
    assert [f["code"] for f in shop.index("verify", code=1)["findings"]] == ["generation"]


@pytest.mark.parametrize("place", ["azure:Not_A_Container", "ftp://x/y"])
def test_a_place_that_is_none_is_refused(tmp_path: Path, place: str) -> None:
    command = [sys.executable, "-c", "from curator.cli import main; main()", "index", "status"]
    result = subprocess.run(
        [*command, "--store", place], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr


def test_the_beginning_of_an_id_has_to_fit_one_publish(shop: Shop) -> None:
    result = shop.run("index", "status", "")
    assert result.returncode == 2
    assert "2 publishes begin with ''" in result.stderr


def test_a_threshold_takes_keys(shop: Shop, tmp_path: Path) -> None:
    assert shop.run("index", "verify", "--threshold", "2").returncode == 2
    (tmp_path / "own.pub").write_text(shop.signer.public[0].public)
    keys = ("--key", str(tmp_path / "own.pub"))
    assert shop.index("verify", *keys, "--threshold", "1")["findings"] == []
    assert shop.index("verify", *keys, "--threshold", "2", code=1)["findings"]


def test_an_index_in_azure_is_looked_at_alike(tmp_path: Path, azurite: Azurite) -> None:
    farm = Farm(tmp_path)
    place = azurite.location(azurite.created())
    target = farm.target(store=open_store(place, azurite.environ))
    assert isinstance(publish([farm.change()], target), Committed)
    for arguments in (("verify",), ("status",), ("show",)):
        result = subprocess.run(
            [sys.executable, "-c", "from curator.cli import main; main()", "--json", "index",
             *arguments, "--store", place],
            cwd=tmp_path,
            env={**os.environ, **azurite.environ},
            capture_output=True,
            text=True,
            check=False,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        data = json.loads(result.stdout)["data"]
        assert data["entries"] == 1 or len(data["entries"]) == 1


def test_pullers_read_a_store_in_azure_with_its_login(tmp_path: Path, azurite: Azurite) -> None:
    farm = Farm(tmp_path)
    place = azurite.location(azurite.created())
    own = {"CURATOR_CACHE": str(tmp_path / "cache")}

    def page(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        program = "from curator.cli import main; main()"
        return subprocess.run(
            [sys.executable, "-c", program, "page", "-o", "site", *arguments],
            cwd=tmp_path,
            env={**os.environ, **azurite.environ, **own, **more},
            capture_output=True,
            text=True,
            check=False,
        )

    nothing = page("--index", place)
    assert nothing.returncode == 1
    assert f"{place}: no index here" in nothing.stderr
    target = farm.target(store=open_store(place, azurite.environ))
    assert isinstance(publish([farm.change()], target), Committed)
    address = f"{azurite.endpoint}/{place.partition(':')[2]}"
    for done in (
        page("--index", place),
        page(CURATOR_STORE=place),
        page(CURATOR_STORE=address),
    ):
        assert (done.returncode, "not there" in done.stderr) == (0, False), done.stderr
    assert b"cupy" in (tmp_path / "site/index.html").read_bytes()
    assert b"cupy" in (tmp_path / "site/v1/framework/cupy.json").read_bytes()
    assert page("--offline", CURATOR_STORE=place).returncode == 0


def test_what_an_entry_says_steers_no_terminal(shop: Shop) -> None:
    change = shop.farm.change("14.3.0", verdict=("fail", "not-run"))
    said = change.entry.status.model_copy(update={"reason": "x\x1b[2J\nerror: forged"})
    entry = change.entry.model_copy(update={"status": said})
    shop.farm.publish(replace(change, entry=entry), now=now())
    told = shop.run("index", "show", "cupy-14.3.*").stdout
    assert len(told.splitlines()) == 2
    assert "x [2J error: forged" in told
