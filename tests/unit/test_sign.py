"""Signatures over heads and images: who signed, and how many have to."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from curator.errors import (
    InputError,
    IntegrityError,
    RefusedError,
    SignatureError,
    TemporaryError,
)
from curator.index import Head, Signature, SigningKey
from curator.oci import MANIFEST, Descriptor, Manifest, canonical_json, sha256
from curator.sign import (
    ANNOTATION,
    Signer,
    encoded,
    payload,
    public_key,
    signature_tag,
    signed_image,
    signer,
    verify_head,
    verify_image,
)
from tests.signing import FORM, PEM, new_signer, private_pem

DIGEST = sha256(b"image")
HEAD = Head(
    store="s",
    gen=7,
    path="v1/gen/00000000000000000007.json",
    sha256=sha256(b"generation"),
    signed_at="2026-11-23T12:00:00Z",
    expires="2026-12-23T12:00:00Z",
)


def signed(made: Signer, head: Head = HEAD) -> Head:
    return head.model_copy(update={"signatures": made.sign_head(head)})


@pytest.mark.parametrize("kind", ["ecdsa", "ed25519"])
def test_a_head_is_signed_by_its_key_and_by_no_other(kind: str) -> None:
    made, other = new_signer(kind), new_signer(kind)
    verify_head(signed(made), made.public, 1)
    with pytest.raises(SignatureError, match="0 of the 1"):
        verify_head(signed(made), other.public, 1)


@pytest.mark.parametrize(
    "change",
    [
        {"gen": 8}, {"sha256": sha256(b"another")}, {"store": "t"}, {"expires": None},
        {"expires": "2036-12-23T12:00:00Z"}, {"signed_at": "2026-11-24T12:00:00Z"},
        {"path": "v1/gen/00000000000000000008.json"},
    ],
)  # fmt: skip
def test_every_field_is_covered(change: dict[str, object]) -> None:
    made = new_signer()
    with pytest.raises(SignatureError):
        verify_head(signed(made).model_copy(update=change), made.public, 1)


def test_fields_of_newer_versions_are_covered_too() -> None:
    made = new_signer()
    newer = Head.model_validate({**HEAD.model_dump(), "novelty": 1})
    head = signed(made, newer)
    verify_head(head, made.public, 1)
    stripped = Head.model_validate({**HEAD.model_dump(), "signatures": head.signatures})
    with pytest.raises(SignatureError):
        verify_head(stripped, made.public, 1)


def test_a_threshold_counts_keys_and_not_signatures() -> None:
    two = new_signer("ecdsa", "ed25519")
    head = signed(two)
    verify_head(head, two.public, 2)
    first = head.model_copy(update={"signatures": head.signatures[:1] * 2})
    verify_head(first, two.public, 1)
    with pytest.raises(SignatureError, match="1 of the 2"):
        verify_head(first, two.public, 2)


def test_a_threshold_of_nothing_still_asks_for_one() -> None:
    with pytest.raises(SignatureError):
        verify_head(HEAD, new_signer().public, 0)


@pytest.mark.parametrize("sig", ["", "AAAA", "QUJD" * 20])
def test_a_signature_that_is_none_counts_as_none(sig: str) -> None:
    made = new_signer()
    (key,) = made.public
    bad = HEAD.model_copy(update={"signatures": (Signature.model_construct(
        keyid=key.keyid, sig=sig),)})  # fmt: skip
    with pytest.raises(SignatureError):
        verify_head(bad, made.public, 1)


def test_a_key_that_is_none_signs_nothing() -> None:
    made = new_signer()
    (key,) = made.public
    broken = key.model_copy(update={"public": "-----BEGIN PUBLIC KEY-----\nAAAA\n"})
    wrong_scheme = key.model_copy(update={"scheme": "ed25519"})
    for trusted in (broken, wrong_scheme):
        with pytest.raises(SignatureError):
            verify_head(signed(made), [trusted], 1)


def test_what_is_signed_is_an_envelope_of_dsse() -> None:
    # From the protocol's text: DSSEv1 SP LEN(type) SP type SP LEN(body) SP body.
    assert encoded(b"body") == b"DSSEv1 36 application/vnd.curator.head.v1+json 4 body"


def test_keys_are_read_from_pem_with_their_password() -> None:
    pem = private_pem(password=b"secret")
    assert signer([pem], b"secret").public
    for password in (None, b"wrong"):
        with pytest.raises(InputError, match="password"):
            signer([pem], password)
    with pytest.raises(InputError, match="PEM"):
        signer([b"no key"])


def test_a_public_key_is_known_by_its_hash() -> None:
    (key,) = new_signer().public
    assert public_key(key.public.encode()) == key
    with pytest.raises(InputError, match="PEM"):
        public_key(b"x")


def test_other_kinds_of_keys_are_refused() -> None:
    plain = serialization.NoEncryption()
    keys = (rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1()))
    for key in keys:
        with pytest.raises(InputError, match="P-256 or Ed25519"):
            signer([key.private_bytes(PEM, FORM, plain)])
        public = key.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        with pytest.raises(InputError, match="P-256 or Ed25519"):
            public_key(public)


def test_a_signer_shows_no_key() -> None:
    made = new_signer()
    assert repr(made) == f"Signer({made.public[0].keyid[:12]})"


def refusal(
    manifest: Manifest, blobs: tuple[bytes, ...], keys: tuple[SigningKey, ...]
) -> IntegrityError | None:
    """Return why an image does not count as signed by all of some keys, None if it does."""
    known = {sha256(data): data for data in blobs}
    try:
        verify_image(manifest, DIGEST, keys, len(keys), lambda layer: known[layer.digest])
    except IntegrityError as error:
        return error
    return None


def test_an_image_is_signed_by_its_keys_and_by_no_other() -> None:
    made = new_signer("ecdsa", "ed25519")
    manifest, blobs = signed_image(made, "registry.example/cupy", DIGEST, None)
    assert refusal(manifest, blobs, made.public) is None
    assert "signed by 0 of the 1" in str(refusal(manifest, blobs, new_signer().public))
    assert signature_tag(DIGEST) == f"sha256-{DIGEST[7:]}.sig"


def test_signatures_of_others_are_kept() -> None:
    one, two = new_signer(), new_signer()
    first, blobs = signed_image(one, "registry.example/cupy", DIGEST, None)
    both, more = signed_image(two, "registry.example/cupy", DIGEST, first)
    assert refusal(both, blobs + more, (*one.public, *two.public)) is None
    assert both.json()["layers"][:1] == first.json()["layers"]


def test_a_signature_of_another_image_does_not_count() -> None:
    made = new_signer()
    manifest, blobs = signed_image(made, "registry.example/cupy", sha256(b"other"), None)
    assert isinstance(refusal(manifest, blobs, made.public), SignatureError)


@pytest.mark.parametrize(
    "payload_", [b"", b"[]", b"{}", b'{"critical": 1}', b"[" * 50_000, b'{"critical":{"image":{}}}']
)
def test_payloads_that_say_nothing_count_as_nothing(payload_: bytes) -> None:
    made = new_signer()
    layer = Descriptor.of(payload_, "application/vnd.dev.cosign.simplesigning.v1+json").to_json()
    (own,) = made.sign(payload_)
    document = {"layers": [{**layer, "annotations": {ANNOTATION: own.sig}}]}
    manifest = Manifest(data=canonical_json(document), media_type=MANIFEST)
    assert isinstance(refusal(manifest, (payload_,), made.public), SignatureError)


MISSHAPEN: dict[str, dict[str, object]] = {
    "annotations of a list": {"annotations": ["x"]},
    "annotations of a text": {"annotations": "x"},
    "no digest": {"digest": None},
    "another digest": {"digest": "md5:1"},
    "no size": {"size": True},
    "a big payload": {"size": 10**9},
    "a payload that is lost": {"digest": sha256(b"lost")},
}


@pytest.mark.parametrize("kind", MISSHAPEN)
def test_what_stands_beside_a_signature_does_it_no_harm(kind: str) -> None:
    made = new_signer()
    manifest, (data, _) = signed_image(made, "registry.example/cupy", DIGEST, None)
    (own,) = manifest.json()["layers"]
    known = {sha256(data): data}

    def read(blob: Descriptor) -> bytes:
        assert blob.size < 100_000
        if blob.digest not in known:
            raise RefusedError(f"{blob.digest} is not in the registry")
        return known[blob.digest]

    strange = {**own, **MISSHAPEN[kind]}
    for layers in ([strange, own], [own, strange], [1, own, {}]):
        beside = Manifest(data=canonical_json({"layers": layers}), media_type=MANIFEST)
        verify_image(beside, DIGEST, made.public, 1, read)
    alone = Manifest(data=canonical_json({"layers": [strange]}), media_type=MANIFEST)
    with pytest.raises(SignatureError):
        verify_image(alone, DIGEST, made.public, 1, read)
    again, blobs = signed_image(made, "registry.example/cupy", DIGEST, alone, lambda _: False)
    verify_image(again, DIGEST, made.public, 1, read)
    assert {blob.digest for blob in again.blobs} == set(map(sha256, blobs))  # the registry takes it


def test_a_server_that_is_down_makes_no_signature_bad() -> None:
    made = new_signer()
    manifest, _ = signed_image(made, "registry.example/cupy", DIGEST, None)

    def read(_: Descriptor) -> bytes:
        raise TemporaryError("503")

    with pytest.raises(TemporaryError):
        verify_image(manifest, DIGEST, made.public, 1, read)


def test_many_layers_cost_little_and_hide_no_new_signature() -> None:
    made = new_signer()
    manifest, (data, _) = signed_image(made, "registry.example/cupy", DIGEST, None)
    (own,) = manifest.json()["layers"]
    junk = [{**own, "annotations": {ANNOTATION: "AAAA"}}] * 3000
    crowd = Manifest(data=canonical_json({"layers": junk}), media_type=MANIFEST)
    again, _ = signed_image(made, "registry.example/cupy", DIGEST, crowd)
    assert len(again.json()["layers"]) <= 101
    reads = []

    def read(blob: Descriptor) -> bytes:
        reads.append(blob.digest)
        return data

    verify_image(again, DIGEST, made.public, 1, read)
    assert reads == [sha256(data)]


@pytest.mark.parametrize("layers", [None, {}, [1], "x"])
def test_a_manifest_that_is_none_is_refused(layers: object) -> None:
    manifest = Manifest(data=json.dumps({"layers": layers}).encode(), media_type=MANIFEST)
    assert isinstance(refusal(manifest, (), new_signer().public), IntegrityError)


def test_the_payload_is_cosigns() -> None:
    critical = json.loads(payload("registry.example/cupy", DIGEST))["critical"]
    assert critical == {
        "identity": {"docker-reference": "registry.example/cupy"},
        "image": {"docker-manifest-digest": DIGEST},
        "type": "cosign container image signature",
    }
