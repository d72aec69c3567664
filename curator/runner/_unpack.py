"""Layers of an image, unpacked one over the other below a directory.

- Nothing is read or written outside: paths are walked by open directories, from the root down.
  Symbolic links on the way lead where they would inside the image; a name that is absolute, holds
  `..`, or a link that climbs above the root is refused.
- A whiteout hides what lower layers hold, never what its own layer does.
- Modes, owners and times are kept (Python trusts its compiled files by their source's time).
  Device files are left out, for a container gets its own `/dev`; so are extended attributes.

Source: OCI image specification, layer.md
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tarfile
from typing import IO, TYPE_CHECKING, Self

from curator.errors import IntegrityError
from curator.runner._streams import Forward, decompressed, reading

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from curator.runner._layout import Image, Layer, Layout

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
AUFS = ".wh..wh."
MAX_ENTRIES = 1_000_000
MAX_DEPTH = 128
MAX_LINKS = 40

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def unpack(layout: Layout, image: Image, root: Path, cancelled: threading.Event) -> None:
    """Unpack an image's layers into the empty directory `root`; ends early if `cancelled`.

    Raises:
        IntegrityError: a layer's bytes are not what was promised, or want to leave the root.
        HostError: there is no room.
    """
    for layer in image.layers:
        with layout.blob(layer.blob) as source, Tree(root) as tree:
            _unpack_layer(layer, source, tree, cancelled)


def _unpack_layer(layer: Layer, source: IO[bytes], tree: Tree, cancelled: threading.Event) -> None:
    with reading(f"layer {layer.blob.digest}"):
        stream = Forward(decompressed(source, layer.blob.media_type))
        for member in _members(stream):
            if cancelled.is_set():
                return
            tree.add(member, stream)
        if (digest := stream.digest()) != layer.diff_id:
            raise IntegrityError(
                f"layer {layer.blob.digest} holds {digest}, its image says {layer.diff_id}"
            )


def _members(stream: Forward) -> Iterator[tarfile.TarInfo]:
    """Give an archive's members; none is kept in memory."""
    archive = tarfile.TarFile(
        fileobj=stream,  # type: ignore[arg-type]
        encoding="utf-8",
        errors="surrogateescape",
    )
    count = 0
    while (member := archive.next()) is not None:
        archive.members = []  # type: ignore[attr-defined]
        archive.pax_headers = {}
        count += 1
        if count > MAX_ENTRIES:
            raise IntegrityError(f"it has more than {MAX_ENTRIES} entries")
        yield member
    # `tarfile` takes a header that it cannot read for the end.
    if stream.last.strip(b"\0"):
        raise IntegrityError("it goes on with what is no header")


