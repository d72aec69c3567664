"""Blobs on their way between two registries: what breaks goes on, and what is there stays there."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from curator import provision
from curator.errors import CuratorError, IntegrityError
from curator.provision import _processes
from curator.registry import HttpRegistry
from tests import layouts
from tests.faults import Exchange, Fault, FaultProxy, Kind, Request, answer, matching

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from curator.oci import Reference
    from curator.settings import Place
    from tests.layouts import Layout

MIB = 1024 * 1024
CHUNK = 16 * MIB


@pytest.fixture(scope="module")
def other_address(
    registry_address: str, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A second registry."""
    assert registry_address
    root = tmp_path_factory.mktemp("other")
    tools = cache / "engine" / "tools"
    yield provision.start_registry(root, tools, port=_processes.free_port())
    provision.stop_registry(root)
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """An image with one layer of several chunks, and small blobs."""
    path = tmp_path_factory.mktemp("layout") / "image"
    return layouts.attested(path, (os.urandom(40 * MIB), b"small"))


@pytest.fixture
def registry(tmp_path: Path) -> HttpRegistry:
    return HttpRegistry(tmp_path / "docker", deadline_s=30)


@pytest.fixture
def staged(place: Place, layout: Layout) -> Reference:
    image = place.repository("staging/x").with_tag("key")
    return image.with_digest(HttpRegistry().push(layout.path, image))


@pytest.fixture
def target(place: Place, other_address: str) -> Reference:
    return replace(place.repository("x"), registry=other_address)


@pytest.fixture
def here(registry_address: str) -> Iterator[FaultProxy]:
    with FaultProxy(registry_address) as running:
        yield running


@pytest.fixture
def there(other_address: str) -> Iterator[FaultProxy]:
    with FaultProxy(other_address) as running:
        yield running


def big(layout: Layout) -> int:
    return max(blob.size for blob in layout.blobs)


def assert_whole(target: Reference, layout: Layout) -> None:
    registry = HttpRegistry()
    assert registry.manifest(target.with_digest(layout.digest)) == layout.image
    assert all(registry.has(target, blob) for blob in layout.blobs)


def uploads(proxy: FaultProxy) -> list[Exchange]:
    """Return what carried bytes of blobs into a registry."""
    return [e for e in proxy.exchanges if e.received and "/blobs/uploads/" in e.request.path]


def committed(proxy: FaultProxy) -> list[str]:
    """Return the digests that were committed, one for each time."""
    paths = [
        e.request.path for e in proxy.exchanges if e.status == 201 and "digest=" in e.request.path
    ]
    return [path.partition("digest=")[2] for path in paths]


def test_what_breaks_on_its_way_out_of_a_registry_is_read_on_from_there(
    registry: HttpRegistry,
    staged: Reference,
    target: Reference,
    layout: Layout,
    here: FaultProxy,
    there: FaultProxy,
) -> None:
    here.plan = matching("^GET .*/blobs/", Fault(kind=Kind.TRUNCATE), times=6)
    registry.copy(here.through(staged), there.through(target))
    assert_whole(target, layout)
    size = sum(blob.size for blob in layout.blobs)
    reads = [e.request for e in here.exchanges if "/blobs/" in e.request.path]
    assert len(reads) == len(layout.blobs) + 6
    assert any("range" in request.headers for request in reads)
    # What a broken connection still held is lost: a few buffers of it.
    assert sum(e.sent for e in here.exchanges) < size + 6 * 4 * MIB
    assert sum(e.received for e in uploads(there)) == size
    assert len(committed(there)) == len(layout.blobs)


