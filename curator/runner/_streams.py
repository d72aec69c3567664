"""Streams of bytes that nobody vouches for: read forwards, in bounded memory, and hashed.

What breaks while such bytes are read is an `IntegrityError`; what this machine cannot do with them
(no room, no right) is a `HostError`.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import sys
import tarfile
import zlib
from typing import IO, TYPE_CHECKING, cast

from curator.errors import HostError, IntegrityError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHUNK = 1024 * 1024

# Archives' headers are read whole: more than this is no header (a path has at most 4096 bytes).
MAX_HEADER_BYTES = 64 * 1024
MAX_READ_BYTES = 8 * CHUNK

_OURS = {
    errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE,
    errno.EACCES, errno.EPERM, errno.ENOMEM,
}  # fmt: skip
_BROKEN = (tarfile.TarError, zlib.error, EOFError, ValueError, OverflowError, RecursionError)


@contextlib.contextmanager
def reading(what: str) -> Iterator[None]:
    """Tell whose fault it is if reading `what` fails."""
    try:
        yield
    except gzip.BadGzipFile as error:
        raise IntegrityError(f"{what} is broken: {error}") from error
    except OSError as error:
        if error.errno in _OURS:
            raise HostError(f"{what} cannot be unpacked here: {error}") from error
        raise IntegrityError(f"{what} is broken: {error}") from error
    except _BROKEN as error:
        raise IntegrityError(f"{what} is broken: {error}") from error
    except Exception as error:
        # Its class is known only where the decompressor was imported.
        if type(error).__name__ != "ZstdError":
            raise
        raise IntegrityError(f"{what} is broken: {error}") from error


class Guarded:
    """A file for `tarfile` that refuses to be read in one piece of any size."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self.seek, self.tell, self.seekable = source.seek, source.tell, source.seekable

    def read(self, size: int) -> bytes:
        """Return the next bytes."""
        if size > MAX_READ_BYTES:
            raise IntegrityError(f"a header of {size} bytes")
        return self._source.read(size)


class Forward:
    """A stream for `tarfile` that only goes forwards, and knows the digest of what went by."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self._seen = hashlib.sha256()
        self._position = 0
        self.last = b""

    def read(self, size: int) -> bytes:
        """Return the next bytes, fewer only at the end; archives' headers are read by this."""
        if size > MAX_HEADER_BYTES:
            raise IntegrityError(f"a header of {size} bytes")
        parts: list[bytes] = []
        self._pass(size, parts.append)
        self.last = b"".join(parts)
        return self.last

    def copy(self, size: int, write: Callable[[bytes], object]) -> None:
        """Hand the next `size` bytes to `write`, a chunk at a time."""
        if self._pass(size, write):
            raise IntegrityError("it ends in the middle of a file")

    def seek(self, position: int) -> int:
        """Go on to a position."""
        if position < self._position:
            raise IntegrityError("its headers point backwards")
        self._pass(position - self._position, lambda _: None)
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def digest(self) -> str:
        """Read to the end, and return the digest of everything."""
        while not self._pass(CHUNK, lambda _: None):
            pass
        return "sha256:" + self._seen.hexdigest()

    def _pass(self, size: int, write: Callable[[bytes], object]) -> int:
        """Hand on the next bytes; return how many there were too few."""
        while size > 0 and (chunk := self._source.read(min(size, CHUNK))):
            self._seen.update(chunk)
            self._position += len(chunk)
            size -= len(chunk)
            write(chunk)
        return size


def decompressed(source: IO[bytes], media_type: str) -> IO[bytes]:
    """Return a layer's bytes as its media type says they were compressed.

    Source: OCI image specification, layer.md; Docker's own types name the same two formats.

    Raises:
        IntegrityError: it is no layer that can be unpacked.
    """
    if media_type.endswith(("tar+gzip", "tar.gzip")):
        return gzip.GzipFile(fileobj=source)  # type: ignore[return-value]
    if media_type.endswith(("tar+zstd", "tar.zstd")):
        return _zstd(source)
    if media_type.endswith(".tar"):
        return source
    raise IntegrityError(f"not a layer that can be unpacked: {media_type}")


def _zstd(source: IO[bytes]) -> IO[bytes]:
    if sys.version_info >= (3, 14):
        from compression import zstd  # noqa: PLC0415
    else:
        from backports import zstd  # noqa: PLC0415
    return cast("IO[bytes]", zstd.ZstdFile(source))
