"""Signatures with keys of our own, made and checked without any network.

- The head is signed as a DSSE envelope is: over `DSSEv1 <type> <statement>`. Everything below the
  head is named by hash, so this one signature covers the whole index.
- An image is signed as cosign does it: a manifest under the tag `sha256-<hex>.sig` whose layers
  are simple-signing payloads, each with its signature in an annotation. `cosign verify` reads it.
- A signature counts once for each trusted key; a threshold of keys has to have signed. What
  stands beside it does no harm: a layer that is misshapen or cannot be read counts for nothing.
- Keys: ECDSA P-256 (what cosign has) or Ed25519.

Source: https://github.com/secure-systems-lab/dsse/blob/master/protocol.md,
https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from curator.errors import (
    Diagnostic,
    InputError,
    IntegrityError,
    RefusedError,
    SignatureError,
)
from curator.index import Signature, SigningKey
from curator.oci import CONFIG, MANIFEST, Descriptor, Manifest, canonical_json, hex_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

    from curator.index import Head
    from curator.oci import Digest

HEAD_TYPE: Final = "application/vnd.curator.head.v1+json"
SIMPLE_SIGNING: Final = "application/vnd.dev.cosign.simplesigning.v1+json"
ANNOTATION: Final = "dev.cosignproject.cosign/signature"
CURVE: Final = "secp256r1"
# Anybody who may push can add to an image's signatures: the newest are looked at, and small ones.
MAX_SIGNATURES: Final = 100
MAX_PAYLOAD_BYTES: Final = 64 * 1024

_Private = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@dataclass(frozen=True, slots=True)
class Signer:
    """One or several private keys; every signature is made with each of them."""

    _keys: tuple[_Private, ...]

    def __repr__(self) -> str:
        return f"Signer({', '.join(key.keyid[:12] for key in self.public)})"

    @property
    def public(self) -> tuple[SigningKey, ...]:
        """The public halves, as a store's configuration holds them."""
        return tuple(_described(key.public_key()) for key in self._keys)

    def sign(self, data: bytes) -> tuple[Signature, ...]:
        """Return each key's signature over bytes as they are."""
        return tuple(
            Signature(keyid=key.keyid, sig=base64.b64encode(_signed(private, data)).decode())
            for key, private in zip(self.public, self._keys, strict=True)
        )

    def sign_head(self, head: Head) -> tuple[Signature, ...]:
        """Return each key's signature over a head."""
        return self.sign(encoded(head.statement))


def signer(pems: Sequence[bytes], password: bytes | None = None) -> Signer:
    """Read private keys in PEM (PKCS#8, as `openssl genpkey` writes them).

    Raises:
        InputError: not a key, a wrong password, or a kind of key that is not taken.
    """
    return Signer(tuple(_private(pem, password) for pem in pems))


def _private(pem: bytes, password: bytes | None) -> _Private:
    hint = "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem"
    try:
        key = serialization.load_pem_private_key(pem, password)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        message = f"not a private key in PEM, or not its password: {error}"
        raise InputError(Diagnostic(code="key", message=message, hint=hint)) from error
    if not isinstance(key, _Private) or not _is_taken(key.public_key()):
        message = f"keys are ECDSA P-256 or Ed25519, this is {type(key).__name__}"
        raise InputError(Diagnostic(code="key", message=message, hint=hint))
    return key


def _is_taken(key: object) -> bool:
    if isinstance(key, ec.EllipticCurvePublicKey):
        return key.curve.name == CURVE
    return isinstance(key, ed25519.Ed25519PublicKey)


def _signed(key: _Private, data: bytes) -> bytes:
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(data)
    return key.sign(data, ec.ECDSA(hashes.SHA256()))


def public_key(pem: bytes) -> SigningKey:
    """Read a public key in PEM (SubjectPublicKeyInfo, as `cosign.pub` is).

    Raises:
        InputError: not a key, or a kind of key that is not taken.
    """
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        message = f"not a public key in PEM: {error}"
        raise InputError(Diagnostic(code="key", message=message)) from error
    if not isinstance(key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey) or not _is_taken(
        key
    ):
        message = f"keys are ECDSA P-256 or Ed25519, this is {type(key).__name__}"
        raise InputError(Diagnostic(code="key", message=message))
    return _described(key)


def _described(key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey) -> SigningKey:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    pem = key.public_bytes(serialization.Encoding.PEM, form).decode()
    is_ec = isinstance(key, ec.EllipticCurvePublicKey)
    return SigningKey(
        keyid=_keyid(key),
        scheme="ecdsa-sha2-nistp256" if is_ec else "ed25519",
        public=pem,
    )


def _keyid(key: PublicKeyTypes) -> str:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(key.public_bytes(serialization.Encoding.DER, form)).hexdigest()


def encoded(statement: bytes) -> bytes:
    """Return what a head's signature is over: DSSE's pre-authentication encoding."""
    kind = HEAD_TYPE.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(statement), statement)


