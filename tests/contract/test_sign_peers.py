"""Signatures as others see them: cosign accepts ours with the key, and refuses another."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from curator.index import parse_head
from curator.policy import admitted
from curator.publish import Change, Committed, Target, audit, publish
from curator.registry import HttpRegistry
from curator.sign import encoded, public_key, signature_tag, verify_image
from curator.store import DirectoryStore
from tests import layouts
from tests.peers import peers
from tests.publishing import NOW, reported
from tests.signing import new_signer

if TYPE_CHECKING:
    from pathlib import Path

    from curator.oci import Reference
    from curator.settings import Place
    from tests.peers import Peer

VERIFY = ("verify", "--private-infrastructure", "--allow-insecure-registry")


@dataclass(frozen=True)
class Published:
    """A signed image in the real registry, and the store that says so."""

    image: Reference
    target: Target
    key: Path
    other: Path


@pytest.fixture(scope="session")
def cosign(cache: Path) -> Peer:
    return peers(cache)["cosign"]


@pytest.fixture
def published(tmp_path: Path, place: Place) -> Published:
    signer, other = new_signer(), new_signer()
    registry = HttpRegistry(tmp_path / "docker")
    store = DirectoryStore(tmp_path / "store")
    layout = layouts.attested(tmp_path / "layout", (b"one", b"two"))
    entry, report = reported("14.2.0")
    staging = place.repository("staging/cupy").with_tag(entry.recipe)
    digest = registry.push(layout.path, staging)
    entry = entry.model_copy(update={"digest": digest, "platform_digest": digest})
    change = Change(entry=admitted(entry), source=staging.with_digest(digest), evidence=(report,))
    target = Target(store=store, registry=registry, place=place, now=NOW, signer=signer)
    answer = publish([change], target)
    assert isinstance(answer, Committed)
    assert answer.unfinished is None
    paths = []
    for name, who in (("key", signer), ("other", other)):
        path = tmp_path / f"{name}.pub"
        path.write_text(who.public[0].public)
        paths.append(path)
    image = place.repository("candidate/cupy").with_digest(digest)
    return Published(image=image, target=target, key=paths[0], other=paths[1])


def test_cosign_verifies_an_image_with_our_key_and_with_no_other(
    cosign: Peer, published: Published
) -> None:
    image = str(published.image)
    good = cosign.run(*VERIFY, "--key", str(published.key), image)
    assert published.image.digest
    assert published.image.digest.encode() in good.stdout
    bad = cosign.run(*VERIFY, "--key", str(published.other), image, check=False)
    assert bad.returncode
    assert b"signature" in bad.stderr


def test_cosign_verifies_the_head_with_our_key_and_with_no_other(
    cosign: Peer, published: Published, tmp_path: Path
) -> None:
    blob = published.target.store.read("v1/head.json")
    assert blob
    head = parse_head(blob.data)
    (tmp_path / "head").write_bytes(encoded(head.statement))
    (tmp_path / "head.sig").write_text(head.signatures[0].sig)
    assert base64.b64decode(head.signatures[0].sig)
    words = (
        "verify-blob",
        "--insecure-ignore-tlog=true",
        "--signature",
        str(tmp_path / "head.sig"),
    )
    cosign.run(*words, "--key", str(published.key), str(tmp_path / "head"))
    bad = cosign.run(*words, "--key", str(published.other), str(tmp_path / "head"), check=False)
    assert bad.returncode
    (tmp_path / "head").write_bytes(encoded(head.model_copy(update={"gen": 9}).statement))
    bad = cosign.run(*words, "--key", str(published.key), str(tmp_path / "head"), check=False)
    assert bad.returncode


def test_a_signature_of_cosign_counts_for_us_and_ours_stays(
    cosign: Peer, published: Published, tmp_path: Path
) -> None:
    environment = {"COSIGN_PASSWORD": ""}
    cosign.run(
        "generate-key-pair",
        "--output-key-prefix",
        str(tmp_path / "theirs"),
        environment=environment,
    )
    cosign.run(
        "sign", "--key", str(tmp_path / "theirs.key"), "--tlog-upload=false", "--yes",
        "--allow-insecure-registry", str(published.image), environment=environment,
    )  # fmt: skip
    theirs = public_key((tmp_path / "theirs.pub").read_bytes())
    ours = public_key(published.key.read_bytes())
    registry, image = published.target.registry, published.image
    assert image.digest
    signatures = registry.manifest(image.with_tag(signature_tag(image.digest)))
    verify_image(signatures, image.digest, [theirs, ours], 2, lambda d: registry.blob(image, d))
    assert audit(published.target).findings == ()
