"""Damaged and invented documents, read by everything that reads an index: only typed errors."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curator.errors import CuratorError, IntegrityError
from curator.index import CONFIG_PATH, Config, evidence_path, parse, read_index
from curator.oci import canonical_json, sha256
from curator.ports import Blob
from curator.publish import Target, check_store, rebuild
from curator.reader._cache import Cache
from curator.reader._reader import IndexReader
from curator.reader._values import Fetched
from tests.documents import Memory, filled, rewritten
from tests.publishing import NOW, PLACE, FolderRegistry
from tests.unit.test_index import JSON, PLACES, replaced

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

KINDS = ("config", "head", "generation", "group", "shard", "evidence")
CONFIG = {"spec": 1, "store": "store-1", "registry": "registry.example/dl"}


@dataclass
class Documents:
    """Documents in memory, as a store and as what a reader reads."""

    memory: Memory

    def read(self, path: str) -> Blob | None:
        data = self.memory.files.get(path)
        return None if data is None else Blob(data=data, etag=sha256(data))

    def list(self, prefix: str) -> tuple[str, ...]:
        return tuple(sorted(path for path in self.memory.files if path.startswith(prefix)))

    def get(
        self,
        path: str,
        etag: str | None = None,
        *,
        within_s: float | None = None,  # noqa: ARG002 - memory is not waited for
    ) -> Fetched | None:
        found = self.read(path)
        if found is None:
            return None
        return Fetched(data=None if found.etag == etag else found.data, etag=found.etag)

    def close(self) -> None:
        """Hold nothing."""

    def add(self, path: str, data: bytes) -> None:
        raise AssertionError(f"{path} was written: {data!r}")

    def replace(self, path: str, data: bytes, expected_etag: str | None) -> str:
        raise AssertionError(f"{path} was written over {expected_etag}: {data!r}")

    def turn(self, name: str) -> AbstractContextManager[None]:
        raise AssertionError(name)


class WrittenError(Exception):
    """All that is needed was read: the writing begins."""


class Blank(Documents):
    """A new store, of which nothing is asked but that it is written to."""

    def add(self, path: str, data: bytes) -> None:
        raise WrittenError(f"{path}: {data!r}")


def documents() -> Documents:
    memory = filled()
    memory.files[CONFIG_PATH] = canonical_json(CONFIG)
    memory.files[evidence_path(sha256(b"report"))] = b"report"
    return Documents(memory)


def changed(found: Documents, kind: str, change: Callable[[Any], Any]) -> None:
    """Change a document and make every hash above it fit."""
    files = found.memory.files
    if kind == "config":
        files[CONFIG_PATH] = json.dumps(change(CONFIG)).encode()
    elif kind == "evidence":
        path = min(path for path, data in files.items() if b'"kind":"publish"' in data)
        data = json.dumps(change(json.loads(files.pop(path)))).encode()
        files[f"v1/evidence/{sha256(data)[7:]}.json"] = data
    else:
        rewritten(found.memory, kind, change)


@pytest.mark.parametrize(
    "registry",
    [
        "", "dl", "$(id).example/dl", "x.example;id/y", "x --privileged.y", "--privileged.x/y",
        "a..b", "a.b/../c", "a.b/C", "https://a.b", "a.b/c\n", "user@a.b", "a.b/",
    ],
)  # fmt: skip
def test_a_registry_that_no_engine_takes_is_refused(registry: str) -> None:
    data = json.dumps({**CONFIG, "registry": registry}).encode()
    with pytest.raises(IntegrityError, match="registry"):
        parse(Config, data, CONFIG_PATH)


@pytest.mark.parametrize("registry", ["a.b", "localhost", "[::1]:5000", "a.b:443/c/d-e", "dl:443"])
def test_a_registry_that_engines_take_is_read(registry: str) -> None:
    data = json.dumps({**CONFIG, "registry": registry}).encode()
    assert parse(Config, data, CONFIG_PATH).registry == registry


def read_all(found: Documents) -> None:
    """Read as a tool does."""
    reader = IndexReader(found, Cache(None), now=lambda: NOW)
    reader.refresh()
    for entry in reader.entries():
        assert reader.find(entry.id) == entry
        assert reader.reference(entry).endswith(entry.digest)


def readings(found: Documents, root: Path) -> dict[str, type[Exception] | None]:
    """Return what each way to read raises, None if nothing; what is untyped goes on its way."""
    target = Target(store=Blank(Memory()), registry=FolderRegistry(root), place=PLACE, now=NOW)
    ways: dict[str, Callable[[], object]] = {
        "writer": lambda: read_index(found),
        "tool": lambda: read_all(found),
        "rebuild": lambda: rebuild(found, target),
    }
    return {name: raised(way) for name, way in ways.items()}


def raised(read: Callable[[], object]) -> type[Exception] | None:
    try:
        read()
    except (CuratorError, WrittenError) as error:
        return type(error)
    return None


def untold(found: Documents, root: Path) -> list[str]:
    """Return which errors do not tell of damage, and whether the check overlooks what is fatal."""
    kinds = readings(found, root)
    findings = check_store(found, NOW).findings
    wrong = [
        f"{name}: {kind.__name__}"
        for name, kind in kinds.items()
        if kind and not issubclass(kind, (IntegrityError, WrittenError))
    ]
    return [*wrong, "check: nothing"] if kinds["writer"] and not findings else wrong


@settings(max_examples=400, deadline=None)
@given(kind=st.sampled_from(KINDS), path=PLACES, value=JSON)
def test_misshapen_documents_give_typed_errors_only(
    tmp_path_factory: Any, kind: str, path: int, value: object
) -> None:
    found = documents()
    try:
        changed(found, kind, lambda tree: replaced(tree, path + 1, value))
    except CuratorError:
        return
    assert untold(found, tmp_path_factory.getbasetemp()) == []


@settings(max_examples=400, deadline=None)
@given(where=PLACES, place=PLACES, data=st.binary(max_size=6), cut=st.booleans())
def test_damaged_bytes_give_typed_errors_only(
    tmp_path_factory: Any, where: int, place: int, data: bytes, *, cut: bool
) -> None:
    found = documents()
    files = found.memory.files
    path = sorted(files)[where % len(files)]
    good = files[path]
    at = place % len(good)
    files[path] = good[:at] + data + (b"" if cut else good[at + len(data) :])
    assert untold(found, tmp_path_factory.getbasetemp()) == []


def test_whole_documents_are_read_by_all(tmp_path: Path) -> None:
    found = documents()
    assert check_store(found, NOW).findings == []
    reader = IndexReader(found, Cache(None), now=lambda: NOW)
    assert reader.refresh()
    assert len(reader.entries()) == 3
    assert readings(found, tmp_path) == {"writer": None, "tool": None, "rebuild": WrittenError}
