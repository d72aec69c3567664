"""What a reader remembers between runs: documents by hash, the last head, and what it is held to.

- A document is believed for its hash alone, so a damaged one is as good as none.
- The last verified head and its config are one file, replaced in one step; when they were last
  seen is the time of that file, so that an unchanged index writes nothing.
- The pins are what finds a roll-back out: they only ever rise, under a lock and together with the
  copy, and where their file is damaged that is an error and not a first use.
- What no directory takes is remembered for as long as the reader lives: without a directory, or
  where it cannot be written and nobody asked for this very one.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Final

from curator.errors import HostError, IntegrityError
from curator.oci import Digest, hex_of, sha256
from curator.reader._values import Copy, Pins

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

log = logging.getLogger(__name__)

GRACE_S: Final = 3600.0
MAX_BYTES: Final = 16 * 1024 * 1024
COPY: Final = "copy.json"
PINS: Final = "pins.json"
_FIELDS: Final = {
    "store": str,
    "registry": str,
    "keys": dict,
    "threshold": int,
    "gen": int,
    "sha256": str,
}


class Cache:
    """The memory of one reader of one location; with `is_required` its directory has to work."""

    def __init__(self, directory: Path | None, *, is_required: bool = False) -> None:
        self._directory = directory
        self._is_required = is_required
        self._is_writable = directory is not None
        self._memory: dict[str, bytes] = {}
        self._seen_at = 0.0

    @property
    def pins_file(self) -> str:
        """What to delete to trust another store or other keys."""
        return str(self._directory / PINS) if self._directory else "nothing: open it again"

    def document(self, digest: Digest) -> bytes | None:
        """Return a document of this hash, if it is remembered."""
        data = self._read(f"doc-{hex_of(digest)}.json")
        return data if data is not None and sha256(data) == digest else None

    def keep(self, digest: Digest, data: bytes) -> None:
        """Remember a document that has this hash."""
        self._write(f"doc-{hex_of(digest)}.json", data)

    def made(self, name: str) -> bytes | None:
        """Return what was made of verified documents before, under a name."""
        return self._read(f"made-{name}.json")

    def make(self, name: str, data: bytes) -> None:
        """Remember what was made of verified documents, in place of what was made before."""
        kept = f"made-{name}.json"
        self._memory = {n: d for n, d in self._memory.items() if not n.startswith("made-")}
        if len(data) >= MAX_BYTES:
            self._memory[kept] = data
            return
        self._write(kept, data)
        for path in self._files("made-*.json"):
            if path.name != kept:
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)

    def forget_all_but(self, digests: Collection[Digest]) -> None:
        """Drop the documents that nothing names any more; a young one may be another reader's."""
        names = {f"doc-{hex_of(digest)}.json" for digest in digests}
        self._memory = {
            name: data
            for name, data in self._memory.items()
            if name in names or not name.startswith("doc-")
        }
        oldest = time.time() - GRACE_S
        for path in self._files("doc-*.json", ".*-*"):
            with contextlib.suppress(OSError):
                if path.name not in names and path.stat().st_mtime < oldest:
                    path.unlink()

    def _files(self, *patterns: str) -> list[Path]:
        """Return the files that may be deleted."""
        if self._directory is None or not self._is_writable:
            return []
        return [path for pattern in patterns for path in self._directory.glob(pattern)]

    def copy(self) -> Copy | None:
        """Return the last verified head and its config; damaged ones are none."""
        data = self._read(COPY)
        found = None if data is None else _copy(data)
        return found and replace(found, seen_at=self._last_seen())

    def _last_seen(self) -> float:
        if self._directory is None or COPY in self._memory:
            return self._seen_at
        try:
            return (self._directory / COPY).stat().st_mtime
        except OSError:  # somebody emptied the cache meanwhile
            return self._seen_at

    def pins(self) -> Pins | None:
        """Return what this index is held to; None at its first use.

        Raises:
            IntegrityError: the file is damaged; to take that for a first use would let an old
                index pass for a new one.
        """
        data = self._read(PINS)
        if data is None:
            return None
        pins = _pins(data)
        if pins is None:
            raise IntegrityError(
                f"{self.pins_file} is damaged: delete it to trust the index as it is now"
            )
        return pins

    def rise(self, change: Callable[[Pins | None], Pins], copy: Copy) -> bool:
        """Raise the pins and remember what they rose to, in one step among all readers.

        Returns whether that copy is a new one.
        """
        pins = self.pins()
        if pins is not None and change(pins) == pins and self._holds(copy):
            self._touch(copy.seen_at)
            return False
        with self._locked():
            pins = self.pins()
            risen = change(pins)
            if risen != pins:
                self._write(PINS, json.dumps(asdict(risen), sort_keys=True).encode())
            is_new = not self._holds(copy)
            if is_new:
                self._write(COPY, _packed(copy))
            self._touch(copy.seen_at)
        return is_new

    def _holds(self, copy: Copy) -> bool:
        known = self.copy()
        return known is not None and replace(known, seen_at=copy.seen_at) == copy

    def _touch(self, seen_at: float) -> None:
        self._seen_at = seen_at
        if self._directory is not None:
            with contextlib.suppress(OSError):  # read-only: then it is as old as it looks
                os.utime(self._directory / COPY, (seen_at, seen_at))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        lock = self._lock()
        try:
            if lock is not None:
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            if lock is not None:
                os.close(lock)

    def _lock(self) -> int | None:
        """Open the file that readers of this directory lock; None where nothing can be written."""
        if self._directory is None or not self._is_writable:
            return None
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            return os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            self._do_without(f"cannot write {self._directory}", error)
            return None

    def _read(self, name: str) -> bytes | None:
        if name in self._memory:
            return self._memory[name]
        if self._directory is None:
            return None
        try:
            with (self._directory / name).open("rb") as file:
                return file.read(MAX_BYTES)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._do_without(f"cannot read {self._directory / name}", error)
            return None

    def _write(self, name: str, data: bytes) -> None:
        """Write a file in one step."""
        if self._directory is None or not self._is_writable:
            self._memory[name] = data
            return
        path = self._directory / name
        temporary = path.with_name(f".{name}.{os.getpid()}-{time.monotonic_ns()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(data)
            temporary.replace(path)
        except OSError as error:
            self._do_without(f"cannot write {self._directory}", error)
            self._memory[name] = data
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def _do_without(self, doing: str, error: OSError) -> None:
        """Go on in memory, once and for all.

        Raises:
            HostError: this very directory was asked for.
        """
        told = f"{doing}: {error.strerror}"
        if self._is_required:
            raise HostError(f"{told}: name another cache, or none (cache=None)") from error
        if self._is_writable:
            log.warning("%s: what is read of this index is forgotten when this ends", told)
        self._is_writable = False


def _packed(copy: Copy) -> bytes:
    value = {"etag": copy.etag, "head": copy.data.decode(), "config": copy.config.decode()}
    return json.dumps({**value, "sha256": _sum(value)}).encode()


def _copy(data: bytes) -> Copy | None:
    try:
        value: Any = json.loads(data)
        if value.pop("sha256") != _sum(value):
            return None
        head, config = value["head"].encode(), value["config"].encode()
        return Copy(data=head, etag=value["etag"], seen_at=0.0, config=config)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _sum(value: dict[str, str | None]) -> Digest:
    """Return what tells a damaged file from a whole one."""
    return sha256(json.dumps(value, sort_keys=True).encode())


def _pins(data: bytes) -> Pins | None:
    try:
        value: Any = json.loads(data)
        if any(type(value[name]) is not kind for name, kind in _FIELDS.items()):
            return None
        if any(type(text) is not str for text in value["keys"].values()):
            return None
        return Pins(**{name: value[name] for name in _FIELDS})
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
