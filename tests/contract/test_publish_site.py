"""The page beside the documents: written by difference, never an older one over a newer."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from curator.cli._ports import now
from curator.publish import audit, mend_site, read_catalogue, write_site
from curator.store import DirectoryStore
from tests.publishing import LATER, PLACE, Farm, FusedStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from curator.ports import Blob, Store


@pytest.fixture
def farm(tmp_path: Path) -> Farm:
    return Farm(tmp_path / "farm")


@pytest.fixture
def store(farm: Farm) -> DirectoryStore:
    return DirectoryStore(farm.root / "store")


def test_before_the_first_publish_there_is_no_page(store: DirectoryStore) -> None:
    assert read_catalogue(store) is None
    assert write_site(store) == ()


def test_a_page_is_written_once_and_then_by_difference(farm: Farm, store: DirectoryStore) -> None:
    farm.publish(farm.change(), now=now())
    first = write_site(store)
    assert {"index.html", "page.css", "images.md"} < set(first)
    assert write_site(store) == ()
    root = farm.root / "store"
    before = {path: (root / path).read_bytes() for path in first}
    farm.publish(farm.change("14.1.1"), now=now())
    second = set(write_site(store))
    fresh = {path for path in second if path not in before}
    assert len([path for path in fresh if path.startswith("image/")]) == 1
    assert not [path for path in second - fresh if path.startswith(("image/", "badge/", "page"))]
    assert (root / "index.html").read_bytes() != before["index.html"]


def test_what_a_killed_writer_left_is_written_again(farm: Farm, store: DirectoryStore) -> None:
    farm.publish(farm.change(), now=now())
    whole = set(write_site(store))
    root = farm.root / "store"
    (root / "v1/page.json").unlink()
    (root / "index.html").write_bytes(b"half")
    (root / "page.css").unlink()
    assert set(write_site(store)) == {"index.html", "page.css"} < whole
    assert (root / "index.html").read_bytes() != b"half"
    (root / "v1/page.json").write_bytes(b"{")
    assert write_site(store) == ()
    assert json.loads((root / "v1/page.json").read_bytes())["generation"] == 1


def test_where_nothing_was_published_the_index_is_not_read(
    farm: Farm, store: DirectoryStore
) -> None:
    farm.publish(farm.change(), now=now())
    write_site(store)

    @dataclass
    class Counted(FusedStore):
        reads: int = 0

        def read(self, path: str) -> Blob | None:
            self.reads += 1
            return self.inner.read(path)

    counted = Counted(store, farm.fuse)
    assert write_site(counted) == ()
    assert counted.reads < 6


def test_a_page_that_cannot_be_made_is_said_and_fails_nothing(
    farm: Farm, store: DirectoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    farm.publish(farm.change(), now=now())
    (path,) = (farm.root / "store/v1/shard").iterdir()
    path.unlink()
    assert write_site(store) == ()
    assert "the page was not written: v1/shard/" in caplog.text


@dataclass
class Overtaken(FusedStore):
    """A store in which something happens once, when a file is looked at."""

    path: str = ""
    happens: Callable[[], object] = object

    def read(self, path: str) -> Blob | None:
        found = self.inner.read(path)
        if path == self.path:
            self.path = ""
            self.happens()
        return found


def page_of(store: Store, path: str = "index.html") -> bytes:
    blob = store.read(path)
    assert blob
    return blob.data


@pytest.mark.parametrize("path", ["v1/page.json", "index.html", "images.md"])
@pytest.mark.parametrize("is_published", [False, True])
def test_an_older_writer_ends_with_the_newer_page(
    farm: Farm, store: DirectoryStore, path: str, *, is_published: bool
) -> None:
    farm.publish(farm.change("14.1.0"), now=now())
    write_site(store)
    farm.publish(farm.change("14.2.0"), now=now())

    def overtake() -> None:
        farm.publish(farm.change("14.3.0"), now=now())
        if is_published:
            write_site(store)

    write_site(Overtaken(store, farm.fuse, path=path, happens=overtake))
    assert b"14.3.0" in page_of(store)
    assert json.loads(page_of(store, "v1/page.json"))["generation"] == 3
    assert mend_site(store) == ()


def test_beside_publishers_who_never_rest_a_page_is_held_against_what_stands_there(
    farm: Farm, store: DirectoryStore
) -> None:
    numbers = itertools.count()
    busy = Overtaken(store, farm.fuse, path="index.html")

    def overtake() -> None:
        farm.publish(farm.change(f"14.{next(numbers)}.0"), now=now())
        busy.path = "index.html"

    busy.happens = overtake
    overtake()
    write_site(store)
    overtake()
    write_site(busy)
    assert write_site(store)
    assert mend_site(store) == ()


def test_a_page_that_a_store_was_set_back_beneath_is_written(
    farm: Farm, store: DirectoryStore
) -> None:
    farm.publish(farm.change(), now=now())
    write_site(store)
    path = farm.root / "store/v1/page.json"
    lost = {"generation": 99, "sha256": "sha256:" + "0" * 64}
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **lost}))
    (farm.root / "store/index.html").write_bytes(b"of a state that is lost")
    assert write_site(store) == ("index.html",)
    assert json.loads(path.read_bytes())["generation"] == 1


def test_what_was_damaged_is_found_and_mended(farm: Farm, store: DirectoryStore) -> None:
    farm.publish(farm.change(), now=now())
    write_site(store)
    (farm.root / "store/index.html").unlink()
    (farm.root / "store/page.css").write_text("broken")
    assert write_site(store) == ()
    target = farm.target(LATER)
    found = audit(target)
    assert [(finding.code, finding.repairable) for finding in found.findings] == [("page", True)]
    assert "index.html, page.css, 2 files" in found.findings[0].message
    mended = audit(target, repair=True)
    assert (mended.repaired, mended.left) == (("index.html", "page.css"), ())
    (farm.root / "store/page.css").write_text("broken")
    command = [sys.executable, "-c", "from curator.cli import main; main()", "page", "--publish"]
    place = ["--index", str(farm.root / "store")]
    done = subprocess.run([*command, *place], capture_output=True, text=True, check=True)
    assert done.stdout == "1 files published\n"
    assert audit(target).findings == ()


@pytest.mark.parametrize("is_whole", [True, False])
def test_a_page_that_lost_its_note_is_found_and_mended(
    farm: Farm, store: DirectoryStore, *, is_whole: bool
) -> None:
    farm.publish(farm.change(), now=now())
    write_site(store)
    root, target = farm.root / "store", farm.target(LATER)
    page = (root / "index.html").read_bytes()
    (root / "v1/page.json").unlink()
    if not is_whole:
        (root / "index.html").write_bytes(b"defaced")
    assert [(found.code, found.repairable) for found in audit(target).findings] == [("page", True)]
    assert audit(target, repair=True).left == ()
    assert (root / "index.html").read_bytes() == page
    assert audit(target).findings == ()


def test_a_page_of_another_chain_is_found(farm: Farm, store: DirectoryStore) -> None:
    farm.publish(farm.change(), now=now())
    write_site(store)
    path = farm.root / "store/v1/page.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "sha256": "sha256:" + "0" * 64}))
    (farm.root / "store/index.html").write_bytes(b"of a state that is lost")
    assert [found.code for found in audit(farm.target(LATER)).findings] == ["page"]
    assert audit(farm.target(LATER), repair=True).left == ()


def test_a_recovery_brings_the_page_up(farm: Farm, store: DirectoryStore) -> None:
    farm.publish(farm.change(), now=now())
    assert "index.html" in farm.recover()
    assert farm.recover() == ()
    farm.publish(farm.change("14.3.0"), now=now())
    assert audit(farm.target()).findings == ()
    assert "index.html" in farm.recover()
    assert b"14.3.0" in page_of(store)
    assert audit(farm.target()).findings == ()


def test_a_repair_that_changes_the_index_changes_the_page(
    farm: Farm, store: DirectoryStore
) -> None:
    change = farm.change()
    farm.publish(change, now=now())
    write_site(store)
    where = PLACE.repository("cupy")
    stranger = where.with_digest(farm.images.stage(where, b"stranger"))
    farm.images.tag(stranger, change.entry.tags[0])
    audit(farm.target(LATER), repair=True)
    assert b"quarantined" in page_of(store, f"image/{change.entry.id}.html")
    assert mend_site(store) == ()
