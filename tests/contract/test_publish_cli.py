"""The verb publish: reports from other machines, a farm of three cells, and a real registry."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from curator import matrix, settings
from curator.index import Index, read_index
from curator.plan import make_plan
from curator.registry import HttpRegistry
from curator.smoke import Check, Gpu, HostFacts, Outcome, SmokeReport, Subject
from curator.store import DirectoryStore
from tests import layouts
from tests.trees import tiny_tree

if TYPE_CHECKING:
    from pathlib import Path

    from curator.settings import Place

CELL = "demo-1.0-cuda12.8-py3.11"
OTHER = "demo-2.0-cuda12.8-py3.11"


@dataclass(frozen=True)
class Shop:
    """A farm's files, and where it publishes."""

    root: Path
    place: Place

    def run(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        where = {"CURATOR_STORE": str(self.root / "store"), "CURATOR_REGISTRY": str(self.place)}
        result = subprocess.run(
            [sys.executable, "-c", "from curator.cli import main; main()", *arguments],
            cwd=self.root,
            env={**os.environ, **where, "CURATOR_CACHE": str(self.root / "cache")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == code, result.stdout + result.stderr
        assert "Traceback" not in result.stderr
        return result

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self.run("--json", *arguments, code=code).stdout)

    def index(self) -> Index:
        return read_index(DirectoryStore(self.root / "store"))

    def report(
        self, name: str, cell: str = CELL, sm: str = "9.0", gpu: Outcome = Outcome.PASS
    ) -> str:
        """Write what a machine found of a cell's image, which waits in staging."""
        tree = settings.read_tree(self.root)
        farm, installer = matrix.load(tree), settings.installer()
        (planned,) = make_plan(farm, tree, Index(), ids={cell}, installer=installer).cells
        layout = layouts.attested(self.root / "layouts" / cell, (cell.encode(),))
        staging = self.place.repository("staging/demo").with_tag(planned.recipe.key)
        image = HttpRegistry().push(layout.path, staging)
        device = Gpu(name=f"GPU {sm}", uuid=f"GPU-{sm}", sm=sm, memory_bytes=1)
        asked = [("python", Outcome.PASS), ("framework", Outcome.PASS), ("cuda_tensor", gpu)]
        report = SmokeReport(
            subject=Subject(image=image, cell=cell, recipe_key=planned.recipe.key),
            probe_key=planned.probe.key,
            host=HostFacts(gpus=(device,), driver="580.95.05", kernel="6.1", architecture="x86_64"),
            checks=tuple(
                Check(name=name, outcome=outcome, expected={}, got={}, detail="", ms=1)
                for name, outcome in asked
            ),
            exit_code=0,
            stderr_tail="",
            started="2026-11-23T10:00:00Z",
            ended="2026-11-23T10:00:01Z",
            given=(device.uuid,),
        )
        return self.written(name, report.data)

    def written(self, name: str, data: bytes) -> str:
        (self.root / name).write_bytes(data)
        return name


@pytest.fixture
def shop(tmp_path: Path, place: Place) -> Shop:
    for name, text in tiny_tree().items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return Shop(root=tmp_path, place=place)


def test_what_was_published_can_be_asked_for_again(shop: Shop) -> None:
    (cell,) = shop.json("publish", shop.report("a.json"))["data"]["cells"]
    assert (cell["outcome"], cell["channel"], cell["generation"]) == ("published", "stable", 1)
    assert shop.json("index", "status", cell["publish"])["data"]["generation"] == 1
    assert shop.json("index", "status", cell["publish"][:12])["data"]["generation"] == 1
    text = shop.run("publish", shop.report("b.json", cell=OTHER)).stdout
    assert "generation 2 (publish " in text
    short = text.partition("(publish ")[2].partition(")")[0]
    assert shop.json("index", "status", short)["data"]["generation"] == 2
    (again,) = shop.json("publish", "a.json")["data"]["cells"]
    assert (again["outcome"], again["generation"], again["publish"]) == ("published", 2, None)


def test_a_pass_is_refused_while_another_gpu_fails_the_image(shop: Shop) -> None:
    failed = shop.report("failed.json", sm="7.5", gpu=Outcome.FAIL)
    passed = shop.report("passed.json")
    document = shop.json("publish", failed, passed, code=1)
    assert document["status"] == "failures"
    assert [cell["outcome"] for cell in document["data"]["cells"]] == ["refused", "refused"]
    assert "gpu: fail (sm 7.5, driver 580.95.05)" in document["data"]["cells"][1]["cause"]
    assert shop.index().tags == {}
    document = shop.json("publish", shop.report("mended.json", sm="7.5"), code=1)
    # The same instant tells nothing of which came last: the failure counts.
    assert document["data"]["cells"][0]["outcome"] == "refused"


def test_nothing_is_published_before_every_report_is_read(shop: Shop) -> None:
    good = shop.report("good.json")
    broken = shop.written("broken.json", b'{\n  "kind": oops}')
    said = (shop.root / good).read_bytes()
    forged = shop.written("forged.json", said.replace(b'"gpu":"pass"', b'"gpu":"fail"'))
    other = said.replace(CELL.encode(), b"demo-9.0-cuda12.8-py3.11")
    document = shop.json("publish", good, broken, shop.written("other.json", other), code=2)
    findings = {found["file"]: found for found in document["diagnostics"]}
    assert sorted(findings) == ["broken.json", "other.json"]
    assert (findings["broken.json"]["line"], findings["broken.json"]["column"]) == (2, 11)
    assert "does not have" in findings["other.json"]["message"]
    assert "broken.json:2:11: " in shop.run("publish", good, broken, code=2).stderr
    forgery = shop.run("publish", good, forged, code=2).stderr
    assert "forged.json: the report does not say what its checks say" in forgery
    assert not (shop.root / "store").exists()


def test_one_that_cannot_be_published_hides_none_that_was(shop: Shop) -> None:
    good, lost = shop.report("good.json"), shop.report("lost.json", cell=OTHER)
    data = (shop.root / lost).read_bytes()
    image = json.loads(data)["image"].encode()
    shop.written("lost.json", data.replace(image, b"sha256:" + b"0" * 64))
    document = shop.json("publish", lost, good, code=1)
    cells = {cell["id"]: cell for cell in document["data"]["cells"]}
    assert cells[OTHER]["outcome"] == "failed"
    assert "does not have sha256:000" in cells[OTHER]["cause"]
    assert (cells[CELL]["outcome"], cells[CELL]["generation"]) == ("published", 1)
    assert [entry.cell for entry in shop.index().entries] == [CELL]


def test_a_dry_run_lists_the_page_too_and_writes_nothing(shop: Shop) -> None:
    report = shop.report("a.json")
    planned = shop.json("publish", "--dry-run", report)["data"]["writes"]
    assert not (shop.root / "store").exists()
    shop.run("publish", report)
    written = {
        str(path.relative_to(shop.root / "store"))
        for path in (shop.root / "store").rglob("[!.]*")
        if path.is_file()
    }
    assert "index.html" in written
    # Time is in what an entry says, and so in the names of what holds it.
    told = {line.split()[1] for line in planned if line.split()[0] in {"add", "replace"}}
    named = ("v1/shard/", "v1/group/", "v1/evidence/")
    assert {name for name in told if not name.startswith(named)} == {
        name for name in written if not name.startswith(named)
    }
    assert len(told) == len(written)
    assert shop.run("publish", "--dry-run", report).stdout == "nothing to write\n"


def test_an_expectation_of_nothing_is_a_mistake_whatever_is_new(shop: Shop) -> None:
    report = shop.report("a.json")
    for _ in range(2):
        result = shop.run("publish", report, "--expect", "demo:nonsense=absent", code=2)
        assert "no moving tag that this publish could touch" in result.stderr
        shop.run("publish", report, "--expect", "demo:1.0=absent")


def test_an_index_that_loses_something_in_the_making_says_so(shop: Shop) -> None:
    shop.run("publish", shop.report("a.json"), shop.report("b.json", cell=OTHER))
    assert shop.json("index", "rebuild", "--to", "again")["data"] == {"entries": 2, "left_out": []}
    lost = next(
        path
        for path in (shop.root / "store/v1/evidence").glob("*.json")
        if b'"kind":"publish"' in path.read_bytes() and b'"base":0' in path.read_bytes()
    )
    lost.unlink()
    document = shop.json("index", "rebuild", "--to", "less", code=1)
    assert (document["status"], document["data"]["entries"]) == ("findings", 1)
    assert document["data"]["left_out"] == [f"record sha256:{lost.stem}: is missing"]
    assert "left out: record" in shop.run("index", "rebuild", "--to", "least", code=1).stdout


def test_an_audit_of_a_place_without_an_index_is_an_error(shop: Shop) -> None:
    for verb in (("audit",), ("index", "rebuild", "--to", "new")):
        result = shop.run(*verb, "--store", "nowhere", code=2)
        assert "there is no index at" in result.stderr
    assert not (shop.root / "new").exists()
