"""What follows a commit, beside others who publish, fail, die, or take our names."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from curator import farm as farms
from curator import matrix
from curator.derived import ATOM
from curator.errors import ConflictError, RefusedError, TemporaryError
from curator.index import Index, Status, generation_path
from curator.oci import canonical_json
from curator.plan import Plan, make_plan
from curator.publish import AlreadyCommitted, Change, Committed, audit, publish
from curator.smoke import Check, Outcome, SmokeReport, Subject
from tests.gpus import HOST
from tests.publishing import (
    LATER,
    NOW,
    PLACE,
    Farm,
    FusedRegistry,
    FusedStore,
    Killed,
    check,
    config,
    image,
    in_memory,
    loaded,
)
from tests.signing import new_signer
from tests.trees import tiny_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from curator.oci import Descriptor, Digest, Reference
    from curator.ports import Blob, Registry, Store
    from curator.settings import Place
    from curator.sign import Signer

MARKER = "v1/projected.json"


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    with in_memory() as directory:
        yield directory


@pytest.fixture
def farm(tmp_path: Path) -> Farm:
    return Farm(tmp_path)


@dataclass
class Beside(FusedStore):
    """A store that gives no turns; something happens once, before a document is read."""

    path: str = ""
    happens: Callable[[], object] = object
    awaited: str = ""

    def turn(self, name: str) -> AbstractContextManager[None]:
        del name
        return nullcontext()

    def read(self, path: str) -> Blob | None:
        if path == self.path and (not self.awaited or self.inner.read(self.awaited)):
            self.path = ""
            self.happens()
        return self.inner.read(path)


class Down(FusedRegistry):
    """A registry that takes images and no tags."""

    def tag(self, source: Reference, tag: str) -> Digest:
        raise TemporaryError(f"{source} as {tag}: 503")


def committed(farm: Farm, change: Change) -> None:
    """Let a publisher commit, and then get no further than the head."""
    answer = publish([change], replace(farm.target(), registry=Down(farm.images, farm.fuse)))
    assert isinstance(answer, Committed)
    assert isinstance(answer.unfinished, TemporaryError)


def take(farm: Farm, change: Change) -> None:
    """Let a stranger stand under an image's immutable tag."""
    where = PLACE.repository(change.entry.repository)
    farm.images.tag(where.with_digest(farm.images.stage(where, b"stranger")), change.entry.tags[0])


def badge(farm: Farm) -> str:
    told: str = loaded(farm.root / "store", "v1/badge/cupy.json")["message"]
    return told.partition(" ")[0]


def test_a_taken_name_keeps_nothing_else_from_being_done(farm: Farm) -> None:
    farm.publish(farm.change("14.1.0"))
    change, other = farm.change("14.2.0"), farm.change("14.3.0")
    committed(farm, change)
    take(farm, change)
    answer = farm.publish(other)
    assert isinstance(answer, Committed)
    assert isinstance(answer.unfinished, RefusedError)
    assert loaded(farm.root / "store", MARKER)["gen"] == 3
    assert (badge(farm), farm.resolve("cupy:14.3")) == ("14.3.0", other.entry.digest)
    assert [finding.code for finding in audit(farm.target()).findings] == ["immutable-tag"]
    answer = farm.publish(farm.change("14.4.0"))
    assert isinstance(answer, Committed)
    assert answer.unfinished is None


def test_a_taken_name_is_told_as_long_as_it_is_taken(farm: Farm) -> None:
    farm.publish(farm.change("14.1.0"))
    change = farm.change("14.2.0")
    committed(farm, change)
    take(farm, change)
    farm.publish(farm.change("14.3.0"))
    for _ in range(2):
        farm.fuse.writes.clear()
        again = farm.publish(change)
        assert isinstance(again, AlreadyCommitted)
        assert isinstance(again.unfinished, RefusedError)
        with pytest.raises(RefusedError, match=change.entry.tags[0]):
            farm.recover()
    assert farm.fuse.writes == []
    (farm.root / "registry/dl/cupy/tags" / change.entry.tags[0]).unlink()
    again = farm.publish(change)
    assert isinstance(again, AlreadyCommitted)
    assert (again.unfinished, farm.recover()) == (None, ())
    assert loaded(farm.root / "store", MARKER)["refused"] == {}
    check(farm)


