"""Manifests that say nothing, or something else: told as such."""

from __future__ import annotations

import json

import pytest

from curator.errors import IntegrityError
from curator.oci import INDEX, MANIFEST, Descriptor, Manifest, Platform, sha256

AMD64 = Platform.parse("linux/amd64")
CHILD = {**Descriptor.of(b"child", MANIFEST).to_json(), "platform": {"os": "linux"}}


def index(document: object) -> Manifest:
    return Manifest(data=json.dumps(document).encode(), media_type=INDEX)


def test_an_index_gives_the_image_of_a_platform() -> None:
    named = {**CHILD, "platform": {"os": "linux", "architecture": "amd64"}}
    assert index({"manifests": [CHILD, named]}).platform_digest(AMD64) == sha256(b"child")
    assert Manifest(data=b"{}", media_type=MANIFEST).platform_digest(AMD64) == sha256(b"{}")


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"manifests": None},
        {"manifests": ["a"]},
        {"manifests": [CHILD]},
        {"manifests": [{**CHILD, "platform": "linux"}]},
        {"manifests": [{**CHILD, "platform": ["linux", "amd64"]}]},
        {"manifests": [{"platform": {"os": "linux", "architecture": "amd64"}}]},
        {"manifests": [{"digest": 1, "platform": {"os": "linux", "architecture": "amd64"}}]},
    ],
)
def test_a_misshapen_index_holds_no_image(document: object) -> None:
    with pytest.raises(IntegrityError):
        index(document).platform_digest(AMD64)
