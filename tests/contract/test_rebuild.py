"""The same index again, from evidence and registry alone; what cannot be made again is told."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from curator.errors import IntegrityError, RefusedError
from curator.index import Status, evidence_path, read_index
from curator.oci import canonical_json, sha256
from curator.publish import Change, Committed, audit, publish, rebuild
from curator.store import DirectoryStore
from tests.publishing import (
    CANDIDATE,
    LATER,
    NOW,
    REFUSED,
    Farm,
    Fuse,
    FusedStore,
    Killed,
    in_memory,
)
from tests.signing import new_signer

if TYPE_CHECKING:
    from pathlib import Path

    from curator.index import Index
    from curator.publish import Target


@pytest.fixture
def farm(tmp_path: Path) -> Farm:
    return Farm(tmp_path)


def alone(farm: Farm) -> DirectoryStore:
    """Return a store with nothing but the farm's evidence."""
    root = farm.root / "alone"
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(farm.root / "store/v1/evidence", root / "v1/evidence")
    return DirectoryStore(root)


def new(farm: Farm, name: str = "new") -> Target:
    return replace(farm.target(LATER), store=DirectoryStore(farm.root / name))


def said(index: Index) -> Any:
    return index.entries, index.tags


def records(farm: Farm) -> dict[str, Any]:
    """Return each publish's record by its path, as it stands in the evidence."""
    paths = (farm.root / "store/v1/evidence").glob("*.json")
    found = {f"v1/evidence/{path.name}": json.loads(path.read_bytes()) for path in paths}
    return {path: value for path, value in found.items() if value.get("kind") == "publish"}


def yanked(farm: Farm, change: Change) -> Change:
    status = Status(state="yanked", reason="broken", by="me")
    return Change(entry=farm.recorded(change).model_copy(update={"status": status}))


def test_the_index_is_made_again_from_evidence_and_registry_alone(farm: Farm) -> None:
    first = farm.change()
    farm.publish(first, farm.change("14.1.1", verdict=CANDIDATE))
    farm.publish(farm.change("14.10.0", cuda="13.0"))
    farm.publish(farm.change(at=LATER), now=LATER)
    farm.publish(farm.change("14.10.0", build=2, verdict=REFUSED))
    target = new(farm)
    made = rebuild(alone(farm), target)
    assert made.left_out == ()
    assert said(made.index) == said(read_index(farm.documents))
    assert said(read_index(target.store)) == said(made.index)
    assert audit(target).findings == ()
    with pytest.raises(RefusedError, match="an index already"):
        rebuild(alone(farm), target)


def test_what_was_decided_in_a_rebuilt_index_is_made_again(farm: Farm) -> None:
    change = farm.change()
    for version in ("14.0.1", "14.0.2"):
        farm.publish(farm.change(version))
    farm.publish(change)
    once, twice = new(farm), new(farm, "newer")
    rebuild(farm.documents, once)
    publish([yanked(farm, change)], once)
    made = rebuild(once.store, twice)
    assert made.index.at(change.entry).status.state == "yanked"
    assert said(made.index) == said(read_index(once.store))
    assert made.left_out == ()


def killed(root: Path, instant: int, what: str) -> Farm:
    """Return a farm whose second publish was killed at an instant."""
    farm = Farm(root)
    old, change = farm.change("14.2.0"), farm.change("14.2.1")
    farm.publish(old, change)
    dying = Farm(root, Fuse(burns_at=instant))
    second = {
        "image": lambda: dying.change("14.3.0"),
        "yank": lambda: yanked(farm, change),
        "test": lambda: dying.change("14.2.1", at=LATER),
    }[what]()
    try:
        dying.publish(second, now=LATER)
    except Killed:
        return farm
    raise EOFError


@pytest.mark.parametrize("what", ["image", "yank", "test"])
def test_a_publish_that_never_was_is_not_made_again(what: str) -> None:
    """Killed at every instant: it is told, and without the chain doubts are told as well."""
    doubts = set()
    for instant in range(400):
        with in_memory() as root:
            try:
                farm = killed(root, instant, what)
            except EOFError:
                break
            index = said(read_index(farm.documents))
            dead = len(records(farm)) - len(farm.documents.list("v1/gen/"))
            assert len(rebuild(farm.documents, new(farm)).left_out) == dead
            assert said(read_index(new(farm).store)) == index
            made = rebuild(alone(farm), new(farm, "newer"))
            if said(made.index) != index:
                doubts.add((what, len(made.left_out)))
    assert instant > 20
    assert doubts <= {("image", 1), ("yank", 1), ("test", 0)}