def verify_head(head: Head, keys: Sequence[SigningKey], threshold: int) -> None:
    """Hold a head against the keys that are trusted.

    Raises:
        SignatureError: fewer than `threshold` of them signed it.
    """
    data = encoded(head.statement)
    trusted = {key.keyid: key for key in keys}
    good = {
        signature.keyid
        for signature in head.signatures
        if signature.keyid in trusted and _is_signed(trusted[signature.keyid], signature.sig, data)
    }
    if len(good) < max(1, threshold):
        raise SignatureError(
            f"the head of generation {head.gen} is signed by {len(good)} of the {len(trusted)} "
            f"trusted keys, {max(1, threshold)} have to"
        )


def _is_signed(key: SigningKey, signature: str, data: bytes) -> bool:
    """Say whether a signature over these bytes is a key's; a broken key signs nothing."""
    try:
        raw = base64.b64decode(signature, validate=True)
        public = serialization.load_pem_public_key(key.public.encode())
        if _keyid(public) != key.keyid:
            return False  # one key under two names is one key
        if isinstance(public, ed25519.Ed25519PublicKey) and key.scheme == "ed25519":
            public.verify(raw, data)
        elif isinstance(public, ec.EllipticCurvePublicKey) and key.scheme != "ed25519":
            public.verify(raw, data, ec.ECDSA(hashes.SHA256()))
        else:
            return False
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError, binascii.Error):
        return False
    return True


def signature_tag(digest: Digest) -> str:
    """Return the tag beside an image that its signatures stand under."""
    return f"sha256-{hex_of(digest)}.sig"


def payload(repository: str, digest: Digest) -> bytes:
    """Return what is signed of an image: where it is, and its digest."""
    return canonical_json(
        {
            "critical": {
                "identity": {"docker-reference": repository},
                "image": {"docker-manifest-digest": digest},
                "type": "cosign container image signature",
            },
            "optional": None,
        }
    )


def signed_image(
    made: Signer,
    repository: str,
    digest: Digest,
    before: Manifest | None,
    is_there: Callable[[Descriptor], bool] = lambda _: True,
) -> tuple[Manifest, tuple[bytes, ...]]:
    """Return the manifest of an image's signatures with ours added, and the blobs it needs.

    Others' signatures are kept, the newest of them, if they are whole and `is_there` says that
    their payload is: a registry takes no manifest that names what it has not.
    """
    data = payload(repository, digest)
    layer = Descriptor.of(data, SIMPLE_SIGNING)
    own = [{**layer.to_json(), "annotations": {ANNOTATION: found.sig}} for found in made.sign(data)]
    others = {blob for blob, _ in _layers(before) if blob != layer}
    there = {layer, *filter(is_there, others)}
    layers = [*(old for blob, old in _layers(before) if blob in there), *own]
    config = canonical_json(
        {
            "architecture": "",
            "config": {},
            "os": "",
            "rootfs": {"type": "layers", "diff_ids": [item["digest"] for item in layers]},
        }
    )
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": Descriptor.of(config, CONFIG).to_json(),
        "layers": layers,
    }
    return Manifest(data=canonical_json(manifest), media_type=MANIFEST), (data, config)


def verify_image(
    manifest: Manifest,
    digest: Digest,
    keys: Sequence[SigningKey],
    threshold: int,
    read: Callable[[Descriptor], bytes],
) -> None:
    """Hold an image's signatures against the keys that are trusted; `read` gives a payload.

    Raises:
        SignatureError: fewer than `threshold` of them signed this digest.
    """
    good: set[str] = set()
    payloads: dict[Descriptor, bytes | None] = {}
    for blob, layer in _layers(manifest):
        signature = layer["annotations"].get(ANNOTATION)
        if blob.media_type != SIMPLE_SIGNING or not isinstance(signature, str):
            continue
        if blob not in payloads:
            payloads[blob] = _payload_about(digest, blob, read)
        data = payloads[blob]
        if data is not None:
            good |= {key.keyid for key in keys if _is_signed(key, signature, data)}
    if len(good) < max(1, threshold):
        raise SignatureError(
            f"{digest} is signed by {len(good)} of the {len(keys)} trusted keys, "
            f"{max(1, threshold)} have to"
        )


def _layers(manifest: Manifest | None) -> list[tuple[Descriptor, dict[str, Any]]]:
    """Return the newest layers of a manifest of signatures; what is misshapen is none of them."""
    layers = manifest.json().get("layers") if manifest else []
    found = [_layer(value) for value in layers] if isinstance(layers, list) else []
    return [layer for layer in found if layer is not None][-MAX_SIGNATURES:]


def _layer(value: object) -> tuple[Descriptor, dict[str, Any]] | None:
    if not isinstance(value, dict) or not isinstance(value.get("annotations"), dict):
        return None
    try:
        return Descriptor.from_json(value), value
    except IntegrityError:
        return None


def _payload_about(
    digest: Digest, blob: Descriptor, read: Callable[[Descriptor], bytes]
) -> bytes | None:
    """Return a payload if it can be read and is about a digest; else it counts for nothing."""
    if blob.size > MAX_PAYLOAD_BYTES:
        return None
    try:
        data = read(blob)
    except (IntegrityError, RefusedError):
        return None
    return data if _digest_of(data) == digest else None


def _digest_of(data: bytes) -> str | None:
    """Return the digest that a payload is about; None if it is about nothing."""
    try:
        digest = json.loads(data)["critical"]["image"]["docker-manifest-digest"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return digest if isinstance(digest, str) else None
