"""What an index says, signed and hashed right and still wrong, and whose signature counts."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import curator
from curator.cli._ports import now
from curator.errors import (
    CuratorError,
    InputError,
    IntegrityError,
    SignatureError,
    StrangerError,
)
from curator.index import CONFIG_PATH, HEAD_PATH
from curator.oci import canonical_json
from curator.sign import encoded
from tests.documents import filled, rewritten
from tests.readers import changed, new_farm, opened, trusting
from tests.serving import Site, served
from tests.signing import new_signer
from tests.unit.test_index import JSON, PLACES, replaced

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.publishing import Farm
    from tests.wire import Handler

SIGNER = new_signer()
CONFIG = {
    "spec": 1,
    "store": "store-1",
    "registry": "registry.example/dl",
    "keys": [key.to_json() for key in SIGNER.public],
}


@pytest.fixture(scope="module", autouse=True)
def trust(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with trusting(tmp_path_factory.mktemp("tls")):
        yield


@pytest.fixture
def farm(tmp_path: Path) -> Farm:
    """A signed index of the test's own."""
    return new_farm(tmp_path / "farm", new_signer())


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


# Documents that are signed and hashed right, and wrong


@pytest.fixture(scope="module")
def shelf() -> Iterator[tuple[dict[str, bytes], str]]:
    """A server of documents in memory, and its address."""
    files: dict[str, bytes] = {}

    def serve(handler: Handler) -> None:
        data = files.get(handler.path.removeprefix("/index/"))
        status = 404 if data is None else 200
        handler.close_connection = False
        handler.reply(status, [("Content-Length", str(len(data or b"")))], [data or b""])

    with served(serve) as address:
        yield files, address


def resigned(files: dict[str, bytes]) -> None:
    """Sign the head as it is, so that only what it says can be wrong."""
    head = json.loads(files[HEAD_PATH])
    if isinstance(head, dict):
        statement = canonical_json({name: head[name] for name in head if name != "signatures"})
        head["signatures"] = [found.to_json() for found in SIGNER.sign(encoded(statement))]
        files[HEAD_PATH] = canonical_json(head)


def read_all(address: str) -> int:
    """Read an index as a tool would, and return how many entries it holds."""
    keys = [key.public for key in SIGNER.public]
    with opened(address, keys=keys) as index:
        for entry in index.entries():
            assert index.find(entry.digest) == index.find(entry.id) == entry
            assert index.reference(entry).endswith(f"/{entry.repository}@{entry.digest}")
        return len(index.entries())


def test_a_whole_signed_index_is_read(shelf: tuple[dict[str, bytes], str]) -> None:
    files, address = shelf
    files.clear()
    files |= {**filled().files, CONFIG_PATH: canonical_json(CONFIG)}
    resigned(files)
    assert read_all(address) == 3


@settings(max_examples=400, deadline=None)
@given(
    kind=st.sampled_from(["config", "head", "generation", "group", "shard"]),
    path=PLACES,
    value=JSON,
)
def test_wrong_documents_of_a_good_signer_give_typed_errors_only(
    shelf: tuple[dict[str, bytes], str], kind: str, path: int, value: object
) -> None:
    files, address = shelf
    memory = filled()
    config: object = CONFIG
    if kind == "config":
        config = replaced(CONFIG, path + 1, value)
    else:
        rewritten(memory, kind, lambda tree: replaced(tree, path + 1, value))
    files.clear()
    files |= {**memory.files, CONFIG_PATH: canonical_json(config)}
    resigned(files)
    try:
        assert read_all(address) <= 3
    except CuratorError as error:
        assert isinstance(error, IntegrityError)  # noqa: PT017 - either outcome is right


@pytest.mark.parametrize("end", ["2026-99-99T99:99:99Z", "\u0662026-11-23T00:00:00Z"])
def test_an_end_that_is_no_date_is_refused(tmp_path: Path, end: str) -> None:
    farm = new_farm(tmp_path)
    changed(farm, HEAD_PATH, expires=end)
    with pytest.raises(IntegrityError):
        curator.open_index(farm.root / "store", cache=None)


def test_a_release_candidate_is_found_by_its_version(farm: Farm) -> None:
    farm.publish(farm.change("14.5rc1"), now=now())
    with curator.open_index(farm.root / "store", cache=None) as index:
        assert [entry.stack.version for entry in index.entries(version="14.5rc1")] == ["14.5rc1"]


# Whose signature counts


def test_what_was_signed_for_given_keys_never_counts_unsigned(farm: Farm, cache: Path) -> None:
    assert farm.signer
    with Site(farm.root / "store") as site:
        opened(site, cache, keys=[farm.signer.public[0].public]).close()
        changed(farm, HEAD_PATH, signatures=[])
        changed(farm, CONFIG_PATH, keys=[])
        with pytest.raises((SignatureError, StrangerError)):
            opened(site, cache)


def test_a_pinned_threshold_is_not_lowered(tmp_path: Path, cache: Path) -> None:
    farm = new_farm(tmp_path, new_signer("ecdsa", "ecdsa"))
    assert farm.signer
    changed(farm, CONFIG_PATH, threshold=2)
    head = json.loads((farm.root / "store" / HEAD_PATH).read_bytes())
    with Site(farm.root / "store") as site:
        opened(site, cache).close()
        opened(site, cache, keys=[farm.signer.public[0].public], threshold=1).close()
        changed(farm, CONFIG_PATH, threshold=1)
        changed(farm, HEAD_PATH, signatures=head["signatures"][:1])
        with pytest.raises((SignatureError, StrangerError)):
            opened(site, cache)


def unknown_curve() -> str:
    """Return a public key in PEM on a curve that is not supported: secp112r1's is retired."""
    kind = bytes.fromhex("06072a8648ce3d0201") + bytes.fromhex("06052b81040008")
    body = b"\x30" + bytes([len(kind)]) + kind + b"\x03\x2a\x00\x04" + b"\x01" * 40
    text = base64.b64encode(b"\x30" + bytes([len(body)]) + body).decode()
    return f"-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n"


@pytest.mark.parametrize("way", ["given", "named"])
def test_a_key_on_an_unknown_curve_is_refused(farm: Farm, way: str) -> None:
    if way == "named":
        [signature] = json.loads((farm.root / "store" / HEAD_PATH).read_bytes())["signatures"]
        own = {"keyid": signature["keyid"], "scheme": "ecdsa-sha2-nistp256"}
        changed(farm, CONFIG_PATH, keys=[{**own, "public": unknown_curve()}])
    with pytest.raises((InputError, SignatureError)):
        curator.open_index(
            farm.root / "store", keys=[unknown_curve()] if way == "given" else [], cache=None
        )
