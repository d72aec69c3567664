"""The transaction: what is published under which names, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from curator.errors import IntegrityError, RefusedError, TemporaryError
from curator.index import (
    CONFIG_PATH,
    Config,
    Index,
    Status,
    commit_documents,
    generation_path,
    read_index,
)
from curator.oci import sha256
from curator.policy import admitted
from curator.publish import (
    AlreadyCommitted,
    Change,
    Committed,
    Rejected,
    Target,
    publish,
    recover,
)
from curator.registry import HttpRegistry
from curator.settings import Place
from curator.store import DirectoryStore
from tests import layouts
from tests.publishing import (
    CANDIDATE,
    LATER,
    NOW,
    PLACE,
    REFUSED,
    Farm,
    FusedRegistry,
    check,
    loaded,
    reported,
)

if TYPE_CHECKING:
    from pathlib import Path

    from curator.index import Outcome, State
    from curator.oci import Descriptor, Digest, Reference


def read_generation_of(farm: Farm, number: int) -> dict[str, Any]:
    found: dict[str, Any] = loaded(farm.root / "store", generation_path(number))
    return found


@pytest.fixture
def farm(tmp_path: Path) -> Farm:
    return Farm(tmp_path)


def test_an_image_is_published_under_its_names(farm: Farm) -> None:
    change = farm.change()
    answer = farm.publish(change)
    assert isinstance(answer, Committed)
    assert (answer.gen, answer.entries) == (1, (farm.recorded(change),))
    assert read_generation_of(farm, 1)["publishes"] == [answer.publish]
    digest = change.entry.digest
    assert farm.tags("cupy") == {
        change.entry.tags[0]: digest,
        "14.2.0-cuda12.9-py3.11": digest,
        "14.2-cuda12": digest,
        "14.2": digest,
    }
    entry = farm.recorded(change)
    assert (entry.published, entry.status.at, entry.status.state) == (NOW, NOW, "active")
    assert len(check(farm)) == 1


def test_the_order_of_writes(farm: Farm) -> None:
    farm.publish(farm.change())
    writes = [write.replace("v1/", "") for write in farm.fuse.writes]
    kinds = [write.rpartition("/")[0] if "/" in write else write.split()[0] for write in writes]
    assert kinds == [
        "copy registry.example/dl/staging", "add evidence", "replace", "add shard", "add group",
        "add evidence", "add gen", "replace", "tag", "tag", "tag", "tag", "replace",
        "replace framework", "replace badge", "replace", *["replace schema"] * 10, "replace",
    ]  # fmt: skip
    assert [write for write in writes if write.count("/") == 0 and "replace" in write] == [
        "replace config.json", "replace head.json", "replace index.json", "replace feed.xml",
        "replace projected.json",
    ]  # fmt: skip


def test_the_same_content_again_writes_nothing(farm: Farm) -> None:
    change = farm.change()
    farm.publish(change)
    farm.recover()
    farm.fuse.writes.clear()
    again = farm.publish(change, now=LATER)
    assert again == AlreadyCommitted(gen=1, entries=(farm.recorded(change),))
    assert farm.recover() == ()
    assert farm.fuse.writes == []


def test_a_new_test_of_a_published_image_copies_and_tags_nothing(farm: Farm) -> None:
    farm.publish(farm.change())
    farm.fuse.writes.clear()
    answer = farm.publish(farm.change(at=LATER), now=LATER)
    assert isinstance(answer, Committed)
    assert not [write for write in farm.fuse.writes if write.split()[0] in {"copy", "tag"}]
    (entry,) = answer.entries
    assert (entry.tests[0].at, entry.published) == (LATER, NOW)
    check(farm)


def test_a_batch_is_one_generation(farm: Farm) -> None:
    changes = [farm.change(version) for version in ("14.0.1", "14.1.1", "14.2.0")]
    answer = farm.publish(*changes)
    assert isinstance(answer, Committed)
    assert (answer.gen, len(answer.entries)) == (1, 3)
    assert len(check(farm)) == 3


def test_one_image_that_cannot_be_copied_does_not_stop_the_others(farm: Farm) -> None:
    good, lost = farm.change("14.1.1"), farm.change("14.2.0")
    gone = PLACE.repository("staging/elsewhere").with_digest(lost.entry.digest)
    answer = farm.publish(replace(lost, source=gone), good)
    assert isinstance(answer, Committed)
    assert [failure.entry.id for failure in answer.failures] == [lost.entry.id]
    assert [entry["id"] for entry in check(farm)] == [good.entry.id]


@pytest.mark.parametrize("wrong", ["no source", "another image", "no evidence", "not admitted"])
def test_what_does_not_fit_together_is_not_published(farm: Farm, wrong: str) -> None:
    change = farm.change()
    made = {
        "no source": replace(change, source=None),
        "another image": replace(change, source=farm.stage(b"another")),
        "no evidence": replace(change, evidence=()),
        "not admitted": replace(change, entry=change.entry.model_copy(update={"tags": ("x",)})),
    }[wrong]
    answer = farm.publish(made)
    assert isinstance(answer, Rejected)
    assert isinstance(answer.failures[0].error, IntegrityError | RefusedError)
    assert farm.documents.list("") == ()
    assert farm.tags("cupy") == {}


def test_an_image_twice_in_one_publish_is_one(farm: Farm) -> None:
    change = farm.change()
    answer = farm.publish(change, change)
    assert isinstance(answer, Committed)
    assert answer.failures == ()
    assert len(check(farm)) == 1


def test_an_image_with_two_contents_in_one_publish_is_refused(farm: Farm) -> None:
    answer = farm.publish(farm.change(), farm.change(image=2), farm.change("14.3.0"))
    assert isinstance(answer, Committed)
    assert len(answer.failures) == 1
    assert [entry["stack"]["version"] for entry in check(farm)] == ["14.3.0"]


def test_an_immutable_tag_that_somebody_took_refuses(farm: Farm) -> None:
    change = farm.change()
    target = PLACE.repository("cupy")
    stranger = farm.images.stage(target, b"stranger")
    farm.images.tag(target.with_digest(stranger), change.entry.tags[0])
    answer = farm.publish(change)
    assert isinstance(answer, Rejected)
    assert (answer.have, answer.want) == (stranger, change.entry.digest)
    assert isinstance(answer.failures[0].error, RefusedError)
    assert farm.documents.list("") == ()
    assert farm.fuse.writes == []


def test_another_image_of_the_same_recipe_is_refused(farm: Farm) -> None:
    farm.publish(farm.change())
    farm.fuse.writes.clear()
    answer = farm.publish(farm.change(image=2))
    assert isinstance(answer, Rejected)
    assert (answer.have, answer.want) == (
        farm.change().entry.digest,
        farm.change(image=2).entry.digest,
    )
    assert farm.fuse.writes == []


def test_a_rebuild_that_gives_the_same_platform_image_counts_as_the_published_one(
    farm: Farm,
) -> None:
    inner = sha256(b"the platform's manifest")
    first = farm.change(platform_digest=inner, verdict=CANDIDATE)
    farm.publish(first)
    again = farm.change(platform_digest=inner, image=2, at=LATER)
    answer = farm.publish(again, now=LATER)
    assert isinstance(answer, Committed)
    (entry,) = answer.entries
    assert (entry.digest, entry.channel) == (first.entry.digest, "stable")
    assert farm.tags("cupy")["14.2"] == first.entry.digest
    check(farm)


def test_what_no_gate_let_through_is_recorded_and_has_no_names(farm: Farm) -> None:
    change = farm.change(verdict=REFUSED)
    answer = farm.publish(change)
    assert isinstance(answer, Committed)
    entry = farm.recorded(change)
    assert entry.status.state == "unpublished"
    assert entry.status.reason.startswith("contents: fail")
    assert farm.tags("cupy") == farm.tags("candidate/cupy") == {}
    check(farm)


def test_moving_tags_follow_the_whole_set(farm: Farm) -> None:
    new, old = farm.change("14.10.0"), farm.change("14.10.0", cuda="12.6")
    farm.publish(new)
    farm.publish(old)
    assert farm.tags("cupy")["14.10"] == new.entry.digest
    yanked = new.entry.model_copy(update={"status": Status(state="yanked", reason="broken")})
    farm.publish(Change(entry=yanked))
    assert farm.tags("cupy")["14.10"] == old.entry.digest
    assert farm.tags("cupy")[new.entry.tags[0]] == new.entry.digest
    assert read_index(farm.documents).tags["cupy:14.10-cuda12"] == old.entry.digest


def test_a_build_that_is_tested_again_after_a_newer_one_takes_the_names_back(farm: Farm) -> None:
    old, new = farm.change(), farm.change(build=2)
    farm.publish(old)
    farm.publish(new, now="2026-11-23T13:00:00Z")
    assert farm.tags("cupy")["14.2"] == new.entry.digest
    again = farm.publish(old, now=LATER)
    assert isinstance(again, AlreadyCommitted)
    assert farm.tags("cupy")["14.2"] == new.entry.digest
    farm.publish(farm.change(at=LATER), now=LATER)
    assert farm.tags("cupy")["14.2"] == old.entry.digest
    check(farm)


BROKEN: tuple[Outcome, Outcome] = ("pass", "fail")


@pytest.mark.parametrize("state", ["deprecated", "yanked"])
def test_a_decision_on_an_older_build_makes_it_no_newer(farm: Farm, state: State) -> None:
    old, new = farm.change(), farm.change(build=2)
    farm.publish(old)
    farm.publish(new)
    for change in (new, old):
        known = farm.recorded(change)
        status = Status(state="deprecated" if change is new else state, reason="old")
        farm.publish(Change(entry=known.model_copy(update={"status": status})), now=LATER)
        assert farm.recorded(change).published == known.published
        assert farm.tags("cupy")["14.2"] == (old if change is new else new).entry.digest
    check(farm)


@pytest.mark.parametrize("order", ["pass first", "failure first"])
def test_an_image_that_fails_on_one_gpu_is_in_no_channel(farm: Farm, order: str) -> None:
    changes = [farm.change(), farm.change(verdict=BROKEN, sm="7.5", at=LATER)]
    for change in changes if order == "pass first" else reversed(changes):
        farm.publish(change)
    (entry,) = read_index(farm.documents).entries
    assert (entry.status.state, entry.channel) == ("unpublished", None)
    assert read_index(farm.documents).tags == {}
    assert len(entry.tests) == 4
    assert bool(entry.tags) == (order == "pass first")
    farm.publish(farm.change(sm="7.5", at="2026-11-25T12:00:00Z"), now="2026-11-25T12:00:00Z")
    assert farm.tags("cupy")["14.2"] == entry.digest
    check(farm)


@pytest.mark.parametrize("found", [("fail", "pass"), ("pass", "not-run")])
def test_an_image_stands_where_all_its_tests_put_it(
    farm: Farm, found: tuple[Outcome, Outcome]
) -> None:
    """Neither report alone opens the stable channel; the image is there before the index says so.

    The other one is committed before, or while this one is about to be.
    """
    halves = [farm.change(verdict=("fail", "pass")), farm.change(verdict=CANDIDATE, at=LATER)]
    first, second = halves if found == ("fail", "pass") else reversed(halves)

    class Overtaken(FusedRegistry):
        def copy(self, source: Reference, target: Reference) -> Digest:
            copied = super().copy(source, target)
            if target.repository.startswith("dl/candidate"):
                farm.publish(halves[0])
            return copied

    target = farm.target(LATER)
    publish([first], replace(target, registry=Overtaken(farm.images, farm.fuse)))
    publish([second], target)
    (entry,) = read_index(farm.documents).entries
    assert (entry.channel, entry.repository) == ("stable", "cupy")
    assert farm.tags("cupy")["14.2"] == entry.digest
    check(farm)


def test_a_candidate_becomes_stable(farm: Farm) -> None:
    farm.publish(farm.change(verdict=CANDIDATE))
    assert "14.2" in farm.tags("candidate/cupy")
    assert farm.tags("cupy") == {}
    farm.publish(farm.change(at=LATER), now=LATER)
    assert "14.2" in farm.tags("cupy")
    index = read_index(farm.documents)
    assert all(name.startswith("cupy:") for name in index.tags)
    assert index.tip
    assert index.tip.generation.moved["candidate/cupy:14.2"] is None
    check(farm)


def test_a_registry_that_fails_after_the_commit_leaves_it_to_recovery(farm: Farm) -> None:
    class Down(FusedRegistry):
        def tag(self, source: Reference, tag: str) -> Digest:
            raise TemporaryError(f"{source} as {tag}: 503")

    change = farm.change()
    registry = Down(farm.images, farm.fuse)
    answer = publish([change], replace(farm.target(), registry=registry))
    assert isinstance(answer, Committed)
    assert isinstance(answer.unfinished, TemporaryError)
    assert farm.tags("cupy") == {}
    written = farm.recover()
    assert len([name for name in written if name.startswith("cupy:")]) == 4
    assert farm.recover() == ()
    check(farm)


def test_a_registry_that_is_down_publishes_nothing(farm: Farm) -> None:
    class Down(FusedRegistry):
        def resolve(self, reference: Reference) -> Descriptor | None:
            raise TemporaryError(f"{reference}: connection refused")

    registry = Down(farm.images, farm.fuse)
    answer = publish([farm.change()], replace(farm.target(), registry=registry))
    assert isinstance(answer, Rejected)
    assert isinstance(answer.failures[0].error, TemporaryError)
    assert farm.documents.list("") == ()


def test_a_strangers_immutable_tag_is_never_written_over(farm: Farm) -> None:
    change = farm.change()
    farm.publish(change)
    target = PLACE.repository("cupy")
    stranger = target.with_digest(farm.images.stage(target, b"stranger"))
    for tag in (change.entry.tags[0], "14.2"):
        farm.images.tag(stranger, tag)
    (farm.root / "store/v1/projected.json").unlink()
    with pytest.raises(RefusedError, match="left as it is"):
        farm.recover()
    assert farm.tags("cupy")[change.entry.tags[0]] == stranger.digest
    assert farm.tags("cupy")["14.2"] == change.entry.digest


@pytest.mark.parametrize(
    ("path", "number"), [("projected.json", "gen"), ("index.json", "generation")]
)
@pytest.mark.parametrize("data", [b"", b"{", b'{"generation": "x"}', b"[" * 50_000])
def test_damaged_derived_documents_are_made_again(
    farm: Farm, path: str, number: str, data: bytes
) -> None:
    farm.publish(farm.change())
    (farm.root / "store/v1" / path).write_bytes(data)
    farm.publish(farm.change("14.3.0"))
    assert loaded(farm.root / "store/v1", path)[number] == 2
    assert {entry["stack"]["version"] for entry in check(farm)} == {"14.2.0", "14.3.0"}


def test_a_registry_at_another_address_is_looked_at_whole(farm: Farm) -> None:
    farm.publish(farm.change())
    farm.recover()
    moved = Place(registry="elsewhere.example", prefix="dl")
    written = recover(replace(farm.target(LATER), place=moved))
    assert [path for path in written if path.count("/") == 1] == [
        "v1/config.json", "v1/index.json", "v1/feed.xml", "v1/projected.json"
    ]  # fmt: skip
    assert loaded(farm.root / "store", "v1/config.json")["registry"] == "elsewhere.example/dl"


def test_recovering_nothing_is_nothing(farm: Farm) -> None:
    assert farm.recover() == ()
    assert farm.documents.list("") == ()


def test_a_large_farms_single_file_names_the_state_without_entries(farm: Farm) -> None:
    entries = [reported(f"14.0.{n}")[0].model_copy(update={"tests": ()}) for n in range(2001)]
    after = Index().merge(entries)
    made = commit_documents(Index(), after, store="s", publish="0" * 64, now=NOW)
    for document in (*made.named, made.generation):
        farm.documents.add(document.path, document.data)
    farm.documents.replace(CONFIG_PATH, Config(store="s", registry=str(PLACE)).data, None)
    farm.recover()
    whole = loaded(farm.root / "store", "v1/index.json")
    assert (whole["generation"], whole["entries"]) == (1, None)


def test_published_to_a_real_registry(tmp_path: Path, place: Place) -> None:
    registry = HttpRegistry(tmp_path / "docker")
    store = DirectoryStore(tmp_path / "store")
    target = Target(store=store, registry=registry, place=place, now=NOW)
    layout = layouts.attested(tmp_path / "layout", (b"one", b"two"))
    entry, report = reported("14.2.0")
    staging = place.repository("staging/cupy").with_tag(entry.recipe)
    digest = registry.push(layout.path, staging)
    entry = entry.model_copy(
        update={"digest": digest, "platform_digest": layout.manifests[0].digest}
    )
    change = Change(entry=admitted(entry), source=staging.with_digest(digest), evidence=(report,))
    answer = publish([change], target)
    assert isinstance(answer, Committed)
    assert (answer.failures, answer.unfinished) == ((), None)
    published = place.repository("candidate/cupy")
    for tag in (*change.entry.tags, "14.2.0-cuda12.9-py3.11", "14.2-cuda12", "14.2"):
        found = registry.resolve(published.with_tag(tag))
        assert found is not None
        assert found.digest == digest
    assert registry.manifest(published.with_digest(digest)).data == layout.image.data
    again = publish([change], replace(target, now=LATER))
    assert isinstance(again, AlreadyCommitted)
    assert recover(replace(target, now=LATER))[0] == "badge/cupy.svg"
    assert recover(replace(target, now=LATER)) == ()
