"""Documents in a store that is opened with credentials."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from curator.reader._values import Fetched

if TYPE_CHECKING:
    from curator.ports import Store


@dataclass(frozen=True, slots=True)
class StoreOrigin:
    """The documents of a store, by its own etags."""

    store: Store

    def get(
        self,
        path: str,
        etag: str | None = None,
        *,
        within_s: float | None = None,  # noqa: ARG002 - a store has a deadline of its own
    ) -> Fetched | None:
        """Return a document, or None where there is none."""
        found = self.store.read(path)
        if found is None:
            return None
        return Fetched(data=None if found.etag == etag else found.data, etag=found.etag)

    def close(self) -> None:
        """There is nothing to let go of."""
