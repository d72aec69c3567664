"""Expectations, rehearsals, keys, and the files that follow a publish."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import jsonschema
import pytest

from curator.derived import ATOM, MODELS
from curator.errors import InputError, RefusedError
from curator.index import read_index
from curator.oci import hex_of, sha256
from curator.publish import (
    AlreadyCommitted,
    Committed,
    ExpectationError,
    Rehearsal,
    Rejected,
    TakenError,
    publish,
)
from tests.publishing import (
    CANDIDATE,
    LATER,
    NOW,
    Farm,
    FusedRegistry,
    FusedStore,
    check,
    loaded,
)
from tests.signing import new_signer

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from curator.oci import Descriptor, Digest, Reference
    from curator.sign import Signer


@pytest.fixture
def farm(tmp_path: Path) -> Farm:
    return Farm(tmp_path)


def test_a_tag_that_is_where_it_is_expected_moves(farm: Farm) -> None:
    first, second = farm.change(), farm.change("14.2.1")
    assert isinstance(farm.publish(first, expect={"cupy:14.2": None}), Committed)
    answer = farm.publish(second, expect={"cupy:14.2": first.entry.digest})
    assert isinstance(answer, Committed)
    assert farm.tags("cupy")["14.2"] == second.entry.digest
    check(farm)


def test_a_tag_that_is_elsewhere_rejects_the_whole_publish(farm: Farm) -> None:
    first, second, third = farm.change(), farm.change("14.2.1"), farm.change("14.2.2")
    farm.publish(first)
    farm.publish(second)
    for want in (first.entry.digest, None):
        answer = farm.publish(third, expect={"cupy:14.2": want})
        assert isinstance(answer, Rejected)
        assert (answer.have, answer.want) == (second.entry.digest, want)
        assert "14.2" in answer.reason
    assert len(farm.documents.list("v1/gen/")) == 2
    assert len(check(farm)) == 2


def test_an_expectation_of_a_tag_that_is_not_touched_is_a_mistake(farm: Farm) -> None:
    with pytest.raises(InputError, match="no moving tag that this publish could touch"):
        farm.publish(farm.change(), expect={"numpy:1": None})
    assert farm.documents.list("v1/gen/") == ()


def test_an_expectation_error_says_what_is_there() -> None:
    have, want = sha256(b"have"), sha256(b"want")
    assert f"expected at {want}, it is at {have}" in str(
        ExpectationError("cupy:14.2", have=have, want=want)
    )
    assert "expected to be absent" in str(ExpectationError("x:y", have=have, want=None))


@pytest.mark.parametrize("when", ["resolve", "copy"])
def test_of_two_builders_of_one_image_the_later_publishes_its_tests(farm: Farm, when: str) -> None:
    inner = sha256(b"the platform's manifest")
    first = farm.change(platform_digest=inner)
    second = farm.change(platform_digest=inner, image=2, at=LATER)

    @dataclass
    class Overtaken(FusedRegistry):
        times: int = 1

        def overtake(self, name: str) -> None:
            if name == when and self.times:
                self.times = 0
                farm.publish(first)

        def resolve(self, reference: Reference) -> Descriptor | None:
            self.overtake("resolve")
            return self.inner.resolve(reference)

        def copy(self, source: Reference, target: Reference) -> Digest:
            self.overtake("copy")
            return self.inner.copy(source, target)

    registry = Overtaken(farm.images, farm.fuse)
    answer = publish([second], replace(farm.target(LATER), registry=registry))
    assert isinstance(answer, Committed)
    (entry,) = answer.entries
    assert (entry.digest, entry.tests[0].at) == (first.entry.digest, LATER)
    assert isinstance(farm.publish(second, now=LATER), AlreadyCommitted)
    check(farm)


@dataclass
class Raced(FusedStore):
    """A store without turns; something happens once, before a generation is created."""

    happens: Callable[[], object] = object

    def turn(self, name: str) -> AbstractContextManager[None]:
        del name
        return nullcontext()

    def add(self, path: str, data: bytes) -> None:
        if path.startswith("v1/gen/"):
            happens, self.happens = self.happens, object
            happens()
        self.inner.add(path, data)


def test_an_image_that_another_process_left_out_of_the_same_publish_is_a_failure(
    farm: Farm,
) -> None:
    kept, lost, taker = farm.change("14.1.0"), farm.change(), farm.change(image=2)

    def same_publish() -> None:
        beaten = Raced(farm.documents, farm.fuse, happens=lambda: farm.publish(taker))
        answer = publish([kept, lost], farm.target(store=beaten))
        assert isinstance(answer, Committed)
        assert [failure.entry.id for failure in answer.failures] == [lost.entry.id]

    store = Raced(farm.documents, farm.fuse, happens=same_publish)
    answer = publish([kept, lost], farm.target(store=store))
    assert isinstance(answer, Committed)
    assert [entry.id for entry in answer.entries] == [kept.entry.id]
    assert isinstance(answer.failures[0].error, TakenError)
    assert len(farm.documents.list("v1/gen/")) == 2
    check(farm)


@pytest.mark.parametrize("late", ["2026-11-23T12:00:00.5Z", NOW, "2026-11-22T00:00:00Z"])
def test_the_later_publish_is_the_newer_one_whatever_the_clocks_say(farm: Farm, late: str) -> None:
    for build in range(1, 5):
        change = farm.change(build=build)
        farm.publish(change, now="2026-11-23T12:00:00.5Z" if build == 1 else late)
        assert farm.tags("cupy")["14.2"] == change.entry.digest
        newest = read_index(farm.documents).find(cell=change.entry.cell)
        assert newest
        assert newest.id == change.entry.id
    check(farm)


def test_a_time_that_is_none_stops_no_publish(farm: Farm) -> None:
    farm.publish(farm.change(), now="2026-99-99T12:00:00Z")
    assert isinstance(farm.publish(farm.change(build=2)), Committed)


def test_a_rehearsal_lists_what_the_publish_then_writes(farm: Farm) -> None:
    first, second = farm.change(), farm.change("14.2.1")
    farm.publish(first)
    farm.fuse.writes.clear()
    target = farm.target(LATER)
    rehearsal = Rehearsal.of(target.store, target.registry)
    dry = replace(target, store=rehearsal.store, registry=rehearsal.registry)
    answer = publish([second], dry)
    assert isinstance(answer, Committed)
    assert (answer.gen, farm.fuse.writes) == (2, [])
    assert len(check(farm)) == 1
    farm.publish(second, now=LATER)
    done = [write.split()[:2] for write in farm.fuse.writes]
    told = [line.replace("(", "").split()[:2] for line in rehearsal.writes]
    assert [words[0] for words in told] == [words[0] for words in done]
    documents = {words[1] for words in done if words[0] in {"add", "replace"}}
    assert {words[1] for words in told if words[0] in {"add", "replace"}} == documents


def test_a_rehearsed_signature_is_seen_by_the_rehearsal(farm: Farm) -> None:
    signing = Farm(farm.root, signer=new_signer())
    target = signing.target()
    rehearsal = Rehearsal.of(target.store, target.registry)
    dry = replace(target, store=rehearsal.store, registry=rehearsal.registry)
    answer = publish([signing.change()], dry)
    assert isinstance(answer, Committed)
    assert len([line for line in rehearsal.writes if line.startswith("put ")]) == 1
    assert farm.tags("cupy") == {}


def test_the_first_signer_gives_an_index_its_keys(farm: Farm) -> None:
    signer = new_signer("ecdsa", "ed25519")
    signing = Farm(farm.root, signer=signer)
    change = signing.change()
    assert isinstance(signing.publish(change), Committed)
    config = loaded(farm.root / "store", "v1/config.json")
    assert [key["keyid"] for key in config["keys"]] == [key.keyid for key in signer.public]
    assert config["threshold"] == 2
    head = loaded(farm.root / "store", "v1/head.json")
    assert len(head["signatures"]) == 2
    assert head["expires"] == "2026-12-23T12:00:00Z"
    assert f"sha256-{hex_of(change.entry.digest)}.sig" in farm.tags("cupy")


def test_an_index_that_was_not_signed_becomes_signed(farm: Farm) -> None:
    farm.publish(farm.change())
    signing = Farm(farm.root, signer=new_signer())
    assert isinstance(signing.publish(signing.change("14.3.0")), Committed)
    config = loaded(farm.root / "store", "v1/config.json")
    assert len(config["keys"]) == 1
    assert loaded(farm.root / "store", "v1/head.json")["signatures"]


@pytest.mark.parametrize("signer", [None, new_signer()])
def test_a_signed_index_takes_nothing_from_others(farm: Farm, signer: Signer | None) -> None:
    signing = Farm(farm.root, signer=new_signer())
    signing.publish(signing.change())
    other = Farm(farm.root, signer=signer)
    change = other.change("14.3.0")
    with pytest.raises(RefusedError, match="CURATOR_SIGNING_KEY"):
        other.publish(change)
    assert other.fuse.writes == []
    assert len(farm.documents.list("v1/gen/")) == 1
    assert isinstance(signing.publish(change), Committed)


def test_the_same_publish_again_keeps_the_signature_and_renews_it_in_time(farm: Farm) -> None:
    signing = Farm(farm.root, signer=new_signer())
    change = signing.change()
    signing.publish(change)
    signing.fuse.writes.clear()
    assert isinstance(signing.publish(change, now=LATER), AlreadyCommitted)
    assert signing.fuse.writes == []
    signing.publish(change, now="2026-12-20T12:00:00Z")
    assert signing.fuse.writes == ["replace v1/head.json"]


def test_derived_files_are_written_by_difference(farm: Farm) -> None:
    farm.publish(farm.change())
    farm.fuse.writes.clear()
    farm.publish(farm.change("14.2.0", cuda="12.6", verdict=CANDIDATE))
    replaced = [write.split()[1] for write in farm.fuse.writes if write.startswith("replace")]
    assert replaced == [
        "v1/head.json", "v1/index.json", "v1/framework/cupy.json", "v1/feed.xml",
        "v1/projected.json",
    ]  # fmt: skip


def test_badge_and_feed_say_what_was_published(farm: Farm) -> None:
    farm.publish(farm.change(verdict=CANDIDATE))
    badge = loaded(farm.root / "store", "v1/badge/cupy.json")
    assert badge == {
        "schemaVersion": 1,
        "label": "cupy",
        "message": "14.2.0 CUDA 12.9, candidate",
        "color": "lightgrey",
    }
    change = farm.change("14.1.1")
    farm.publish(change, now=LATER)
    badge = loaded(farm.root / "store", "v1/badge/cupy.json")
    assert badge["message"] == "14.1.1 CUDA 12.9, tested on a GPU"
    root = ET.fromstring((farm.root / "store/v1/feed.xml").read_bytes())  # noqa: S314 - ours
    titles = [item.text for item in root.iter(f"{{{ATOM}}}title")][1:]
    assert titles[0] == f"{change.entry.id}: active"
    assert len(titles) == 2
    updated = root.find(f"{{{ATOM}}}updated")
    assert updated is not None
    assert updated.text == LATER


def test_the_feed_keeps_the_last_changes_and_can_be_made_again(farm: Farm) -> None:
    for number in range(12):
        farm.publish(*(farm.change(f"14.{number}.{patch}") for patch in range(5)))
    feed = farm.root / "store/v1/feed.xml"
    kept = feed.read_bytes()
    assert kept.count(b"<entry>") == 50
    (farm.root / "store/v1/projected.json").unlink()
    feed.unlink()
    farm.recover()
    assert feed.read_bytes() == kept


def test_every_document_has_the_shape_that_its_published_schema_says(farm: Farm) -> None:
    signing = Farm(farm.root, signer=new_signer())
    signing.publish(signing.change(), signing.change("14.1.1", verdict=CANDIDATE))
    signing.publish(signing.change("14.2.1"))
    root = farm.root / "store/v1"
    schemas = {name: json.loads((root / f"schema/{name}.json").read_bytes()) for name in MODELS}
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)
    checked: dict[str, int] = {}
    kinds = {"gen": "generation", "group": "group", "shard": "shard", "framework": "framework"}
    for path in [*root.glob("*.json"), *root.glob("*/*.json")]:
        document = json.loads(path.read_bytes())
        kind = kinds.get(path.parent.name, path.stem)
        if document.get("kind") == "publish":
            kind = "record"
        if kind in schemas and path.parent.name != "schema":
            jsonschema.validate(document, schemas[kind])
            checked[kind] = checked.get(kind, 0) + 1
            for entry in document.get("entries", ()):
                jsonschema.validate(entry, schemas["entry"])
    assert checked == {
        "config": 1, "head": 1, "index": 1, "framework": 1, "generation": 2, "group": 3,
        "shard": 3, "record": 2,
    }  # fmt: skip
    recorded = (Path(__file__).parent.parent / "data/evidence").glob("*-cuda*.json")
    reports = [json.loads(path.read_bytes()) for path in recorded]
    assert len(reports) == 3
    for report in reports:
        jsonschema.validate(report, schemas["report"])
    broken = json.loads((root / "head.json").read_bytes()) | {"gen": "1"}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, schemas["head"])
