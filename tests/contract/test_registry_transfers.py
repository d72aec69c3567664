"""Blobs on their way between two registries: what breaks goes on, and what is there stays there."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass, replace
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """An image, a registry that holds it and one that does not, and a proxy before each."""

    registry: HttpRegistry
    layout: Layout
    source: Reference
    target: Reference
    here: FaultProxy
    there: FaultProxy

    @property
    def size_bytes(self) -> int:
        """What all blobs of the image take."""
        return sum(blob.size for blob in self.layout.blobs)

    @property
    def uploads(self) -> list[Exchange]:
        """What carried bytes of blobs into the second registry."""
        return [
            e for e in self.there.exchanges if e.received and "/blobs/uploads/" in e.request.path
        ]

    @property
    def sent_bytes(self) -> int:
        """How many bytes of blobs went into the second registry, those that were lost too."""
        return sum(e.received for e in self.uploads)

    @property
    def committed(self) -> list[str]:
        """The digests that the second registry committed, one for each time."""
        paths = [e.request.path for e in self.there.exchanges if e.status == 201]
        return [path.partition("digest=")[2] for path in paths if "digest=" in path]

    @property
    def arrived(self) -> bool:
        """Whether the second registry, asked directly, holds the image and every blob of it."""
        registry, image = HttpRegistry(), self.target.with_digest(self.layout.digest)
        return registry.manifest(image) == self.layout.image and all(
            registry.has(self.target, blob) for blob in self.layout.blobs
        )

    def copy(self) -> None:
        """Copy the image from the first registry into the second."""
        self.registry.copy(self.here.through(self.source), self.there.through(self.target))

    def push(self) -> None:
        """Push the image from its layout into the second registry."""
        self.registry.push(self.layout.path, self.there.through(self.target).with_tag("one"))


@pytest.fixture
def transfer(
    tmp_path: Path, place: Place, layout: Layout, registry_address: str, other_address: str
) -> Iterator[Transfer]:
    """A transfer that has not begun."""
    staged = place.repository("staging/x").with_tag("key")
    with FaultProxy(registry_address) as here, FaultProxy(other_address) as there:
        yield Transfer(
            registry=HttpRegistry(tmp_path / "docker", deadline_s=30),
            layout=layout,
            source=staged.with_digest(HttpRegistry().push(layout.path, staged)),
            target=replace(place.repository("x"), registry=other_address),
            here=here,
            there=there,
        )


def test_what_breaks_on_its_way_out_of_a_registry_is_read_on_from_there(transfer: Transfer) -> None:
    transfer.here.plan = matching("^GET .*/blobs/", Fault(kind=Kind.TRUNCATE), times=6)
    transfer.copy()
    assert transfer.arrived
    reads = [e.request for e in transfer.here.exchanges if "/blobs/" in e.request.path]
    assert len(reads) == len(transfer.layout.blobs) + 6
    assert any("range" in request.headers for request in reads)
    # What a broken connection still held is lost: a few buffers of it.
    assert sum(e.sent for e in transfer.here.exchanges) < transfer.size_bytes + 6 * 4 * MIB
    assert transfer.sent_bytes == transfer.size_bytes
    assert len(transfer.committed) == len(transfer.layout.blobs)


def test_what_breaks_on_its_way_into_a_registry_goes_on_where_the_upload_stands(
    transfer: Transfer,
) -> None:
    # Break the second chunk, as a proxy does that holds a body until it has all of it.
    second = f"^{CHUNK}-"
    once = matching("^PATCH", Fault(kind=Kind.HOLD), times=1)
    transfer.there.plan = lambda asked: (
        once(asked) if re.match(second, asked.headers.get("content-range", "")) else None
    )
    transfer.copy()
    assert transfer.arrived
    # Half a chunk was sent twice and read twice, and no more.
    assert transfer.sent_bytes <= transfer.size_bytes + CHUNK // 2
    opened = [asked for asked in transfer.there.asked if asked.startswith("POST")]
    assert len(opened) == len(transfer.committed) == len(transfer.layout.blobs)


def test_an_upload_that_the_registry_lost_begins_again_and_finished_blobs_do_not(
    transfer: Transfer,
) -> None:
    transfer.there.plan = matching("^PATCH", Fault(kind=Kind.TEAR), times=1)
    transfer.copy()
    assert transfer.arrived
    assert sorted(transfer.committed) == sorted(blob.digest for blob in transfer.layout.blobs)
    assert transfer.sent_bytes <= transfer.size_bytes + CHUNK
    # A push that is interrupted and made again sends nothing that is there.
    transfer.there.forget()
    transfer.copy()
    assert transfer.uploads == []


def test_a_registry_that_takes_no_chunks_gets_the_blob_as_a_whole(transfer: Transfer) -> None:
    transfer.there.plan = matching("^PATCH", answer(405))
    transfer.push()
    assert transfer.arrived
    assert len([asked for asked in transfer.there.asked if asked.startswith("PATCH")]) == 1


def test_a_push_whose_answer_got_lost_is_not_made_again(transfer: Transfer) -> None:
    transfer.there.plan = matching("^PUT .*/blobs/", Fault(kind=Kind.RESET_AFTER), times=5)
    transfer.push()
    assert transfer.arrived
    assert transfer.sent_bytes == transfer.size_bytes


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
def test_nothing_wrong_is_committed(lie: Fault, transfer: Transfer) -> None:
    transfer.here.plan = matching("^GET .*/blobs/", lie)
    with pytest.raises(IntegrityError):
        transfer.copy()
    assert transfer.committed == []
    assert not any(
        asked.startswith("PUT") and "manifests" in asked for asked in transfer.there.asked
    )


def test_a_part_that_is_not_the_one_asked_for_is_refused(transfer: Transfer) -> None:
    def plan(request: Request) -> Fault | None:
        if "range" in request.headers:
            return Fault(kind=Kind.LIE, headers={"Content-Range": "bytes 0-9/10"})
        return Fault(kind=Kind.TRUNCATE) if "/blobs/" in request.path else None

    transfer.here.plan = plan
    with pytest.raises(CuratorError, match="asked for what follows"):
        transfer.copy()
