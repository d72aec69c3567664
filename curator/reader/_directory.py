"""Documents in a directory of this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urlsplit

from curator.errors import Diagnostic, HostError, InputError, IntegrityError, TemporaryError
from curator.oci import sha256
from curator.places import MAX_DOCUMENT_BYTES
from curator.reader._values import Fetched


@dataclass(frozen=True, slots=True)
class DirectoryOrigin:
    """The documents below a directory; an ETag is their hash."""

    root: Path

    @classmethod
    def at(cls, location: str) -> Self:
        """Read a path or a `file://` address.

        Raises:
            InputError: it is another kind of address.
        """
        try:
            parts = urlsplit(location)
        except ValueError as error:
            message = f"not a place: {location!r} ({error})"
            raise InputError(Diagnostic(code="location", message=message)) from error
        if parts.scheme == "file" and parts.netloc in {"", "localhost"}:
            return cls(Path(unquote(parts.path)))
        if parts.scheme and location.startswith(f"{parts.scheme}://"):
            message = f"{parts.scheme}:// is no place that an index is read from"
            hint = "name an https:// address or a directory"
            raise InputError(Diagnostic(code="location", message=message, hint=hint))
        if "\0" in location:
            raise InputError(Diagnostic(code="location", message=f"not a path: {location!r}"))
        return cls(Path(location))

    def get(
        self,
        path: str,
        etag: str | None = None,
        *,
        within_s: float | None = None,  # noqa: ARG002 - a directory is not waited for
    ) -> Fetched | None:
        """Return a document, or None where there is none."""
        try:
            with (self.root / path).open("rb") as file:
                data = file.read(MAX_DOCUMENT_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise HostError(f"cannot read {self.root / path}: {error.strerror}") from error
        if len(data) > MAX_DOCUMENT_BYTES:
            raise IntegrityError(f"{path}: more than {MAX_DOCUMENT_BYTES} bytes")
        found = sha256(data)
        return Fetched(data=None if found == etag else data, etag=found)

    def close(self) -> None:
        """There is nothing to let go of."""


class Nowhere:
    """No place at all: what a reader that was asked to stay offline reads."""

    def get(
        self,
        path: str,
        etag: str | None = None,  # noqa: ARG002 - nothing is asked
        *,
        within_s: float | None = None,  # noqa: ARG002 - nor waited for
    ) -> Fetched | None:
        """Raise, as a place does that does not answer."""
        raise TemporaryError(f"asked to stay offline, and no copy of {path} is at hand")

    def close(self) -> None:
        """There is nothing to let go of."""