def test_a_taken_name_that_is_out_of_use_is_not_wanted_any_more(farm: Farm) -> None:
    farm.publish(farm.change("14.1.0"))
    change = farm.change("14.2.0")
    committed(farm, change)
    take(farm, change)
    mended = audit(farm.target(LATER), repair=True)
    assert [finding.code for finding in mended.findings if not finding.repairable] == []
    assert mended.left == ()
    assert farm.recorded(change).status.state == "quarantined"
    assert loaded(farm.root / "store", MARKER)["gen"] == 3
    check(farm)


@dataclass
class Reach:
    """Where a run publishes."""

    farm: Farm
    place: Place = PLACE
    signer: Signer | None = None
    expect: Mapping[str, Digest | None] = field(default_factory=dict)

    @property
    def store(self) -> Store:
        return self.farm.store

    @property
    def registry(self) -> Registry:
        return self.farm.registry

    def now(self) -> str:
        return LATER


def run(farm: Farm) -> tuple[farms.CellResult, ...]:
    """Let a run begin that has no cells."""
    return farms.run(
        Plan(cells=(), rejected=()),
        matrix.load(tiny_tree()),
        Reach(farm),  # type: ignore[arg-type]
        jobs=1,
        fail_fast=False,
        cancelled=threading.Event(),
        observe=lambda _: None,
    )


def test_a_run_does_its_work_beside_a_taken_name(farm: Farm) -> None:
    change = farm.change()
    committed(farm, change)
    take(farm, change)
    assert run(farm) == run(farm) == ()
    assert loaded(farm.root / "store", MARKER)["gen"] == 1


def test_a_run_that_could_publish_nothing_does_not_begin(farm: Farm) -> None:
    signing = Farm(farm.root, signer=new_signer())
    signing.publish(signing.change())
    with pytest.raises(RefusedError, match="CURATOR_SIGNING_KEY"):
        run(farm)


def test_a_cell_whose_name_is_taken_fails_until_it_is_out_of_use(farm: Farm) -> None:
    tree = tiny_tree()
    known = matrix.load(tree)
    (cell, *_) = make_plan(known, tree, Index(), ids={known.cells[0].id}, installer="uv").cells
    recipe = cell.recipe.key
    staging = PLACE.repository(f"staging/{cell.cell.framework}")
    digest = farm.images.stage(staging, image(recipe), config(recipe))
    facts = {"glibc": "2.36"}
    names = ("python", "libraries", "packages", "framework")
    passed = [
        Check(name=n, outcome=Outcome.PASS, expected={}, got=facts, detail="", ms=1) for n in names
    ]
    report = SmokeReport(
        subject=Subject(image=digest, cell=cell.cell.id, recipe_key=recipe),
        probe_key=cell.probe.key,
        host=HOST,
        checks=tuple(passed),
        exit_code=0,
        stderr_tail="",
        started=NOW,
        ended=NOW,
    )

    class Taking(FusedRegistry):
        def copy(self, source: Reference, target: Reference) -> Digest:
            where = target.with_digest(farm.images.stage(target, b"stranger"))
            for tag in wanted:
                farm.images.tag(where, tag)
            return self.inner.copy(source, target)

    wanted = [f"{cell.cell.version}-cuda{cell.cell.cuda}-py{cell.cell.python}-{recipe[:12]}"]

    @dataclass
    class Taken(Reach):
        @property
        def registry(self) -> Registry:
            return Taking(farm.images, farm.fuse)

    for where in (Taken(farm), Reach(farm)):
        with pytest.raises(RefusedError, match="published, but not all tags"):
            farms.publish_recorded(cell, report, known, where)
    audit(farm.target(LATER), repair=True)
    assert farms.publish_recorded(cell, report, known, Reach(farm)).tags == tuple(wanted)