def test_who_was_overtaken_and_died_is_left_out(farm: Farm) -> None:
    old, change = farm.change("14.2.0"), farm.change("14.2.1")
    farm.publish(old, change)

    class Overtaken(FusedStore):
        def add(self, path: str, data: bytes) -> None:
            if path.startswith("v1/gen/"):
                farm.publish(farm.change("14.2.1", at=LATER), now=LATER)
                raise Killed
            super().add(path, data)

    target = farm.target(LATER, store=Overtaken(DirectoryStore(farm.root / "store"), Fuse()))
    with pytest.raises(Killed):
        publish([yanked(farm, change)], target)
    for number, source in enumerate((farm.documents, alone(farm))):
        made = rebuild(source, new(farm, f"new-{number}"))
        assert said(made.index) == said(read_index(farm.documents))
        assert len(made.left_out) == number


@pytest.mark.parametrize("is_head_lost", [False, True])
@pytest.mark.parametrize("lost", [1, 2])
def test_a_chain_that_lost_its_end_keeps_nothing_out(
    farm: Farm, lost: int, *, is_head_lost: bool
) -> None:
    heads = []
    for minor in range(4):
        farm.publish(farm.change(f"14.{minor}.0"))
        heads.append((farm.root / "store/v1/head.json").read_bytes())
    state = said(read_index(farm.documents))
    for path in farm.documents.list("v1/gen/")[-lost:]:
        (farm.root / "store" / path).unlink()
    (farm.root / "store/v1/head.json").write_bytes(heads[-1 - lost])
    if is_head_lost:
        (farm.root / "store/v1/head.json").unlink()
    made = rebuild(farm.documents, new(farm))
    assert (said(made.index), made.left_out) == (state, ())


def test_records_of_a_curator_that_named_no_parent_count_as_far_as_tags_prove_them(
    farm: Farm,
) -> None:
    change = farm.change("14.0.1")
    farm.publish(farm.change("14.0.0"))
    farm.publish(change)
    farm.publish(farm.change("14.0.1", at=LATER), now=LATER)
    state = read_index(farm.documents)
    farm.publish(yanked(farm, change))
    farm.publish(farm.change("14.0.2"))
    for path, record in records(farm).items():
        (farm.root / "store" / path).unlink()
        planted(farm, {name: value for name, value in record.items() if name != "parent"})
    made = rebuild(alone(farm), new(farm))
    versions = [entry.stack.version for entry in made.index.entries]
    assert versions == ["14.0.0", "14.0.1", "14.0.2"]
    assert made.index.at(change.entry) == state.at(change.entry)
    # The only tag that the yank moved has moved on.
    (doubt,) = made.left_out
    assert doubt.startswith(f"{change.entry.id} as of ")


def test_of_rivals_that_the_same_tag_proves_one_is_told(farm: Farm) -> None:
    change = farm.change()
    farm.publish(change)
    ((_, record),) = records(farm).items()
    planted(farm, {**record, "at": LATER})
    made = rebuild(alone(farm), new(farm))
    assert [entry.id for entry in made.index.entries] == [change.entry.id]
    (doubt,) = made.left_out
    assert doubt.startswith(f"{change.entry.id} as of ")


def test_an_image_that_is_gone_is_left_out_and_a_name_that_is_gone_is_given_again(
    farm: Farm,
) -> None:
    kept, lost = farm.change(), farm.change("14.3.0")
    farm.publish(kept)
    farm.publish(lost)
    images = farm.root / "registry/dl/cupy"
    for change in (kept, lost):
        (images / "tags" / change.entry.tags[0]).unlink()
    (images / "manifests" / lost.entry.digest[7:]).unlink()
    made = rebuild(farm.documents, new(farm))
    assert [entry.id for entry in made.index.entries] == [kept.entry.id]
    assert made.left_out[0].startswith(f"{lost.entry.id}: ")
    assert farm.tags("cupy")[kept.entry.tags[0]] == kept.entry.digest