def test_what_breaks_on_its_way_into_a_registry_goes_on_where_the_upload_stands(
    registry: HttpRegistry,
    staged: Reference,
    target: Reference,
    layout: Layout,
    here: FaultProxy,
    there: FaultProxy,
) -> None:
    # Break the second chunk, as a proxy does that holds a body until it has all of it.
    second = f"^{CHUNK}-"
    once = matching("^PATCH", Fault(kind=Kind.HOLD), times=1)
    there.plan = lambda asked: (
        once(asked) if re.match(second, asked.headers.get("content-range", "")) else None
    )
    registry.copy(here.through(staged), there.through(target))
    assert_whole(target, layout)
    # Half a chunk was sent twice and read twice, and no more.
    size = sum(blob.size for blob in layout.blobs)
    assert sum(e.received for e in uploads(there)) <= size + CHUNK // 2
    opened = [asked for asked in there.asked if asked.startswith("POST")]
    assert len(opened) == len(committed(there)) == len(layout.blobs)


def test_an_upload_that_the_registry_lost_begins_again_and_finished_blobs_do_not(
    registry: HttpRegistry,
    staged: Reference,
    target: Reference,
    layout: Layout,
    here: FaultProxy,
    there: FaultProxy,
) -> None:
    there.plan = matching("^PATCH", Fault(kind=Kind.TEAR), times=1)
    registry.copy(here.through(staged), there.through(target))
    assert_whole(target, layout)
    assert sorted(committed(there)) == sorted(blob.digest for blob in layout.blobs)
    size = sum(blob.size for blob in layout.blobs)
    assert sum(e.received for e in uploads(there)) <= size + CHUNK
    # A push that is interrupted and made again sends nothing that is there.
    there.forget()
    registry.copy(here.through(staged), there.through(target))
    assert uploads(there) == []


def test_a_registry_that_takes_no_chunks_gets_the_blob_as_a_whole(
    registry: HttpRegistry, target: Reference, layout: Layout, there: FaultProxy
) -> None:
    there.plan = matching("^PATCH", answer(405))
    registry.push(layout.path, there.through(target).with_tag("one"))
    assert_whole(target, layout)
    assert len([asked for asked in there.asked if asked.startswith("PATCH")]) == 1


def test_a_push_whose_answer_got_lost_is_not_made_again(
    registry: HttpRegistry, target: Reference, layout: Layout, there: FaultProxy
) -> None:
    there.plan = matching("^PUT .*/blobs/", Fault(kind=Kind.RESET_AFTER), times=5)
    registry.push(layout.path, there.through(target).with_tag("one"))
    assert_whole(target, layout)
    assert sum(e.received for e in uploads(there)) == sum(blob.size for blob in layout.blobs)


@pytest.mark.parametrize(
    "lie",
    [
        Fault(kind=Kind.CORRUPT),
        Fault(kind=Kind.LIE, headers={"Content-Length": "7"}),
        answer(200, b"other bytes"),
        answer(206, b"other bytes", headers={"Content-Range": "bytes 5-15/16"}),
    ],
    ids=["changed", "cut", "other", "part"],
)
def test_nothing_wrong_is_committed(
    lie: Fault,
    registry: HttpRegistry,
    staged: Reference,
    target: Reference,
    here: FaultProxy,
    there: FaultProxy,
) -> None:
    here.plan = matching("^GET .*/blobs/", lie)
    with pytest.raises(IntegrityError):
        registry.copy(here.through(staged), there.through(target))
    assert committed(there) == []
    assert not any(asked.startswith("PUT") and "manifests" in asked for asked in there.asked)


def test_a_part_that_is_not_the_one_asked_for_is_refused(
    registry: HttpRegistry,
    staged: Reference,
    target: Reference,
    here: FaultProxy,
) -> None:
    def plan(request: Request) -> Fault | None:
        if "range" in request.headers:
            return Fault(kind=Kind.LIE, headers={"Content-Range": "bytes 0-9/10"})
        return Fault(kind=Kind.TRUNCATE) if "/blobs/" in request.path else None

    here.plan = plan
    with pytest.raises(CuratorError, match="asked for what follows"):
        registry.copy(here.through(staged), target)
