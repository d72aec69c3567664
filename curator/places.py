"""Where the documents of an index stand below its place, and how large they may be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from curator.oci import hex_of

if TYPE_CHECKING:
    from curator.oci import Digest

CONFIG_PATH: Final = "v1/config.json"
HEAD_PATH: Final = "v1/head.json"
MAX_DOCUMENT_BYTES: Final = 8 * 1024 * 1024


def generation_path(number: int) -> str:
    """Return where a generation's document stands; twenty digits keep listings in order."""
    return f"v1/gen/{number:020d}.json"


def shard_path(digest: Digest) -> str:
    """Return where a shard stands: its name is its hash."""
    return f"v1/shard/{hex_of(digest)}.json"


def group_path(digest: Digest) -> str:
    """Return where a group stands: its name is its hash."""
    return f"v1/group/{hex_of(digest)}.json"


def evidence_path(digest: Digest) -> str:
    """Return where a smoke report or other evidence stands: its name is its hash."""
    return f"v1/evidence/{hex_of(digest)}.json"