def test_more_than_one_commit_holds_is_made_again(farm: Farm) -> None:
    note = {"note": "x" * 700_000}
    for first in range(0, 30, 10):
        changes = [farm.change(f"14.{minor}.0") for minor in range(first, first + 10)]
        answer = farm.publish(*(replace(c, entry=c.entry.model_copy(update=note)) for c in changes))
        assert isinstance(answer, Committed)
    target = new(farm)
    made = rebuild(farm.documents, target)
    assert made.left_out == ()
    assert made.index.number > 3
    assert said(made.index) == said(read_index(farm.documents))
    assert audit(target).findings == ()


@pytest.mark.parametrize("is_config_lost", [False, True])
def test_that_the_keys_of_a_signed_index_are_not_here_is_told(
    farm: Farm, *, is_config_lost: bool
) -> None:
    keys, others = new_signer("ecdsa"), new_signer("ed25519")
    signing = Farm(farm.root, signer=keys)
    signing.publish(signing.change())
    if is_config_lost:
        (farm.root / "store/v1/config.json").unlink()
    for number, signer in enumerate((None, others, keys)):
        target = replace(new(farm, f"new-{number}"), signer=signer)
        made = rebuild(farm.documents, target)
        assert len(made.index.entries) == 1
        assert ["CURATOR_SIGNING_KEY" in why for why in made.left_out] == [True] * (signer != keys)


def planted(farm: Farm, record: Any) -> None:
    data = canonical_json(record)
    farm.documents.add(evidence_path(sha256(data)), data)


def test_what_a_newer_curator_wrote_is_said_to_be_left_out(farm: Farm) -> None:
    farm.publish(farm.change(), farm.change("14.3.0"))
    ((path, record),) = records(farm).items()
    record["entries"][0]["v"] = 2
    (farm.root / "store" / path).unlink()
    planted(farm, record)
    made = rebuild(alone(farm), new(farm))
    assert len(made.index.entries) == 1
    assert made.left_out == (
        f"{record['entries'][0]['id']}: was written by a newer curator: rebuild with that one",
    )


@pytest.mark.parametrize(
    ("lost", "told"),
    [
        ({0}, ["record"]),
        ({1}, ["record"]),
        ({3}, ["record"]),
        ({1, 2}, ["record", "the records of generations 2 to 2"]),
        ({0, 1, 2}, ["record", "the records of generations 1 to 2"]),
        ({0, 2}, ["record", "record"]),
    ],
)
def test_records_that_are_missing_are_told(farm: Farm, lost: set[int], told: list[str]) -> None:
    versions = [f"14.{minor}.0" for minor in range(5)]
    for version in versions:
        farm.publish(farm.change(version))
    for path, record in records(farm).items():
        if record["base"] in lost:
            (farm.root / "store" / path).unlink()
    made = rebuild(alone(farm), new(farm))
    kept = [version for number, version in enumerate(versions) if number not in lost]
    assert [entry.stack.version for entry in made.index.entries] == kept
    starts = zip(made.left_out, told, strict=True)
    assert all(why.startswith(start) for why, start in starts)


def test_evidence_of_two_histories_is_refused(farm: Farm) -> None:
    other = Farm(farm.root / "other")
    for version in ("14.1.0", "14.2.0"):
        farm.publish(farm.change(version))
        other.publish(other.change(version, build=2))
    shutil.copytree(
        other.root / "store/v1/evidence", farm.root / "store/v1/evidence", dirs_exist_ok=True
    )
    with pytest.raises(IntegrityError, match="two histories"):
        rebuild(alone(farm), new(farm))
    assert not (farm.root / "new").exists()


def test_what_a_test_printed_is_no_record(farm: Farm) -> None:
    farm.publish(farm.change())
    planted(farm, {"checks": [{"got": {"kind": "publish"}}]})
    assert len(rebuild(farm.documents, new(farm)).index.entries) == 1


def test_damaged_evidence_is_not_rebuilt_from(farm: Farm) -> None:
    farm.publish(farm.change(), now=NOW)
    path = min((farm.root / "store/v1/evidence").glob("*.json"))
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(IntegrityError, match="not what its name says"):
        rebuild(farm.documents, new(farm))
    assert not (farm.root / "new").exists()
