"""Layouts that are not what they say: refused before anything is tagged."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from curator.errors import IntegrityError
from curator.oci import sha256
from curator.registry import HttpRegistry
from tests import layouts

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from curator.settings import Place
    from tests.layouts import Layout


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def relist(layout: Layout, **changes: object) -> None:
    path = layout.path / "index.json"
    index: dict[str, Any] = json.loads(path.read_text())
    index["manifests"][0] |= changes
    path.write_text(json.dumps(index))


BREAKAGES: dict[str, Callable[[Layout], object]] = {
    "flip-layer": lambda x: flip(x.blob_file(x.manifests[0].blobs[1].digest)),
    "flip-config": lambda x: flip(x.blob_file(x.manifests[0].blobs[0].digest)),
    "flip-child": lambda x: flip(x.blob_file(x.manifests[0].digest)),
    "flip-image": lambda x: flip(x.blob_file(x.digest)),
    "no-layer": lambda x: x.blob_file(x.manifests[0].blobs[1].digest).unlink(),
    "no-child": lambda x: x.blob_file(x.manifests[1].digest).unlink(),
    "no-image": lambda x: x.blob_file(x.digest).unlink(),
    "short-layer": lambda x: os.truncate(x.blob_file(x.manifests[0].blobs[1].digest), 5),
    "no-index": lambda x: (x.path / "index.json").unlink(),
    "bad-index": lambda x: (x.path / "index.json").write_text("{"),
    "index-of-text": lambda x: (x.path / "index.json").write_text('{"manifests": "x"}'),
    "index-list": lambda x: (x.path / "index.json").write_text("[]"),
    "index-latin": lambda x: (x.path / "index.json").write_bytes(b'{"\xff": 1}'),
    "no-images": lambda x: (x.path / "index.json").write_text('{"manifests": []}'),
    "two-images": lambda x: (x.path / "index.json").write_text('{"manifests": [{}, {}]}'),
    "path-digest": lambda x: relist(x, digest="sha256:../../../../etc/passwd"),
    "path-hex": lambda x: relist(x, digest="sha256:" + "../" * 21 + "a"),
    "sha512": lambda x: relist(x, digest="sha512:" + "0" * 128),
    "text-size": lambda x: relist(x, size="12"),
    "wrong-size": lambda x: relist(x, size=12),
    "wrong-digest": lambda x: relist(x, digest=sha256(b"")),
    "negative-size": lambda x: relist(x, size=-1),
}


@pytest.mark.parametrize("name", BREAKAGES)
def test_broken(name: str, place: Place, tmp_path: Path) -> None:
    layout = layouts.attested(tmp_path / "layout", (b"first layer", b"second layer"))
    registry = HttpRegistry(tmp_path / "docker", deadline_s=20)
    target = place.repository("x").with_tag("one")
    BREAKAGES[name](layout)
    with pytest.raises(IntegrityError) as caught:
        registry.push(layout.path, target)
    assert str(layout.path) in str(caught.value) or "descriptor" in str(caught.value)
    assert registry.resolve(target) is None
