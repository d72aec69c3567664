"""The documents: strict reading, exact writing, a chain that cannot be mended unseen."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curator.errors import CuratorError, IntegrityError, RefusedError
from curator.index import (
    HEAD_PATH,
    Entry,
    Index,
    Record,
    commit_documents,
    generation_path,
    group_path,
    parse,
    read_index,
    read_tip,
    shard_path,
)
from curator.oci import canonical_json, sha256
from tests.documents import Memory, Tree, committed, entry, filled, rewritten

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = "2026-11-23T12:00:00Z"


def test_nothing_published_is_an_empty_index() -> None:
    index = read_index(Memory())
    assert (index.number, index.entries, index.tags) == (0, (), {})


def test_what_is_committed_is_read_back() -> None:
    index = read_index(filled())
    assert index.number == 2
    assert [item.cell for item in index.entries] == [
        "cupy-14.10.0-cuda12.9-py3.11",
        "cupy-14.2.0-cuda12.9-py3.11",
        "cupy-14.2.0-cuda13.0-py3.11",
    ]
    assert index.tags == {
        "candidate/cupy:a": entry().digest,
        "candidate/cupy:b": entry("14.10.0").digest,
    }
    assert sorted(index.shards) == ["cupy/14.10/12.9", "cupy/14.2/12.9", "cupy/14.2/13.0"]


def test_documents_are_canonical_and_named_by_their_hash() -> None:
    source = filled()
    for path, data in source.files.items():
        assert canonical_json(json.loads(data)) == data
        if "/shard/" in path:
            assert path == shard_path(sha256(data))
        if "/group/" in path:
            assert path == group_path(sha256(data))


def test_a_generation_says_what_it_changed() -> None:
    tip = read_tip(filled())
    assert tip is not None
    generation = tip.generation
    assert [change.entry for change in generation.changes] == [entry("14.10.0").id]
    assert generation.moved == {"candidate/cupy:b": entry("14.10.0").digest}
    assert generation.count == 3


def test_a_tag_that_lost_its_last_image_is_said_to_be_gone() -> None:
    source = Memory()
    before = committed(source, entry())
    after = before.point({"cupy/14.2": {}})
    made = commit_documents(before, after, store="store-1", publish="0" * 64, now=NOW)
    assert made.tip.generation.moved == {"candidate/cupy:a": None}
    assert '"candidate/cupy:a":null' in made.generation.data.decode()


def test_unchanged_shards_are_not_written_again() -> None:
    source = filled()
    before = read_index(source)
    after = before.merge([entry(build=2)])
    made = commit_documents(before, after, store="store-1", publish="0" * 64, now=NOW)
    kinds = [document.path.split("/")[1] for document in (*made.named, made.generation)]
    assert kinds == ["shard", "group", "evidence", "gen"]


def test_the_record_of_a_publish_tells_what_was_new() -> None:
    before = read_index(filled())
    made = commit_documents(
        before, before.merge([entry(build=2)]), store="store-1", publish="0" * 64, now=NOW
    )
    record = parse(Record, made.named[-1].data, "record")
    assert made.tip.generation.record == sha256(made.named[-1].data)
    assert (record.base, record.entries) == (2, (entry(build=2),))


def test_find_answers_the_newest_or_the_one_asked_for() -> None:
    source = Memory()
    old, new = (
        entry(published="2026-11-23T11:00:00Z"),
        entry(build=2, published="2026-11-23T11:00:00.5Z"),
    )
    index = committed(source, new, old)
    assert index.find(cell=old.cell) == new
    assert index.find(cell=old.cell, recipe=old.recipe) == old
    assert index.find(cell="nothing") is None
    assert [item.id for item in index.entries] == [old.id, new.id]


def test_a_commit_that_the_head_does_not_name_yet_is_read() -> None:
    source = filled()
    head = source.files[HEAD_PATH]
    committed(source, entry("14.3.0"), publish="c")
    source.files[HEAD_PATH] = head
    assert read_index(source).number == 3
    del source.files[HEAD_PATH]
    assert read_index(source).number == 3


def test_only_the_groups_asked_for_are_read() -> None:
    source = filled()
    index = read_index(source, {"cupy/14.10"})
    assert [item.stack.version for item in index.entries] == ["14.10.0"]
    with pytest.raises(ValueError, match="was not read"):
        index.merge([entry()])


def test_unknown_fields_survive_a_rewrite() -> None:
    source = Memory()
    newer = entry().to_json()
    newer["novelty"] = {"9.0": None, "list": [1, {"deep": True}]}
    newer["status"]["ticket"] = "T-1"
    newer["tests"][0]["host"] = "h"
    committed(source, parse(Entry, canonical_json(newer), "entry"))
    committed(source, entry(build=2), publish="b")
    index = read_index(source)
    kept = index.find(cell=newer["cell"], recipe=newer["recipe"])
    assert kept is not None
    assert kept.to_json() == newer
    assert kept.extra == {"novelty": newer["novelty"]}


def test_unknown_fields_of_a_shard_survive_a_rewrite() -> None:
    source = Memory()
    committed(source, entry())
    rewritten(source, "shard", lambda shard: shard | {"note": {"by": "newer"}})
    committed(source, entry(build=2), publish="b")
    (shard,) = read_index(source).shards.values()
    assert shard.extra == {"note": {"by": "newer"}}
    assert len(shard.known) == 2


@pytest.mark.parametrize("kind", ["group", "generation"])
def test_unknown_fields_above_a_shard_survive_a_rewrite(kind: str) -> None:
    source = Memory()
    committed(source, entry())
    rewritten(source, kind, lambda tree: tree | {"note": {"by": "newer"}})
    index = committed(source, entry(build=2), publish="b")
    assert index.tip
    found = index.tip.generation if kind == "generation" else index.groups["cupy/14.2"]
    assert found.extra == {"note": {"by": "newer"}}


def test_entries_of_a_higher_version_are_kept_and_not_shown() -> None:
    source = Memory()
    committed(source, entry())
    later = {"v": 2, "id": "a-later-entry", "shape": {"of": "its own"}}
    rewritten(source, "shard", lambda shard: shard | {"entries": [later, *shard["entries"]]})
    index = committed(source, entry(build=2), publish="b")
    assert len(index.entries) == 2
    (shard,) = index.shards.values()
    assert later in shard.to_json()["entries"]


def test_an_entry_of_a_higher_version_is_not_overwritten() -> None:
    source = Memory()
    committed(source, entry())
    rewritten(source, "shard", lambda s: s | {"entries": [{"v": 2, "id": s["entries"][0]["id"]}]})
    with pytest.raises(RefusedError, match="newer curator"):
        read_index(source).merge([entry()])


def without(name: str) -> Callable[[Tree], Tree]:
    return lambda tree: {key: value for key, value in tree.items() if key != name}


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("head", lambda t: t | {"spec": 2}, "update curator"),
        ("head", lambda t: t | {"gen": 1}, "does not stand at"),
        ("head", lambda t: t | {"gen": 9, "path": generation_path(9)}, "is missing"),
        ("head", lambda t: t | {"gen": True}, "gen"),
        ("head", lambda t: t | {"sha256": sha256(b"")}, "expected sha256"),
        ("head", lambda t: t | {"store": "another"}, "another"),
        ("head", without("store"), "store"),
        ("head", lambda t: t | {"x": 1.5}, "not an integer"),
        ("head", lambda t: t | {"x": float("nan")}, "not an integer"),
        ("head", lambda t: t | {"x": nested(40)}, "deeper than 32"),
        ("head", lambda t: t | {"x": "y" * (8 * 1024 * 1024)}, "bytes, more than"),
        ("generation", lambda t: t | {"number": 5}, "calls itself generation 5"),
        ("generation", lambda t: t | {"spec": 7}, "update curator"),
        ("generation", lambda t: t | {"groups": []}, "groups"),
        ("group", lambda t: t | {"tags": {"a:b": "sha256:0"}}, "tags"),
        ("group", lambda t: t | {"shards": []}, "shards"),
        ("group", lambda t: t | {"key": "cupy/1.0"}, "does not belong"),
        ("shard", lambda t: t | {"key": "cupy/1.0/9.0"}, "does not belong"),
        ("shard", lambda t: t | {"entries": t["entries"] * 2}, "same id"),
        ("shard", lambda t: t | {"entries": {}}, "entries"),
        ("shard", lambda t: t | {"entries": [t["entries"][0] | {"id": "other"}]}, "other is not"),
        ("shard", lambda t: t | {"entries": [t["entries"][0] | {"size": -1}]}, "size"),
        ("shard", lambda t: t | {"entries": [t["entries"][0] | {"digest": "x"}]}, "digest"),
        ("shard", lambda t: t | {"entries": [t["entries"][0] | {"repository": "../x"}]}, "repo"),
        ("shard", lambda t: t | {"entries": [t["entries"][0] | {"created": "today"}]}, "created"),
    ],
)  # fmt: skip
def test_a_document_that_is_not_as_promised_is_refused(
    kind: str, change: Callable[[Tree], Tree], message: str
) -> None:
    source = filled()
    rewritten(source, kind, change)
    with pytest.raises(IntegrityError, match=message):
        read_index(source)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "Expecting value"),
        (b"[]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b"\xff\xfe", "codec"),
        (b'{"gen":1,"gen":2}', "'gen' stands twice"),
        (b'{"x":{"a":1,"a":1}}', "'a' stands twice"),
        (b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "recursion|deeper"),
        (b'{"x":' + b"1" * 10_000 + b"}", "limit|digits"),
        (b'{"x":"\\ud800"}', "surrogate|JSON"),
        (b'{"spec":1} x', "Extra data"),
    ],
)
def test_text_that_two_readers_could_read_differently_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(IntegrityError, match=message):
        read_index(Memory({HEAD_PATH: data}))


def test_a_fork_is_refused() -> None:
    source, other = filled(), Memory()
    committed(other, entry(build=7))
    committed(other, entry(build=8))
    committed(other, entry(build=9))
    source.files[generation_path(3)] = other.files[generation_path(3)]
    with pytest.raises(IntegrityError, match="a fork"):
        read_index(source)


def test_a_shard_with_other_bytes_is_refused() -> None:
    source = filled()
    path = next(path for path in source.files if "/shard/" in path)
    good = source.files[path]
    source.files[path] = good.replace(b"cupy", b"copy", 1)
    with pytest.raises(IntegrityError, match="bytes hash to"):
        read_index(source)
    del source.files[path]
    with pytest.raises(IntegrityError, match="is missing"):
        read_index(source)


def test_a_document_that_readers_would_refuse_is_not_written() -> None:
    huge = entry(base="x" * (9 * 1024 * 1024))
    with pytest.raises(RefusedError, match="readers accept"):
        commit_documents(Index(), Index().merge([huge]), store="s", publish="0" * 64, now=NOW)


PLACES = st.integers(min_value=0, max_value=10_000)


@settings(max_examples=100, deadline=None)
@given(where=PLACES, place=PLACES, data=st.binary(max_size=6), cut=st.booleans())
def test_damaged_bytes_give_typed_errors_only(
    where: int, place: int, data: bytes, *, cut: bool
) -> None:
    source = filled()
    path = sorted(source.files)[where % len(source.files)]
    good = source.files[path]
    at = place % len(good)
    source.files[path] = good[:at] + data + (b"" if cut else good[at + len(data) :])
    try:
        index = read_index(source)
    except CuratorError as error:
        assert isinstance(error, IntegrityError)  # noqa: PT017 - either outcome is right
    else:
        assert index.number >= 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=8,
)


def replaced(tree: Any, path: int, value: Any) -> Any:
    """Put a value somewhere into a tree; the number says where."""
    if isinstance(tree, dict) and tree and path:
        key = sorted(tree)[path % len(tree)]
        return tree | {key: replaced(tree[key], path // len(tree), value)}
    if isinstance(tree, list) and tree and path:
        at = path % len(tree)
        return [*tree[:at], replaced(tree[at], path // len(tree), value), *tree[at + 1 :]]
    return value


@settings(max_examples=100, deadline=None)
@given(kind=st.sampled_from(["head", "generation", "group", "shard"]), path=PLACES, value=JSON)
def test_misshapen_documents_with_right_hashes_give_typed_errors_only(
    kind: str, path: int, value: object
) -> None:
    source = filled()
    try:
        rewritten(source, kind, lambda tree: replaced(tree, path + 1, value))
        index = read_index(source)
    except CuratorError as error:
        assert isinstance(error, IntegrityError)  # noqa: PT017 - either outcome is right
    else:
        for item in index.entries:
            assert parse(Entry, item.data, "again") == item