class Tree:
    """A root file system while one layer is added to it."""

    def __init__(self, root: Path) -> None:
        self._root = os.open(root, _DIRECTORY)
        self._added: set[str] = set()
        self._parent: tuple[Sequence[str], int, str] | None = None
        self._moved = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._parent is not None:
            os.close(self._parent[1])
        os.close(self._root)

    def add(self, member: tarfile.TarInfo, stream: Forward) -> None:
        """Add what a member describes; `stream` stands at its contents."""
        parts = _parts(member.name)
        if not parts:
            _give(self._root, member)
            return
        *above, name = parts
        whiteout = name.startswith(WHITEOUT)
        try:
            parent, path = self._walk_to(above, create=not whiteout)
        except FileNotFoundError:
            return  # nothing is there to be hidden
        if whiteout:
            self._hide_by(name, parent, path)
        else:
            self._place(member, stream, parent, name, f"{path}/{name}")

    def read(self, name: str, limit: int) -> bytes:
        """Return the beginning of a file, links followed inside; nothing if there is none."""
        *above, last = _parts(name)
        try:
            for _ in range(MAX_LINKS):
                parent, _path = self._walk_to(above, create=False)
                try:
                    target = os.readlink(last, dir_fd=parent)
                except OSError:
                    break
                start = [] if target.startswith("/") else above
                *above, last = [*start, *(part for part in target.split("/") if part)]
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            with os.fdopen(os.open(last, flags, dir_fd=parent), "rb") as file:
                return file.read(limit)
        except (OSError, ValueError):
            return b""

    def make(self, name: str) -> None:
        """Make a directory and those above it, unless it is there."""
        self._walk_to(_parts(name.strip("/")), create=True)

    def _place(
        self, member: tarfile.TarInfo, stream: Forward, parent: int, name: str, path: str
    ) -> None:
        if member.ischr() or member.isblk():
            return
        existing = _kind(parent, name)
        if existing is not None and not (stat.S_ISDIR(existing) and member.isdir()):
            self._remove(parent, name, existing)
            existing = None
        self._added.add(path)
        if member.isdir():
            if existing is None:
                os.mkdir(name, dir_fd=parent)
            with _opened(name, parent) as directory:
                _give(directory, member)
        elif member.issym():
            self._forget()
            os.symlink(member.linkname, name, dir_fd=parent)
            os.chown(name, member.uid, member.gid, dir_fd=parent, follow_symlinks=False)
            os.utime(name, ns=_time_ns(member), dir_fd=parent, follow_symlinks=False)
        elif member.islnk():
            self._link(member, parent, name)
        elif member.isfifo():
            os.mkfifo(name, member.mode & 0o777, dir_fd=parent)
            os.chown(name, member.uid, member.gid, dir_fd=parent, follow_symlinks=False)
        elif member.isreg() and not member.issparse():
            _write(member, stream, parent, name)
        else:
            raise IntegrityError(f"{member.name} is of a kind that layers do not hold")

    def _link(self, member: tarfile.TarInfo, parent: int, name: str) -> None:
        *above, last = _parts(member.linkname) or [""]
        kept = os.dup(parent)
        try:
            source, _ = self._walk_to(above, create=False)
            mode = _kind(source, last)
            if mode is None or stat.S_ISDIR(mode):
                raise IntegrityError(f"{member.name} is a link to {member.linkname}, no file")
            os.link(last, name, src_dir_fd=source, dst_dir_fd=kept, follow_symlinks=False)
        finally:
            os.close(kept)

    def _hide_by(self, name: str, parent: int, path: str) -> None:
        """Apply a whiteout file's name to the directory that it is in."""
        if name == OPAQUE:
            for entry in os.listdir(parent):
                self._hide(parent, entry, f"{path}/{entry}")
        elif not name.startswith(AUFS):
            hidden = name.removeprefix(WHITEOUT)
            if hidden in {"", ".", ".."}:
                raise IntegrityError(f"{name} hides nothing that may be hidden")
            self._hide(parent, hidden, f"{path}/{hidden}")

    def _hide(self, parent: int, name: str, path: str) -> None:
        """Remove what lower layers put there, but nothing that this layer did."""
        mode = _kind(parent, name)
        if mode is None:
            return
        if not stat.S_ISDIR(mode):
            if path not in self._added:
                self._remove(parent, name, mode)
            return
        with _opened(name, parent) as directory:
            for entry in os.listdir(directory):  # noqa: PTH208 - of a descriptor
                self._hide(directory, entry, f"{path}/{entry}")
        if path not in self._added:
            self._forget()
            try:
                os.rmdir(name, dir_fd=parent)
            except OSError as error:
                if error.errno != errno.ENOTEMPTY:
                    raise

    def _remove(self, parent: int, name: str, mode: int) -> None:
        if stat.S_ISDIR(mode):
            self._forget()
            shutil.rmtree(name, dir_fd=parent)
            return
        if stat.S_ISLNK(mode):
            self._forget()
        os.unlink(name, dir_fd=parent)

    def _forget(self) -> None:
        """Walk the next path anew: directories may not be where they were."""
        self._moved = True

    def _walk_to(self, parts: Sequence[str], *, create: bool) -> tuple[int, str]:
        """Return an open directory, valid until the next walk, and its path without links.

        Raises:
            FileNotFoundError: it is not there, and was not to be created.
        """
        if self._parent is None or self._moved or self._parent[0] != parts:
            directory, path = self._walk(parts, create=create)
            if self._parent is not None:
                os.close(self._parent[1])
            self._parent, self._moved = (list(parts), directory, path), False
        return self._parent[1], self._parent[2]

    def _walk(self, parts: Sequence[str], *, create: bool) -> tuple[int, str]:
        opened, names, links = [os.dup(self._root)], [""], 0
        left = list(reversed(parts))
        try:
            while left:
                part = left.pop()
                if part == "..":
                    if len(opened) == 1:
                        raise IntegrityError(f"{'/'.join(parts)} leads out of the image")
                    os.close(opened.pop())
                    names.pop()
                    continue
                target = _enter(part, opened, create=create)
                if target is None:
                    names.append(part)
                else:
                    links += 1
                    left += [part for part in reversed(target.split("/")) if part not in {"", "."}]
                    if target.startswith("/"):
                        while len(opened) > 1:
                            os.close(opened.pop())
                        names = [""]
                if links > MAX_LINKS or len(opened) > MAX_DEPTH:
                    raise IntegrityError(f"{'/'.join(parts)[:200]} is too deep")
            return opened.pop(), "/".join(names)
        finally:
            for descriptor in opened:
                os.close(descriptor)


def _enter(part: str, opened: list[int], *, create: bool) -> str | None:
    """Open a directory below the last one; return a symbolic link's target instead."""
    try:
        opened.append(os.open(part, _DIRECTORY, dir_fd=opened[-1]))
    except FileNotFoundError:
        if not create:
            raise
        os.mkdir(part, dir_fd=opened[-1])
        opened.append(os.open(part, _DIRECTORY, dir_fd=opened[-1]))
        os.fchmod(opened[-1], 0o755)
    except OSError as error:
        if error.errno not in {errno.ELOOP, errno.ENOTDIR}:
            raise
        return os.readlink(part, dir_fd=opened[-1])
    return None


def _parts(name: str) -> list[str]:
    """Return a member's path from the root, as names.

    Raises:
        IntegrityError: it wants to leave the root.
    """
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if name.startswith("/") or ".." in parts:
        raise IntegrityError(f"{name[:200]!r} leads out of the image")
    return parts


def _write(member: tarfile.TarInfo, stream: Forward, parent: int, name: str) -> None:
    descriptor = os.open(name, _NEW_FILE, 0o600, dir_fd=parent)
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        stream.copy(member.size, lambda chunk: _write_all(descriptor, chunk))
        _give(file.fileno(), member)
        os.utime(file.fileno(), ns=_time_ns(member))


def _time_ns(member: tarfile.TarInfo) -> tuple[int, int]:
    time_ns = int(member.mtime * 1_000_000_000)
    return time_ns, time_ns


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _give(descriptor: int, member: tarfile.TarInfo) -> None:
    """Set owner, then mode: a new owner takes set-user-id away."""
    os.fchown(descriptor, member.uid, member.gid)
    os.fchmod(descriptor, member.mode & 0o7777)


def _kind(parent: int, name: str) -> int | None:
    try:
        return os.lstat(name, dir_fd=parent).st_mode
    except FileNotFoundError:
        return None


@contextlib.contextmanager
def _opened(name: str, parent: int) -> Iterator[int]:
    descriptor = os.open(name, _DIRECTORY, dir_fd=parent)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
