"""Manifests of odd kinds: copied right, or refused with a word of ours; never half."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curator.errors import CuratorError, IntegrityError, RefusedError
from curator.oci import (
    CONFIG,
    DOCKER_LIST,
    INDEX,
    LAYER_GZIP,
    MANIFEST,
    Descriptor,
    Manifest,
    Reference,
    sha256,
)
from curator.registry import HttpRegistry
from tests import layouts
from tests.faults import Fault, FaultProxy, answer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from curator.settings import Place

LAYER = Descriptor.of(b"layer", LAYER_GZIP).to_json()
IMAGE: dict[str, Any] = {
    "schemaVersion": 2,
    "mediaType": MANIFEST,
    "config": Descriptor.of(b"{}", CONFIG).to_json(),
    "layers": [LAYER, Descriptor.of(b"other", LAYER_GZIP).to_json()],
}
LIST: dict[str, Any] = {
    "schemaVersion": 2,
    "mediaType": INDEX,
    "manifests": [Descriptor.of(json.dumps(IMAGE).encode(), MANIFEST).to_json()],
}


@pytest.fixture
def registry(tmp_path: Path) -> HttpRegistry:
    return HttpRegistry(tmp_path / "docker", deadline_s=5)


@pytest.fixture(scope="module")
def liar() -> Iterator[FaultProxy]:
    with FaultProxy() as running:
        yield running


def serving(data: bytes, media_type: str) -> Fault:
    return answer(200, data, headers={"Content-Type": media_type})


def nested(registry: HttpRegistry, place: Place, layout: layouts.Layout, depth: int) -> Reference:
    """Put an index around an image, and one around that, so often."""
    staged = place.repository("staging")
    registry.push(layout.path, staged.with_tag("key"))
    top = layout.image
    for _ in range(depth):
        document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [top.descriptor.to_json()]}
        top = Manifest(data=json.dumps(document).encode(), media_type=INDEX)
        registry.put(staged, top)
    return staged.with_digest(top.digest)


def test_an_index_in_an_index_is_copied_whole(
    registry: HttpRegistry, place: Place, tmp_path: Path
) -> None:
    layout = layouts.attested(tmp_path / "image", (b"layer",))
    source, target = nested(registry, place, layout, 2), place.repository("x")
    assert registry.copy(source, target) == source.digest
    for manifest in layout.manifests:
        assert registry.manifest(target.with_digest(manifest.digest)) == manifest
    assert all(registry.has(target, blob) for blob in layout.blobs)
    assert registry.tag(target.with_digest(sha256(layout.image.data)), "inner") == layout.digest


def test_indexes_without_an_end_are_refused(
    registry: HttpRegistry, place: Place, tmp_path: Path
) -> None:
    source = nested(registry, place, layouts.attested(tmp_path / "image", (b"layer",)), 5)
    with pytest.raises(IntegrityError, match="nests"):
        registry.copy(source, place.repository("x"))
    assert registry.resolve(place.repository("x").with_digest(sha256(b""))) is None


TWICE = json.dumps(IMAGE).replace('"layers"', '"layers": [], "layers"')
ODD: dict[str, tuple[bytes, str]] = {
    "key-twice": (TWICE.encode(), MANIFEST),
    "inner-key-twice": (
        json.dumps(IMAGE).replace('"size"', '"size": 1, "size"').encode(),
        MANIFEST,
    ),
    "index-with-layers": (json.dumps(LIST | {"layers": [LAYER]}).encode(), INDEX),
    "list-with-config": (
        json.dumps({**LIST, "mediaType": DOCKER_LIST, "config": LAYER}).encode(),
        DOCKER_LIST,
    ),
    "image-with-manifests": (json.dumps(IMAGE | LIST | {"mediaType": MANIFEST}).encode(), MANIFEST),
    "another-type-inside": (json.dumps(IMAGE).encode(), INDEX),
    "schema-1": (b"{}", "application/vnd.docker.distribution.manifest.v1+prettyjws"),
    "lists-a-layer": (json.dumps(LIST | {"manifests": [LAYER]}).encode(), INDEX),
    "huge-child": (
        json.dumps(LIST | {"manifests": [LIST["manifests"][0] | {"size": 2**40}]}).encode(),
        INDEX,
    ),
    "too-big": (json.dumps(IMAGE).encode() + b" " * 4 * 1024 * 1024, MANIFEST),
    "not-a-number": (json.dumps(IMAGE | {"schemaVersion": float("nan")}).encode()[:-1], MANIFEST),
}


@pytest.mark.parametrize("name", ODD)
def test_odd(name: str, registry: HttpRegistry, liar: FaultProxy) -> None:
    data, media_type = ODD[name]
    liar.plan = lambda asked: serving(data, media_type) if asked.method == "GET" else answer(404)
    source = Reference(registry=liar.address, repository="x", tag="one")
    liar.forget()
    with pytest.raises(IntegrityError):
        registry.copy(source, replace(source, repository="y", tag=None))
    assert {asked.split()[0] for asked in liar.asked} == {"GET"}


def test_a_child_that_is_not_as_described_is_refused(
    registry: HttpRegistry, liar: FaultProxy
) -> None:
    image = json.dumps(IMAGE).encode()
    source = Reference(registry=liar.address, repository="x", tag="one")
    for change in ({"size": len(image) - 1}, {"mediaType": INDEX}):
        child = LIST["manifests"][0] | change
        index = json.dumps(LIST | {"manifests": [child]}).encode()
        liar.plan = lambda asked, index=index: (  # type: ignore[misc]
            serving(index, INDEX) if asked.path.endswith("one") else serving(image, MANIFEST)
        )
        with pytest.raises(IntegrityError, match="lists"):
            registry.copy(source, replace(source, repository="y", tag=None))


JUNK = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
VALUES = JUNK | st.lists(JUNK, max_size=3) | st.dictionaries(st.text(max_size=6), JUNK, max_size=3)


def paths(value: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    pairs = value.items() if isinstance(value, dict) else ()
    for key, item in list(enumerate(value)) if isinstance(value, list) else pairs:
        yield from paths(item, (*path, key))


def changed(value: Any, path: tuple[Any, ...], new: object) -> Any:
    """Return a copy with another value at a path; a key is dropped for None now and then."""
    if not path:
        return new
    copy = list(value) if isinstance(value, list) else dict(value)
    copy[path[0]] = changed(copy[path[0]], path[1:], new)
    return copy


@st.composite
def mutated(draw: st.DrawFn) -> tuple[bytes, str]:
    """Draw a manifest with a few values replaced, or a few bytes of it."""
    document, media_type = draw(st.sampled_from([(IMAGE, MANIFEST), (LIST, INDEX)]))
    for _ in range(draw(st.integers(0, 3))):
        where = draw(st.sampled_from(list(paths(document))))
        document = changed(document, where, draw(VALUES))
    data = bytearray(json.dumps(document).encode())
    for _ in range(draw(st.integers(0, 3))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data), media_type


@settings(
    max_examples=500,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(found=mutated())
def test_mutated_manifests_end_in_an_error_of_ours(
    found: tuple[bytes, str], registry: HttpRegistry, liar: FaultProxy
) -> None:
    data, media_type = found
    liar.plan = lambda asked: (
        serving(data, media_type) if asked.path.startswith("/v2/x/manifests/") else answer(404)
    )
    source = Reference(registry=liar.address, repository="x", tag="one")
    target = replace(source, repository="y", tag=None)
    try:
        registry.copy(source, target)
    except (IntegrityError, RefusedError):
        return
    except CuratorError as error:
        pytest.fail(f"no error about an image: {error!r}")
    pytest.fail("copied to where nothing is taken")
