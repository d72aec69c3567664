"""A store in a local directory: what it answered is on the disk, whoever dies when.

- A document appears whole or not at all: it is written under a hidden name in the same
  directory, synced, then linked (`add`) or moved (`replace`) to its own name.
- `add` is exclusive between any number of processes because `link(2)` is; `replace` compares
  and moves under one lock of the store.
- Before an answer, the directory itself is synced: an acknowledged write survives a power cut.
- A path is relative and plain; every directory is opened without following links, so that no
  link inside the store leads out of it.

Source: link(2), rename(2), fsync(2) of the Linux manual.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NoReturn

from curator.errors import (
    ConflictError,
    CuratorError,
    Diagnostic,
    HostError,
    InputError,
    IntegrityError,
    RefusedError,
    TemporaryError,
)
from curator.oci import sha256
from curator.ports import Blob

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_BYTES: Final = 64 * 1024 * 1024
LOCK_TIMEOUT_S: Final = 60.0
TURN_S: Final = 20.0
LEFTOVER_AGE_S: Final = 3600.0

_PATH = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
_PREFIX = re.compile(r"([A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*/?)?")
# Hidden names are never listed and no document can have one.
_LOCK = ".lock"
_TEMPORARY = ".writing-"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_ESCAPES = frozenset({errno.ELOOP, errno.ENOTDIR})
_NO_LINKS = frozenset({errno.EOPNOTSUPP, errno.EPERM, errno.EMLINK})


class DirectoryStore:
    """Index documents as files below `root`, which the first write creates.

    `turn_s` is for how long a writer waits for its turn.
    """

    def __init__(self, root: Path, *, turn_s: float = TURN_S) -> None:
        self._root = root
        self._turn_s = turn_s
        self._prepared: set[str] = set()

    def read(self, path: str) -> Blob | None:
        """Return the document, or None.

        Raises:
            InputError: the path is not relative and plain.
            RefusedError: the path leads through a link.
        """
        directory, name = _split(path)
        try:
            with self._opened(directory) as where:
                data = _read(where, name)
        except FileNotFoundError:
            return None
        except OSError as error:
            _fail(error, f"read {self._root / path}")
        return Blob(data=data, etag=sha256(data))

    def add(self, path: str, data: bytes) -> None:
        """Create an immutable document durably; the same bytes again are fine.

        Raises:
            ConflictError: other bytes stand there.
            TemporaryError: the disk is full.
            HostError: the directory cannot be written.
        """
        directory, name = _split(path)
        try:
            with self._created(directory) as where:
                if not _same(where, name, data):
                    with _written(where, data) as temporary:
                        _link(where, temporary, name, data)
                # Also where the bytes stood already: their writer may not have synced yet.
                os.fsync(where)
        except OSError as error:
            _fail(error, f"add {self._root / path}")

    def replace(self, path: str, data: bytes, expected_etag: str | None) -> str:
        """Replace a mutable document if it is still the expected one; return the new etag.

        Raises:
            ConflictError: the document has another etag (None expects that there is none).
            TemporaryError: the disk is full, or another process keeps the store locked.
            HostError: the directory cannot be written.
        """
        directory, name = _split(path)
        try:
            with self._created(directory) as where, self._locked(), _written(where, data) as new:
                found = _etag(where, name)
                if found != expected_etag:
                    raise ConflictError(f"{path}: expected {expected_etag}, found {found}")
                os.replace(new, name, src_dir_fd=where, dst_dir_fd=where)
                os.fsync(where)
        except OSError as error:
            _fail(error, f"replace {self._root / path}")
        return sha256(data)

    def list(self, prefix: str) -> tuple[str, ...]:
        """Return the paths that start with `prefix`, sorted; links are not documents."""
        if not _PREFIX.fullmatch(prefix):
            raise InputError(Diagnostic(code="path", message=f"not a store path: {prefix!r}"))
        directory = prefix.rpartition("/")[0]
        try:
            with self._opened(directory) as where:
                found = sorted(_files(where, f"{directory}/" if directory else ""))
        except FileNotFoundError:
            return ()
        except OSError as error:
            _fail(error, f"list {self._root / prefix}")
        return tuple(path for path in found if path.startswith(prefix))

    @contextmanager
    def turn(self, name: str) -> Iterator[None]:
        """Wait for a turn among this store's writers; after a while go on without one.

        So does who cannot have one, because the lock is another user's: turns only save work.
        """
        with contextlib.ExitStack() as held:
            with contextlib.suppress(OSError):
                held.enter_context(self._held(f"{_LOCK}-{name}", self._turn_s))
            yield

    @contextmanager
    def _opened(self, directory: str) -> Iterator[int]:
        """Give a descriptor of a directory of the store; no component may be a link."""
        where = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in filter(None, directory.split("/")):
                where = _exchange(where, os.open(part, _DIRECTORY, dir_fd=where))
            yield where
        finally:
            os.close(where)

    @contextmanager
    def _created(self, directory: str) -> Iterator[int]:
        """As `_opened`, but the first use makes and syncs the directories and sweeps the last."""
        if directory not in self._prepared:
            _make(self._root)
            for parent, name in _steps(directory):
                with self._opened(parent) as where:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(name, dir_fd=where)
                    # Also where it stood already: its maker may not have synced yet.
                    os.fsync(where)
            with self._opened(directory) as where:
                _sweep(where)
            self._prepared.add(directory)
        with self._opened(directory) as where:
            yield where

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._held(_LOCK, LOCK_TIMEOUT_S) as held:
            if not held:
                raise TemporaryError(
                    f"{self._root} has been locked by another process for {LOCK_TIMEOUT_S:g} s"
                )
            yield

    @contextmanager
    def _held(self, name: str, timeout_s: float) -> Iterator[bool]:
        """Hold a lock, or say after a while that it is not to be had.

        The kernel releases it when its holder dies, and serves those who wait in their order.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        lock = os.open(self._root / name, flags, 0o666)
        try:
            yield _try_lock(lock) or _wait_lock(lock, timeout_s)
        finally:
            os.close(lock)