def test_an_older_publisher_leaves_no_older_files(farm: Farm) -> None:
    farm.publish(farm.change("14.1.0"))
    old, new = farm.change("14.2.0"), farm.change("14.3.0")
    store = Beside(
        farm.documents,
        farm.fuse,
        path="v1/index.json",
        happens=lambda: publish([new], farm.target(store=Beside(farm.documents, farm.fuse))),
        awaited=generation_path(2),
    )
    answer = publish([old], farm.target(store=store))
    assert isinstance(answer, Committed)
    assert badge(farm) == "14.3.0"
    assert audit(farm.target()).findings == ()
    check(farm)


def test_a_file_that_others_write_all_the_time_is_left_to_whoever_is_next(farm: Farm) -> None:
    farm.publish(farm.change("14.1.0"))

    @dataclass
    class Contended(FusedStore):
        def replace(self, path: str, data: bytes, expected_etag: str | None) -> str:
            if path == "v1/badge/cupy.json":
                raise ConflictError(f"{path}: somebody else wrote it")
            return self.inner.replace(path, data, expected_etag)

    store = Contended(farm.documents, farm.fuse)
    answer = publish([farm.change("14.2.0")], farm.target(store=store))
    assert isinstance(answer, Committed)
    assert isinstance(answer.unfinished, TemporaryError)
    farm.recover()
    assert badge(farm) == "14.2.0"


@dataclass
class Overtaken(FusedRegistry):
    """A registry of a publisher whom a newer one overtakes at a moving tag, and who then fails."""

    old: Change
    overtake: Callable[[], object]
    is_overtaken: bool = False

    def resolve(self, reference: Reference) -> Descriptor | None:
        found = self.inner.resolve(reference)
        if reference.tag == "14.2" and not self.is_overtaken:
            self.is_overtaken = True
            self.overtake()
        elif self.is_overtaken and reference.tag == self.old.entry.tags[0]:
            raise TemporaryError(f"{reference}: 503")
        return found


def fail(farm: Farm, old: Change, overtake: Callable[[], object]) -> None:
    """Let a publisher write an older tag over a newer one, and then get no further."""
    registry = Overtaken(farm.images, farm.fuse, old, overtake)
    target = farm.target(store=Beside(farm.documents, farm.fuse))
    answer = publish([old], replace(target, registry=registry))
    assert isinstance(answer, Committed)
    assert isinstance(answer.unfinished, TemporaryError)
    assert farm.resolve("cupy:14.2") == old.entry.digest


def test_an_older_tag_that_an_error_left_is_brought_up_by_whoever_is_next(farm: Farm) -> None:
    farm.publish(farm.change("14.2.0"))
    old, new = farm.change("14.2.1"), farm.change("14.2.2")
    store = Beside(farm.documents, farm.fuse)
    fail(farm, old, lambda: publish([new], farm.target(store=store)))
    assert f"cupy:14.2 -> {new.entry.digest}" in farm.recover()
    check(farm)


@dataclass
class Waiting(Beside):
    """A store that gives no turns, and keeps its publisher from its end until it may go on."""

    fails: bool = False
    is_near_its_end: threading.Event = field(default_factory=threading.Event)
    goes_on: threading.Event = field(default_factory=threading.Event)

    def replace(self, path: str, data: bytes, expected_etag: str | None) -> str:
        if path == MARKER and not self.is_near_its_end.is_set():
            self.is_near_its_end.set()
            assert self.goes_on.wait(60)
            if self.fails:
                raise TemporaryError(f"{path}: 503")
        return self.inner.replace(path, data, expected_etag)

    def begin(self, farm: Farm, change: Change) -> threading.Thread:
        """Let somebody publish as far as that."""
        other = threading.Thread(target=lambda: publish([change], farm.target(store=self)))
        other.start()
        assert self.is_near_its_end.wait(60)
        return other


def test_an_older_tag_that_an_error_left_is_brought_up_by_whoever_is_about_to_end(
    farm: Farm,
) -> None:
    farm.publish(farm.change("14.2.0"))
    old, new = farm.change("14.2.1"), farm.change("14.2.2")
    store, others = Waiting(farm.documents, farm.fuse), []
    fail(farm, old, lambda: others.append(store.begin(farm, new)))
    store.goes_on.set()
    others[0].join()
    check(farm)


