"""What a reader remembers between runs: documents by hash, the last head, and what it is held to.

- A document is believed for its hash alone, so a damaged one is as good as none.
- The pins are what finds a roll-back out: they only ever rise, under a lock, and where their file
  is damaged that is an error and not a first use.
- Without a directory everything is remembered for as long as the reader lives.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from curator.errors import HostError, IntegrityError
from curator.oci import Digest, hex_of, sha256
from curator.reader._values import Copy, Pins

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

GRACE_S: Final = 3600.0
MAX_BYTES: Final = 16 * 1024 * 1024
_FIELDS: Final = {
    "store": str,
    "registry": str,
    "keys": dict,
    "threshold": int,
    "gen": int,
    "sha256": str,
}


class Cache:
    """The memory of one reader of one location."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._documents: dict[Digest, bytes] = {}
        self._made: dict[str, bytes] = {}
        self._copy: Copy | None = None
        self._pins: Pins | None = None

    @property
    def pins_file(self) -> str:
        """What to delete to trust another store or other keys."""
        return str(self._directory / "pins.json") if self._directory else "nothing: open it again"

    def document(self, digest: Digest) -> bytes | None:
        """Return a document of this hash, if it is remembered."""
        if digest in self._documents:
            return self._documents[digest]
        data = self._read(f"doc-{hex_of(digest)}.json")
        return data if data is not None and sha256(data) == digest else None

    def keep(self, digest: Digest, data: bytes) -> None:
        """Remember a document that has this hash."""
        if self._directory is None:
            self._documents[digest] = data
        else:
            self._write(f"doc-{hex_of(digest)}.json", data)

    def made(self, name: str) -> bytes | None:
        """Return what was made of verified documents before, under a name."""
        return self._made.get(name) or self._read(f"made-{name}.json")

    def make(self, name: str, data: bytes) -> None:
        """Remember what was made of verified documents, in place of what was made before."""
        self._made = {name: data}
        if self._directory is None or len(data) >= MAX_BYTES:
            return
        self._write(f"made-{name}.json", data)
        for path in self._directory.glob("made-*.json"):
            if path.name != f"made-{name}.json":
                path.unlink(missing_ok=True)

    def forget_all_but(self, digests: Collection[Digest]) -> None:
        """Drop the documents that nothing names any more; a young one may be another reader's."""
        self._documents = {
            digest: data for digest, data in self._documents.items() if digest in digests
        }
        if self._directory is None:
            return
        names = {f"doc-{hex_of(digest)}.json" for digest in digests}
        oldest = time.time() - GRACE_S
        for path in (*self._directory.glob("doc-*.json"), *self._directory.glob(".*-*")):
            with contextlib.suppress(OSError):
                if path.name not in names and path.stat().st_mtime < oldest:
                    path.unlink()

    def copy(self) -> Copy | None:
        """Return the last verified head and its config; damaged ones are none."""
        if self._directory is None:
            return self._copy
        head, config = self._read("head.json"), self._read("config.json")
        about = self._read("seen.json")
        if head is None or config is None or about is None:
            return None
        try:
            value = json.loads(about)
            etag, seen_at = value["etag"], value["at"]
            if [value["head"], value["config"]] != [sha256(head), sha256(config)]:
                return None
        except (ValueError, KeyError, TypeError, RecursionError):
            return None
        if type(seen_at) is not float or not (etag is None or _is_etag(etag)):
            return None
        return Copy(data=head, etag=etag, seen_at=seen_at, config=config)

    def remember(self, copy: Copy) -> None:
        """Remember a verified head and its config."""
        self._copy = copy
        about = {
            "at": copy.seen_at,
            "etag": copy.etag,
            "head": sha256(copy.data),
            "config": sha256(copy.config),
        }
        self._write("head.json", copy.data)
        self._write("config.json", copy.config)
        self._write("seen.json", json.dumps(about).encode())

    def pins(self) -> Pins | None:
        """Return what this index is held to; None at its first use.

        Raises:
            IntegrityError: the file is damaged; to take that for a first use would let an old
                index pass for a new one.
        """
        if self._directory is None:
            return self._pins
        data = self._read("pins.json")
        if data is None:
            return None
        pins = _pins(data)
        if pins is None:
            raise IntegrityError(
                f"{self.pins_file} is damaged: delete it to trust the index as it is now"
            )
        return pins

    def pin(self, change: Callable[[Pins | None], Pins]) -> None:
        """Change the pins in one step among all readers of this cache."""
        with self._locked():
            pins = change(self.pins())
            self._pins = pins
            self._write("pins.json", json.dumps(asdict(pins), sort_keys=True).encode())

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        if self._directory is None:
            yield
            return
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            lock = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise _unwritable(self._directory, error) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _read(self, name: str) -> bytes | None:
        if self._directory is None:
            return None
        try:
            with (self._directory / name).open("rb") as file:
                return file.read(MAX_BYTES)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise HostError(f"cannot read {self._directory / name}: {error.strerror}") from error

    def _write(self, name: str, data: bytes) -> None:
        """Write a file in one step."""
        if self._directory is None:
            return
        path = self._directory / name
        temporary = path.with_name(f".{name}.{os.getpid()}-{time.monotonic_ns()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(data)
            temporary.replace(path)
        except OSError as error:
            raise _unwritable(self._directory, error) from error
        finally:
            temporary.unlink(missing_ok=True)


def _is_etag(text: object) -> bool:
    """Say whether this can be sent as an ETag."""
    return isinstance(text, str) and text.isascii() and text.isprintable()


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


def _unwritable(directory: Path, error: OSError) -> HostError:
    return HostError(
        f"cannot write {directory}: {error.strerror}: name another cache, or none (cache=None)"
    )
