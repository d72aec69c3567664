"""Walking the chain of generations and building its next link.

- `head.json` may lag behind: the newest generation is found by asking for the next number until
  there is none, so a commit whose author died before moving the head is seen at once.
- Every document is checked against the hash that names it, and every generation against the
  hash of its parent; a gap, a fork or a stranger's store is an `IntegrityError`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from curator.errors import ForkError, IntegrityError, MixedError
from curator.index._documents import Config, Generation, Head
from curator.index._read import parse
from curator.oci import Digest, sha256
from curator.places import CONFIG_PATH, HEAD_PATH, generation_path

if TYPE_CHECKING:
    from collections.abc import Iterator


class Stored(Protocol):
    """A document as a store answers it."""

    @property
    def data(self) -> bytes:
        """The document's bytes."""
        ...


class Source(Protocol):
    """Where documents are read from: any store is one."""

    def read(self, path: str) -> Stored | None:
        """Return the document, or None."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """Bytes and the path that they belong under."""

    path: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Tip:
    """A generation together with the hash of its document."""

    generation: Generation
    sha256: Digest


def read_config(source: Source) -> Config | None:
    """Return the store's configuration; None before the first publish."""
    blob = source.read(CONFIG_PATH)
    return parse(Config, blob.data, CONFIG_PATH) if blob else None


def read_tip(source: Source) -> Tip | None:
    """Return the newest committed generation, or None where nothing was ever published.

    Raises:
        IntegrityError: a document is missing, damaged, or does not continue the chain.
    """
    tip = head_tip(source)
    for later in following(source, tip):
        tip = later
    return tip


def parse_head(data: bytes) -> Head:
    """Read a head's bytes.

    Raises:
        IntegrityError: it is none.
    """
    head = parse(Head, data, HEAD_PATH)
    if head.path != generation_path(head.gen):
        raise IntegrityError(f"{HEAD_PATH}: generation {head.gen} does not stand at {head.path}")
    return head


def head_tip(source: Source) -> Tip | None:
    """Return the generation that the head names, which may not be the newest."""
    blob = source.read(HEAD_PATH)
    if blob is None:
        return None
    head = parse_head(blob.data)
    tip = read_generation(source, head.gen)
    if tip is None:
        raise IntegrityError(f"{HEAD_PATH} names generation {head.gen}, which is missing")
    if (tip.sha256, tip.generation.store) != (head.sha256, head.store):
        raise MixedError(
            f"{head.path}: expected {head.sha256} of store {head.store}, "
            f"found {tip.sha256} of store {tip.generation.store}"
        )
    return tip


def following(source: Source, tip: Tip | None) -> Iterator[Tip]:
    """Yield the generations committed after `tip` (None: from the first on), oldest first."""
    while (later := read_generation(source, tip.generation.number + 1 if tip else 1)) is not None:
        if later.generation.parent != (tip.sha256 if tip else None):
            raise ForkError(
                f"{generation_path(later.generation.number)} continues "
                f"{later.generation.parent}, not {tip.sha256 if tip else 'an empty index'}: a fork"
            )
        if tip is not None and later.generation.store != tip.generation.store:
            raise MixedError(
                f"{generation_path(later.generation.number)} belongs to store "
                f"{later.generation.store}, its parent to {tip.generation.store}"
            )
        yield later
        tip = later


def read_generation(source: Source, number: int) -> Tip | None:
    """Return one generation by its number, unlinked: only its own bytes are checked."""
    blob = source.read(generation_path(number))
    return parse_generation(blob.data, number) if blob else None


def parse_generation(data: bytes, number: int) -> Tip:
    """Read a generation's bytes.

    Raises:
        IntegrityError: they are not those of a generation of this number.
    """
    path = generation_path(number)
    generation = parse(Generation, data, path)
    if generation.number != number:
        raise IntegrityError(f"{path} calls itself generation {generation.number}")
    return Tip(generation=generation, sha256=sha256(data))
