"""Keys that tests sign with, made on the spot."""

from __future__ import annotations

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from curator.sign import Signer, signer

PEM = serialization.Encoding.PEM
FORM = serialization.PrivateFormat.PKCS8


def private_pem(kind: str = "ecdsa", password: bytes | None = None) -> bytes:
    """Return a new private key."""
    key = (
        ec.generate_private_key(ec.SECP256R1())
        if kind == "ecdsa"
        else ed25519.Ed25519PrivateKey.generate()
    )
    encryption = (
        serialization.BestAvailableEncryption(password)
        if password
        else serialization.NoEncryption()
    )
    return key.private_bytes(PEM, FORM, encryption)


def new_signer(*kinds: str) -> Signer:
    """Return a signer with a new key of each kind."""
    return signer([private_pem(kind) for kind in kinds or ("ecdsa",)])