def _split(path: str) -> tuple[str, str]:
    """Return directory and name of a plain relative path."""
    if not _PATH.fullmatch(path):
        raise InputError(Diagnostic(code="path", message=f"not a store path: {path!r}"))
    directory, _, name = path.rpartition("/")
    return directory, name


def _steps(directory: str) -> Iterator[tuple[str, str]]:
    """Yield (parent, name) of each directory on the way: `v1/gen` -> `("", v1)`, `(v1, gen)`."""
    parts = directory.split("/") if directory else []
    for count, name in enumerate(parts):
        yield "/".join(parts[:count]), name


def _make(root: Path) -> None:
    """Make a directory and what is missing above it, each synced into the one that holds it."""
    missing = [path for path in (root, *root.parents) if not path.exists()]
    root.mkdir(parents=True, exist_ok=True)
    # Also where it stood already: its maker may not have synced yet.
    for path in missing or [root]:
        _sync(path.parent)


def _sync(directory: Path) -> None:
    where = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(where)
    finally:
        os.close(where)


def _exchange(old: int, new: int) -> int:
    os.close(old)
    return new


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _wait_lock(lock: int, timeout_s: float) -> bool:
    """Queue for a lock; say whether it came in time.

    The kernel's queue knows no time-out, so a thread stands in it. Once nobody waits for the thread
    any more, its descriptor is the last one: closing it gives back what came too late.
    """
    queued, came = os.dup(lock), threading.Event()

    def queue() -> None:
        try:
            fcntl.flock(queued, fcntl.LOCK_EX)
            came.set()
        finally:
            os.close(queued)

    threading.Thread(target=queue, daemon=True).start()
    return came.wait(timeout_s)


def _read(where: int, name: str) -> bytes:
    # Not blocking, because a pipe that somebody put there has no end.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(name, flags, dir_fd=where)
    try:
        size = os.fstat(descriptor).st_size
        if size > MAX_BYTES:
            raise IntegrityError(f"{name}: {size} bytes, more than any document has")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(MAX_BYTES)
    finally:
        os.close(descriptor)


def _etag(where: int, name: str) -> str | None:
    try:
        return sha256(_read(where, name))
    except FileNotFoundError:
        return None


def _same(where: int, name: str, data: bytes) -> bool:
    """Say whether exactly these bytes stand there; other bytes are a conflict."""
    found = _etag(where, name)
    if found not in {None, sha256(data)}:
        raise ConflictError(f"{name}: stands there with {found}, not with {sha256(data)}")
    return found is not None


@contextmanager
def _written(where: int, data: bytes) -> Iterator[str]:
    """Give the name of a synced temporary file; it is gone afterwards, moved or not."""
    name = f"{_TEMPORARY}{os.getpid()}-{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, 0o666, dir_fd=where)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor has no path
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield name
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=where)


def _link(where: int, temporary: str, name: str, data: bytes) -> None:
    try:
        os.link(temporary, name, src_dir_fd=where, dst_dir_fd=where, follow_symlinks=False)
    except FileExistsError:
        _same(where, name, data)
    except OSError as error:
        if error.errno in _NO_LINKS:
            message = "the store's file system has no hard links: choose another directory"
            raise HostError(message) from error
        raise


def _files(where: int, prefix: str) -> Iterator[str]:
    """Yield the plain files below an open directory."""
    with os.scandir(where) as found:
        entries = [entry for entry in found if not entry.name.startswith(".")]
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            below = os.open(entry.name, _DIRECTORY, dir_fd=where)
            try:
                yield from _files(below, f"{prefix}{entry.name}/")
            finally:
                os.close(below)
        elif entry.is_file(follow_symlinks=False):
            yield f"{prefix}{entry.name}"


def _sweep(where: int) -> None:
    """Remove temporary files that no living writer can still be writing."""
    # A grace is all that a clock decides here: a young file may belong to a living writer.
    oldest = time.time() - LEFTOVER_AGE_S
    with os.scandir(where) as found:
        names = [entry.name for entry in found if entry.name.startswith(_TEMPORARY)]
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            if os.stat(name, dir_fd=where, follow_symlinks=False).st_mtime < oldest:
                os.unlink(name, dir_fd=where)


def _fail(error: OSError, doing: str) -> NoReturn:
    """Raise what an operating system error means for the caller."""
    raise _meaning(error, f"cannot {doing}: {error.strerror or error}") from error


def _meaning(error: OSError, message: str) -> CuratorError:
    if error.errno in _FULL:
        return TemporaryError(f"{message}: make room and run again, what was published is intact")
    if error.errno in _ESCAPES:
        return RefusedError(
            f"{message}: a store holds no links and no files in place of directories"
        )
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return HostError(f"{message}: run as the directory's owner, or choose another store")
    if error.errno in {errno.EMFILE, errno.ENFILE, errno.EINTR, errno.EAGAIN, errno.ESTALE}:
        return TemporaryError(f"{message}: try again")
    return HostError(message)
