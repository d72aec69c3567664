"""Build, test on GPUs, and publish deep-learning images with the evidence for every tag.

For tools that read what was published:

    index = curator.open_index("https://images.example/index/")
    entry = index.find("cupy:14.2")
    if entry is not None:
        print(index.reference(entry))

The types, for annotations: `from curator.reader import Entry, IndexReader`; what can go wrong:
`curator.errors`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from curator._open import open_index

__all__ = ["open_index"]


def __getattr__(name: str) -> object:
    """Load the reader when it is first asked for: importing curator costs nothing."""
    if name == "open_index":
        from curator._open import open_index  # noqa: PLC0415

        return open_index
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
