"""Where things are on this machine, and what is configured.

Configuration, first wins: a flag, then `CURATOR_*` in the environment, then `matrix/farm.yaml`,
then what is built in (an embedded registry and a local directory). Docker's own login and
context are used; there is no credential store of ours.

- A relative path is one of the directory where we stand; in `matrix/farm.yaml`, of the farm's.
- `read_tree` is the only reader of a farm's files: everything behind it is pure.
- A farm is a directory with `matrix/farm.yaml`; it is looked for upwards, as git does.
"""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from curator.errors import Diagnostic, HostError, InputError
from curator.oci import Reference, hex_of, parse_registry, sha256

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from curator.matrix import FarmConfig, Tree

log = logging.getLogger(__name__)

MAX_FILE_BYTES = 1024 * 1024
SECTIONS = ("matrix", "dockerfiles")
MARKER = "matrix/farm.yaml"
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything a verb needs to know of the machine; paths are absolute.

    `registry` is `host[:port][/prefix]`, or None for the embedded one; `store` is a directory or
    an address (`curator.store.open_store`).
    """

    root: Path
    cache: Path
    store: str
    registry: str | None
    jobs: int

    @property
    def logs(self) -> Path:
        """Where the log of each cell's build goes."""
        return self.cache / "logs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrides:
    """What flags said; None was not said."""

    registry: str | None = None
    store: str | None = None
    jobs: int | None = None


def cache_directory(environ: Mapping[str, str]) -> Path:
    """Return where downloads, engine state and logs are kept for this user.

    Raises:
        HostError: nothing says where, and the user has no home.
    """
    if chosen := environ.get("CURATOR_CACHE"):
        return Path(chosen).absolute()
    if home := environ.get("XDG_CACHE_HOME"):
        return Path(home).absolute() / "curator"
    try:
        return Path(environ.get("HOME") or Path.home()).absolute() / ".cache/curator"
    except RuntimeError as error:  # a user without an entry in passwd, as in containers
        raise HostError("this user has no home: set CURATOR_CACHE to a directory") from error


def reader_cache(location: str) -> Path | None:
    """Return where what is read of an index is remembered; None where this user has no home.

    The query of an address is no part of that: a new SAS does not make it another index.
    """
    try:
        cache = cache_directory(os.environ)
    except HostError as error:
        log.warning("%s: what is read of an index is forgotten when this ends", error)
        return None
    return cache / "index" / hex_of(sha256(_place(location).encode()))[:16]


def _place(location: str) -> str:
    """Return what makes a location another one: scheme and host in lower case, and the path."""
    if not location.lower().startswith(("https:", "http:")):
        return location.rstrip("/")
    try:
        parts = urlsplit(location)
    except ValueError:  # whoever opens it says what is wrong
        return location
    usual = ":443" if parts.scheme == "https" else ":80"
    host = parts.netloc.lower().removesuffix(usual)
    return f"{parts.scheme}://{host}{parts.path.rstrip('/')}"


def find_root(start: Path) -> Path:
    """Return the farm directory at or above `start`.

    Raises:
        InputError: there is none.
    """
    start = start.absolute()
    for directory in (start, *start.parents):
        if (directory / MARKER).is_file():
            return directory
    message = f"no {MARKER} in {start} or above it"
    hint = "run in a farm's directory, or name it with -C DIR"
    raise InputError(Diagnostic(code="no-farm", message=message, hint=hint))


def resolve(
    root: Path, farm: FarmConfig, environ: Mapping[str, str], overrides: Overrides
) -> Settings:
    """Return the settings in force."""
    cache = cache_directory(environ)
    said = overrides.store or environ.get("CURATOR_STORE")
    store, base = (said, Path.cwd()) if said else (farm.store, root)
    return Settings(
        root=root,
        cache=cache,
        store=located(store, base) if store else str(cache / "store"),
        registry=overrides.registry or environ.get("CURATOR_REGISTRY") or farm.registry,
        jobs=overrides.jobs or _jobs(environ) or farm.jobs,
    )


def located(store: str, base: Path) -> str:
    """Return a store's place: an address as it is, a directory as an absolute path."""
    return store if ADDRESS.match(store) else str((base / store).absolute())


def _jobs(environ: Mapping[str, str]) -> int | None:
    text = environ.get("CURATOR_JOBS")
    if not text:
        return None
    if not text.isdecimal() or int(text) < 1:
        message = f"CURATOR_JOBS is {text!r}, not a number of builds from 1 up"
        raise InputError(Diagnostic(code="setting", message=message))
    return int(text)


def installer() -> str:
    """Return what installs wheels into images; it writes bytes there, so keys contain it."""
    from importlib.metadata import version  # noqa: PLC0415 - 20 ms

    return f"uv {version('uv')}"


def read_tree(root: Path) -> Tree:
    """Read every file of a farm: relative POSIX path -> text.

    Raises:
        InputError: a file is no UTF-8 text, is too big, or is a link out of the farm.
    """
    tree: dict[str, str] = {}
    findings: list[Diagnostic] = []
    for path in _files(root):
        name = path.relative_to(root).as_posix()
        try:
            tree[name] = _read(path, root)
        except _UnreadableError as error:
            finding = Diagnostic(
                code="file", message=str(error), file=name, line=error.line, column=1
            )
            findings.append(finding)
    if findings:
        raise InputError(*findings)
    return tree


def _files(root: Path) -> Iterator[Path]:
    for section in SECTIONS:
        for directory, subdirectories, names in os.walk(root / section):
            subdirectories[:] = sorted(d for d in subdirectories if d != "__pycache__")
            yield from (Path(directory, name) for name in sorted(names) if name[0] != ".")


class _UnreadableError(Exception):
    """A file that cannot be part of a farm, and the line where that shows."""

    def __init__(self, message: str, line: int = 1) -> None:
        super().__init__(message)
        self.line = line


def _read(path: Path, root: Path) -> str:
    if path.is_symlink() and not path.resolve().is_relative_to(root.resolve()):
        raise _UnreadableError(f"a link out of the farm, to {path.resolve()}: copy the file")
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise _UnreadableError(f"cannot be read: {error.strerror}") from error
    if len(data) > MAX_FILE_BYTES:
        size = path.stat().st_size
        raise _UnreadableError(f"{size} bytes, more than the {MAX_FILE_BYTES} a file here may have")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        message = f"not UTF-8 at byte {error.start}: save it as UTF-8"
        raise _UnreadableError(message, line) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A registry and the prefix of every repository that a farm owns there."""

    registry: str
    prefix: str = ""

    @classmethod
    def parse(cls, text: str) -> Place:
        """Read `host[:port][/prefix]`."""
        registry, prefix = parse_registry(text)
        return cls(registry=registry, prefix=prefix)

    def __str__(self) -> str:
        return f"{self.registry}/{self.prefix}" if self.prefix else self.registry

    def repository(self, name: str) -> Reference:
        """Return one of the farm's repositories, such as `candidate/cupy`."""
        path = f"{self.prefix}/{name}" if self.prefix else name
        return Reference(registry=self.registry, repository=path)
