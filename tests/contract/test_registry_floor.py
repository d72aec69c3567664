"""What a promotion costs, to the request; and what a client remembers, and what it does not."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from curator.errors import IntegrityError
from curator.oci import CONFIG, MANIFEST, Descriptor, Manifest, canonical_json
from curator.registry import HttpRegistry
from curator.registry._manifests import Memory
from tests import layouts
from tests.faults import FaultProxy, matching, wrong_digest
from tests.peers import peers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from curator.oci import Reference
    from curator.settings import Place
    from tests.layouts import Layout

SIGNATURE = "application/vnd.dev.cosign.simplesigning.v1+json"


@pytest.fixture
def registry(tmp_path: Path) -> HttpRegistry:
    return HttpRegistry(tmp_path / "docker", deadline_s=20)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """An index of an image and its attestation, with five blobs."""
    return layouts.attested(tmp_path / "image", [os.urandom(200_000) for _ in range(2)])


@pytest.fixture
def proxy(registry_address: str) -> Iterator[FaultProxy]:
    with FaultProxy(registry_address) as running:
        yield running


def kinds(proxy: FaultProxy) -> list[str]:
    """Return each request as its method and whether it mounts."""
    return [f"{a.split()[0]} {'mount' if 'mount=' in a else a.split('/')[-2]}" for a in proxy.asked]


def test_a_promotion_from_a_new_client_takes_thirteen_requests_and_5_kb(
    registry: HttpRegistry, place: Place, layout: Layout, proxy: FaultProxy
) -> None:
    """By digest before the commit, under a tag after it, and that is read back: nothing is spared.

    The PUT's own word for a tag would save a request, and hide a registry or a proxy that lies,
    and another writer of the same tag.
    """
    staged = place.repository("staging/x").with_tag("key")
    HttpRegistry().push(layout.path, staged)
    target = proxy.through(place.repository("x"))
    registry.copy(proxy.through(staged).with_digest(layout.digest), target)
    assert kinds(proxy) == ["GET manifests"] * 3 + ["POST mount"] * 5 + ["PUT manifests"] * 3
    registry.tag(target.with_digest(layout.digest), "1.0")
    assert kinds(proxy)[11:] == ["PUT manifests", "HEAD manifests"]
    assert sum(exchange.received + exchange.sent for exchange in proxy.exchanges) < 5_000


def test_a_promotion_after_the_push_reads_nothing_again(
    registry: HttpRegistry, place: Place, layout: Layout, proxy: FaultProxy
) -> None:
    staged = proxy.through(place.repository("staging/x").with_tag("key"))
    registry.push(layout.path, staged)
    proxy.forget()
    for name in ("x", "y"):
        target = proxy.through(place.repository(name))
        registry.copy(staged.with_digest(layout.digest), target)
        registry.tag(target.with_digest(layout.digest), "1.0")
    once = ["POST mount"] * 5 + ["PUT manifests"] * 4 + ["HEAD manifests"]
    assert kinds(proxy) == once * 2
    assert sum(exchange.received + exchange.sent for exchange in proxy.exchanges) < 2 * 5_000
    assert proxy.connections <= 3


def test_what_is_in_the_repository_already_is_not_written(
    registry: HttpRegistry, place: Place, layout: Layout, proxy: FaultProxy
) -> None:
    target = proxy.through(place.repository("x").with_tag("key"))
    registry.push(layout.path, target)
    proxy.forget()
    assert registry.copy(target.with_digest(layout.digest), target) == layout.digest
    assert proxy.asked == []


def test_a_manifest_that_was_seen_elsewhere_is_read_where_it_is_asked_for(
    registry: HttpRegistry, place: Place, layout: Layout, proxy: FaultProxy
) -> None:
    HttpRegistry().push(layout.path, place.repository("y").with_tag("key"))
    registry.push(layout.path, proxy.through(place.repository("x").with_tag("key")))
    proxy.forget()
    registry.tag(proxy.through(place.repository("y")).with_digest(layout.digest), "two")
    assert kinds(proxy) == ["GET manifests", "PUT manifests", "HEAD manifests"]
    registry.manifest(proxy.through(place.repository("y")).with_digest(layout.digest))
    assert kinds(proxy)[-1] == "GET manifests"


def test_memory_is_bounded_and_keeps_what_was_used_last(place: Place) -> None:
    memory, where = Memory(size=30), place.repository("x")
    made = [Manifest(data=b"%010d" % number, media_type=MANIFEST) for number in range(4)]
    for manifest in made[:3]:
        memory.keep(where, manifest)
    assert memory.get(where.with_digest(made[0].digest)) == made[0]
    memory.keep(where, made[3])
    kept = [memory.get(where.with_digest(manifest.digest)) for manifest in made]
    assert kept == [made[0], None, made[2], made[3]]
    memory.keep(where, Manifest(data=bytes(31), media_type=MANIFEST))
    assert [memory.get(where.with_digest(m.digest)) for m in made] == [None] * 4


# Small things of our own


def signature(payload: bytes, config: bytes = b"{}") -> Manifest:
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": Descriptor.of(config, CONFIG).to_json(),
        "layers": [Descriptor.of(payload, SIGNATURE).to_json()],
    }
    return Manifest(data=canonical_json(document), media_type=MANIFEST)


def test_put_uploads_what_is_missing_and_tags_it(
    registry: HttpRegistry, place: Place, proxy: FaultProxy
) -> None:
    repository, made = proxy.through(place.repository("x")), signature(b"payload")
    tag = "sha256-" + "0" * 64 + ".sig"
    assert registry.put(repository, made, [b"{}", b"payload"], tag) == made.digest
    assert registry.manifest(repository.with_tag(tag)) == made
    for blob in made.blobs:
        assert registry.has(repository, blob)
        assert registry.blob(repository, blob) in {b"{}", b"payload"}
    proxy.forget()
    assert registry.put(repository, made, [b"{}", b"payload"]) == made.digest
    assert kinds(proxy) == ["HEAD blobs", "HEAD blobs", "PUT manifests"]
    assert not registry.has(repository, Descriptor.of(b"never", SIGNATURE))


def test_put_reads_back_and_refuses_what_the_manifest_does_not_name(
    registry: HttpRegistry, place: Place, proxy: FaultProxy
) -> None:
    repository, made = proxy.through(place.repository("x")), signature(b"payload")
    with pytest.raises(IntegrityError, match="names no blob"):
        registry.put(repository, made, [b"{}", b"another"])
    proxy.plan = matching("manifests", wrong_digest())
    for tag in (None, "one"):
        with pytest.raises(IntegrityError, match=made.digest):
            registry.put(repository, made, [b"{}", b"payload"], tag)


# Other programs


def test_other_programs_read_the_bytes_that_we_promoted(
    registry: HttpRegistry, place: Place, layout: Layout, cache: Path
) -> None:
    staged, target = place.repository("staging/x").with_tag("key"), place.repository("x")
    registry.push(layout.path, staged)
    registry.copy(staged.with_digest(layout.digest), target)
    registry.tag(target.with_digest(layout.digest), "1.0")
    found = peers(cache)
    image: Reference = target.with_tag("1.0")
    raw = found["skopeo"].run("inspect", "--raw", "--tls-verify=false", f"docker://{image}")
    assert raw.stdout == layout.image.data
    fetched = found["oras"].run("manifest", "fetch", "--plain-http", str(image))
    assert fetched.stdout == layout.image.data
