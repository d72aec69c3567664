"""The page beside the documents: written by difference, never an older one over a newer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from curator.cli._ports import now
from curator.publish import read_catalogue, write_site
from curator.store import DirectoryStore
from tests.publishing import Farm

if TYPE_CHECKING:
    from pathlib import Path


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
    assert set(write_site(store)) == whole
    assert (root / "index.html").read_bytes() != b"half"
    (root / "v1/page.json").write_bytes(b"{")
    assert set(write_site(store)) == whole
    assert json.loads((root / "v1/page.json").read_bytes())["generation"] == 1


def test_a_page_of_a_later_state_stays(farm: Farm, store: DirectoryStore) -> None:
    farm.publish(farm.change(), now=now())
    write_site(store)
    path = farm.root / "store/v1/page.json"
    later = {**json.loads(path.read_bytes()), "generation": 99}
    path.write_text(json.dumps(later))
    (farm.root / "store/index.html").write_bytes(b"later")
    assert write_site(store) == ()
    assert (farm.root / "store/index.html").read_bytes() == b"later"
