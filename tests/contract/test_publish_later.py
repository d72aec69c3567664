"""Beside a newer curator: what it wrote stays as it is, and what it will decide is left to it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from curator.errors import RefusedError
from curator.index import LaterEntry, Status, commit_documents, read_index
from curator.publish import Change, Committed, audit
from tests.publishing import CANDIDATE, LATER, NOW, Farm, check

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def farm(tmp_path: Path) -> Farm:
    return Farm(tmp_path)


def written_by_a_newer_curator(farm: Farm, change: Change) -> dict[str, Any]:
    """Write an entry again as a newer version does; every tag stays where it is."""
    before = read_index(farm.documents)
    assert before.tip is not None
    entry = before.at(change.entry)
    tree = entry.to_json() | {"v": 2, "novelty": {"a": 1}}
    shard = before.shards[entry.shard]
    others = [item for item in shard.entries if item.id != entry.id]
    entries = sorted([*others, LaterEntry.model_validate(tree)], key=lambda item: item.id)
    changed = shard.model_copy(update={"entries": tuple(entries)})
    made = commit_documents(
        before,
        replace(before, shards={**before.shards, entry.shard: changed}),
        store=before.tip.generation.store,
        publish="a" * 64,
        now=NOW,
    )
    for document in (*made.named, made.generation):
        farm.documents.add(document.path, document.data)
    farm.recover(NOW)
    return tree


def test_its_tags_stay_where_they_are(farm: Farm) -> None:
    old, held, new = farm.change("14.2.1"), farm.change("14.2.5"), farm.change("14.2.9")
    farm.publish(old, held)
    tree = written_by_a_newer_curator(farm, held)
    before = dict(read_index(farm.documents).tags)
    answer = farm.publish(new, now=LATER)
    assert isinstance(answer, Committed)
    after = read_index(farm.documents).tags
    assert set(before.items()) <= set(after.items())
    assert farm.tags("cupy")["14.2"] == after["cupy:14.2"] == held.entry.digest
    assert farm.tags("cupy")["14.2.9-cuda12.9-py3.11"] == new.entry.digest
    assert tree in check(farm, finished=False)
    codes = {finding.code for finding in audit(farm.target(LATER)).findings}
    assert not codes & {"missing-tag", "moving-tag", "immutable-tag", "image"}


def test_tags_that_it_does_not_hold_follow_the_rest(farm: Farm) -> None:
    held = farm.change("14.2.5", verdict=CANDIDATE)
    old, new = farm.change("14.2.1"), farm.change("14.2.2")
    farm.publish(held, old, new)
    written_by_a_newer_curator(farm, held)
    yanked = farm.recorded(new).model_copy(update={"status": Status(state="yanked")})
    farm.publish(Change(entry=yanked), now=LATER)
    assert farm.tags("cupy")["14.2"] == old.entry.digest
    assert farm.tags("candidate/cupy")["14.2"] == held.entry.digest


def test_what_is_published_over_it_fails_alone(farm: Farm) -> None:
    held = farm.change("14.2.5")
    farm.publish(held)
    tree = written_by_a_newer_curator(farm, held)
    again, other = farm.change("14.2.5", at=LATER), farm.change("14.8.0")
    answer = farm.publish(again, other, now=LATER)
    assert isinstance(answer, Committed)
    (failure,) = answer.failures
    assert failure.entry.id == again.entry.id
    assert isinstance(failure.error, RefusedError)
    assert "newer curator" in str(failure.error)
    assert answer.entries == (farm.recorded(other),)
    assert tree in check(farm, finished=False)
