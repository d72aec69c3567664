"""What an audit finds, what a repair mends, and that a second repair changes nothing."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

from curator.errors import RefusedError
from curator.index import evidence_path, generation_path, read_index
from curator.oci import hex_of
from curator.publish import (
    Audit,
    Committed,
    audit,
    check_store,
    generation_of,
    publish,
)
from tests.publishing import (
    CANDIDATE,
    LATER,
    NOW,
    PLACE,
    Farm,
    FusedRegistry,
    FusedStore,
    check,
    loaded,
)
from tests.signing import new_signer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from curator.oci import Digest, Reference
    from curator.ports import Blob
    from curator.publish import Change, Finding, Target


@pytest.fixture
def farm(tmp_path: Path) -> Farm:
    return Farm(tmp_path)


@pytest.fixture
def change(farm: Farm) -> Change:
    change = farm.change()
    answer = farm.publish(change, farm.change("14.1.1", verdict=CANDIDATE))
    assert isinstance(answer, Committed)
    return change


def audited(farm: Farm, *, repair: bool = False) -> Audit:
    return audit(farm.target(LATER), repair=repair)


def codes(found: Audit) -> list[str]:
    return sorted({finding.code for finding in found.findings})


def store_file(farm: Farm, path: str) -> Path:
    return farm.root / "store" / path


def stranger(farm: Farm, repository: str = "cupy") -> Reference:
    where = PLACE.repository(repository)
    return where.with_digest(farm.images.stage(where, b"a stranger's image"))


def test_nothing_wrong_is_no_finding(farm: Farm, change: Change) -> None:
    assert change
    farm.fuse.writes.clear()
    assert audited(farm) == Audit(findings=(), left=())
    assert audited(farm, repair=True) == Audit(findings=(), left=())
    assert farm.fuse.writes == []


def lost_head(farm: Farm, _: Change) -> None:
    store_file(farm, "v1/head.json").unlink()


def damaged_head(farm: Farm, _: Change) -> None:
    store_file(farm, "v1/head.json").write_bytes(b"{}")


def late_head(farm: Farm, change: Change) -> None:
    head = store_file(farm, "v1/head.json").read_bytes()
    farm.publish(farm.change("14.3.0", at=change.entry.created))
    store_file(farm, "v1/head.json").write_bytes(head)


def lost_moving_tag(farm: Farm, _: Change) -> None:
    (farm.root / "registry/dl/cupy/tags/14.2").unlink()


def lost_immutable_tag(farm: Farm, change: Change) -> None:
    (farm.root / "registry/dl/cupy/tags" / change.entry.tags[0]).unlink()


def moved_tag(farm: Farm, _: Change) -> None:
    farm.images.tag(stranger(farm), "14.2")


def lost_image(farm: Farm, change: Change) -> None:
    path = farm.root / "registry/dl/cupy/manifests" / hex_of(change.entry.digest)
    path.unlink()


def stale_file(farm: Farm, _: Change) -> None:
    store_file(farm, "v1/index.json").write_bytes(b"{}")
    store_file(farm, "v1/badge/cupy.json").unlink()


def audit_of(target: Target) -> Sequence[Finding]:
    return audit(target).findings


def store_of(target: Target) -> Sequence[Finding]:
    return tuple(check_store(target.store, target.now).findings)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lost_head, ["head"]),
        (damaged_head, ["head"]),
        (late_head, ["head-behind"]),
        (lost_moving_tag, ["missing-tag"]),
        (lost_immutable_tag, ["missing-tag"]),
        (moved_tag, ["moving-tag"]),
        (lost_image, ["image", "missing-tag"]),
        (stale_file, ["derived"]),
    ],
)
def test_what_can_be_mended_is_mended_once(
    farm: Farm, change: Change, damage: Callable[[Farm, Change], None], expected: list[str]
) -> None:
    damage(farm, change)
    farm.fuse.writes.clear()
    found = audited(farm)
    assert codes(found) == expected
    assert all(finding.repairable for finding in found.findings)
    assert farm.fuse.writes == []
    mended = audited(farm, repair=True)
    assert (mended.findings, mended.left) == (found.findings, ())
    assert mended.repaired
    check(farm)
    farm.fuse.writes.clear()
    assert audited(farm, repair=True) == Audit(findings=(), left=())
    assert farm.fuse.writes == []


def test_a_stranger_on_a_moving_tag_is_kept_aside(farm: Farm, change: Change) -> None:
    moved_tag(farm, change)
    strange = farm.tags("cupy")["14.2"]
    audited(farm, repair=True)
    tags = farm.tags("cupy")
    assert tags["14.2"] == change.entry.digest
    assert tags[f"drift-14.2-{strange[7:19]}"] == strange


def test_a_stranger_on_an_immutable_tag_is_an_alarm(farm: Farm, change: Change) -> None:
    tag = change.entry.tags[0]
    strange = stranger(farm)
    farm.images.tag(strange, tag)
    assert codes(audited(farm)) == ["immutable-tag"]
    mended = audited(farm, repair=True)
    # The moving names that lost their last image cannot be taken back by the protocol.
    assert {finding.code for finding in mended.left} == {"unknown-tag"}
    entry = farm.recorded(change)
    assert (entry.status.state, entry.status.by) == ("quarantined", "audit")
    assert str(strange.digest) in entry.status.reason
    assert farm.tags("cupy")[tag] == strange.digest
    assert "cupy:14.2" not in read_index(farm.documents).tags
    assert audited(farm, repair=True).repaired == ()


def test_a_repair_beside_a_publisher_ends_with_the_newest(farm: Farm, change: Change) -> None:
    moved_tag(farm, change)
    newer = farm.change("14.2.9")

    @dataclass
    class Overtaken(FusedRegistry):
        times: int = 1

        def tag(self, source: Reference, tag: str) -> Digest:
            if tag == "14.2" and self.times:
                self.times = 0
                farm.publish(newer)
            return self.inner.tag(source, tag)

    registry = Overtaken(farm.images, farm.fuse)
    mended = audit(replace(farm.target(LATER), registry=registry), repair=True)
    assert mended.left == ()
    assert farm.tags("cupy")["14.2"] == newer.entry.digest
    assert len([tag for tag in farm.tags("cupy") if tag.startswith("drift-")]) == 1
    assert audited(farm, repair=True).repaired == ()


def test_a_repair_of_files_beside_a_publisher_ends_with_the_newest(
    farm: Farm, change: Change
) -> None:
    stale_file(farm, change)

    @dataclass
    class Busy(FusedStore):
        times: int = 1

        def turn(self, name: str) -> AbstractContextManager[None]:
            del name
            return nullcontext()

        def replace(self, path: str, data: bytes, expected_etag: str | None) -> str:
            if path == "v1/badge/cupy.json" and self.times:
                self.times = 0
                publish([newer], farm.target(store=self))
            return self.inner.replace(path, data, expected_etag)

    newer = farm.change("14.9.0")
    store = Busy(farm.documents, farm.fuse)
    assert audit(farm.target(LATER, store=store), repair=True).left == ()
    assert loaded(farm.root / "store", "v1/badge/cupy.json")["message"].startswith("14.9.0")
    assert audited(farm).findings == ()


def test_an_image_that_is_gone_keeps_a_repair_from_nothing(farm: Farm, change: Change) -> None:
    lost_image(farm, change)
    (farm.root / "registry/dl/staging/cupy/manifests" / hex_of(change.entry.digest)).unlink()
    stale_file(farm, change)
    found = audited(farm, repair=True)
    assert {finding.code for finding in found.left} == {"image", "missing-tag"}
    assert "v1/index.json" in found.repaired


def test_an_image_of_ours_on_the_wrong_tag_is_no_stranger(farm: Farm, change: Change) -> None:
    newer = farm.change("14.2.9")
    farm.publish(newer)
    farm.images.tag(PLACE.repository("cupy").with_digest(change.entry.digest), "14.2")
    assert audited(farm, repair=True).repaired == (f"cupy:14.2 -> {newer.entry.digest}",)
    assert not [tag for tag in farm.tags("cupy") if tag.startswith("drift-")]


def test_an_immutable_tag_that_is_taken_during_a_repair_stays_taken(
    farm: Farm, change: Change
) -> None:
    lost_immutable_tag(farm, change)
    strange = stranger(farm)

    @dataclass
    class Taking(FusedStore):
        def replace(self, path: str, data: bytes, expected_etag: str | None) -> str:
            farm.images.tag(strange, change.entry.tags[0])
            return self.inner.replace(path, data, expected_etag)

    lost_head(farm, change)
    found = audit(farm.target(LATER, store=Taking(farm.documents, farm.fuse)), repair=True)
    assert [finding.code for finding in found.left] == ["immutable-tag"]
    assert farm.tags("cupy")[change.entry.tags[0]] == strange.digest


@pytest.mark.parametrize("never_rests", [False, True])
@pytest.mark.parametrize("look", [audit_of, store_of])
def test_a_publish_meanwhile_is_no_finding(
    farm: Farm, look: Callable[[Target], Sequence[Finding]], *, never_rests: bool
) -> None:
    farm.publish(farm.change("14.2.0"))

    @dataclass
    class Busy(FusedStore):
        publishes: int = 0

        def read(self, path: str) -> Blob | None:
            if path == "v1/head.json" and (never_rests or not self.publishes):
                self.publishes += 1
                farm.publish(farm.change(f"14.2.{self.publishes}"))
            return self.inner.read(path)

    assert look(farm.target(LATER, store=Busy(farm.documents, farm.fuse))) == ()


def test_beside_who_never_rests_an_audit_looks_a_few_times(farm: Farm, change: Change) -> None:
    lost = evidence_path(change.entry.tests[0].evidence)
    store_file(farm, lost).unlink()

    @dataclass
    class Busy(FusedStore):
        looks: int = 0

        def read(self, path: str) -> Blob | None:
            if path == lost:
                farm.publish(farm.change(f"14.2.{self.looks + 1}"))
                self.looks += 1
            return self.inner.read(path)

    store = Busy(farm.documents, farm.fuse)
    assert "evidence" in codes(audit(farm.target(LATER, store=store)))
    # Both halves of a test are read out of the same report.
    assert store.looks == 2 * 5


def test_where_the_chain_lost_what_the_head_names_nothing_is_mended(
    farm: Farm, change: Change
) -> None:
    assert change
    farm.publish(farm.change("14.3.0"))
    store_file(farm, generation_path(2)).unlink()
    farm.fuse.writes.clear()
    found = audited(farm, repair=True)
    assert {"mixed", "derived"} <= set(codes(found))
    assert found == replace(audited(farm), left=found.findings)
    assert not any(finding.repairable for finding in found.findings)
    assert farm.fuse.writes == []


def test_tags_that_nobody_published_are_said_and_left(farm: Farm, change: Change) -> None:
    assert change
    farm.images.tag(stranger(farm), "latest")
    found = audited(farm, repair=True)
    assert [(f.code, f.subject) for f in found.left] == [("unknown-tag", "cupy:latest")]
    assert found.repaired == ()
    assert "latest" in farm.tags("cupy")


@pytest.mark.parametrize("kind", ["gen", "group", "shard", "evidence"])
@pytest.mark.parametrize("damage", ["lost", "damaged"])
def test_what_is_lost_below_the_head_is_said_and_nothing_is_written(
    farm: Farm, change: Change, kind: str, damage: str
) -> None:
    assert change
    farm.publish(farm.change("14.3.0"))
    path = min((farm.root / "store/v1" / kind).glob("*.json"))
    if damage == "lost":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes().replace(b"cupy", b"copy", 1) + b" ")
    farm.fuse.writes.clear()
    found = audited(farm, repair=True)
    assert found.left
    if kind != "gen":
        assert kind in codes(found)
    assert farm.fuse.writes == []


def test_a_fork_is_found(farm: Farm, change: Change, tmp_path: Path) -> None:
    assert change
    farm.publish(farm.change("14.3.0"))
    other = Farm(tmp_path / "other")
    other.publish(other.change())
    other.publish(other.change("14.9.0"))
    path = generation_path(2)
    store_file(farm, path).write_bytes(store_file(other, path).read_bytes())
    found = check_store(farm.documents, NOW)
    assert "fork" in [finding.code for finding in found.findings]


def test_a_publish_is_found_by_its_id(farm: Farm) -> None:
    first, second = farm.publish(farm.change()), farm.publish(farm.change("14.3.0"))
    assert isinstance(first, Committed)
    assert isinstance(second, Committed)
    assert generation_of(farm.documents, first.publish) == 1
    assert generation_of(farm.documents, second.publish[:12]) == 2
    assert generation_of(farm.documents, "f" * 64) is None


def test_an_unsigned_image_of_a_signed_index_is_found_and_signed(farm: Farm) -> None:
    signing = Farm(farm.root, signer=new_signer())
    change = signing.change()
    signing.publish(change)
    tag = f"sha256-{hex_of(change.entry.digest)}.sig"
    (farm.root / "registry/dl/cupy/tags" / tag).unlink()
    assert codes(audited(signing)) == ["signature"]
    assert audited(signing, repair=True).left == ()
    assert tag in farm.tags("cupy")
    with pytest.raises(RefusedError, match="CURATOR_SIGNING_KEY"):
        farm.publish(farm.change("14.3.0"))


def test_an_expired_head_is_found_and_signed_again(farm: Farm) -> None:
    signing = Farm(farm.root, signer=new_signer())
    signing.publish(signing.change())
    later = replace(signing.target("2027-02-01T00:00:00Z"))
    assert [f.code for f in audit(later).findings] == ["freeze"]
    mended = audit(later, repair=True)
    assert (mended.left, mended.repaired) == ((), ("v1/head.json",))
    head = loaded(farm.root / "store", "v1/head.json")
    assert head["expires"] == "2027-03-03T00:00:00Z"
    assert audit(later, repair=True).repaired == ()