@pytest.mark.parametrize("fails", [False, True])
def test_who_began_later_goes_on_from_where_the_one_that_failed_began(
    farm: Farm, *, fails: bool
) -> None:
    farm.publish(farm.change("14.2.0"))
    old, new, other = (farm.change(version) for version in ("14.2.1", "14.2.2", "14.9.0"))
    store, others = Waiting(farm.documents, farm.fuse, fails=fails), []

    def overtake() -> None:
        publish([new], farm.target(store=Beside(farm.documents, farm.fuse)))
        others.append(store.begin(farm, other))

    fail(farm, old, overtake)
    store.goes_on.set()
    others[0].join()
    farm.recover()
    check(farm)


def ahead(farm: Farm) -> None:
    marker = {**loaded(farm.root / "store", MARKER), "gen": 9}
    (farm.root / "store" / MARKER).write_bytes(canonical_json(marker))
    whole = farm.root / "store/v1/index.json"
    whole.write_bytes(whole.read_bytes().replace(b'"generation":2', b'"generation":9'))


def of_another_history(farm: Farm) -> None:
    marker = {**loaded(farm.root / "store", MARKER), "sha256": f"sha256:{'0' * 64}"}
    (farm.root / "store" / MARKER).write_bytes(canonical_json(marker))
    farm.images.tag(
        PLACE.repository("cupy").with_digest(farm.change("14.0.0").entry.digest), "14.1"
    )


@pytest.mark.parametrize("restored", [ahead, of_another_history])
def test_a_marker_of_a_state_that_this_chain_never_had_is_not_believed(
    farm: Farm, restored: Callable[[Farm], None]
) -> None:
    for version in ("14.0.0", "14.1.0"):
        farm.publish(farm.change(version))
    restored(farm)
    answer = farm.publish(farm.change("14.2.0"))
    assert isinstance(answer, Committed)
    assert (loaded(farm.root / "store", MARKER)["gen"], answer.unfinished) == (3, None)
    assert audit(farm.target()).findings == ()
    check(farm)


def test_a_change_stands_in_the_feed_once(farm: Farm) -> None:
    farm.publish(farm.change("14.0.0"))
    first, second = farm.change("14.1.0"), farm.change("14.2.0")

    def commit_and_die() -> None:
        @dataclass
        class Dying(FusedStore):
            def replace(self, path: str, data: bytes, expected_etag: str | None) -> str:
                if path == "v1/head.json":
                    raise Killed
                return self.inner.replace(path, data, expected_etag)

        with pytest.raises(Killed):
            publish([second], farm.target(store=Dying(farm.documents, farm.fuse)))

    store = Beside(
        farm.documents,
        farm.fuse,
        path=MARKER,
        happens=commit_and_die,
        awaited=generation_path(2),
    )
    publish([first], farm.target(store=store))
    root = ET.fromstring((farm.root / "store/v1/feed.xml").read_bytes())  # noqa: S314 - ours
    titles = [item.text for item in root.iter(f"{{{ATOM}}}title")][1:]
    assert titles == [f"{c.entry.id}: active" for c in (second, first, farm.change("14.0.0"))]


def test_a_file_that_a_killed_publisher_wrote_is_held_against_what_stands_there(farm: Farm) -> None:
    farm.publish(farm.change("14.2.0"))
    withdrawn = farm.change("14.3.0")

    @dataclass
    class Dying(FusedStore):
        def replace(self, path: str, data: bytes, expected_etag: str | None) -> str:
            if path == MARKER:
                raise Killed
            return self.inner.replace(path, data, expected_etag)

    with pytest.raises(Killed):
        publish([withdrawn], farm.target(store=Dying(farm.documents, farm.fuse)))
    assert badge(farm) == "14.3.0"
    yanked = withdrawn.entry.model_copy(update={"status": Status(state="yanked")})
    farm.publish(Change(entry=yanked))
    assert badge(farm) == "14.2.0"
    assert {finding.code for finding in audit(farm.target()).findings} == {"unknown-tag"}
