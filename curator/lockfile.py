"""Lock files: what a cell or a base consists of, pinned by hash, as text.

- A cell's lock is a valid `pip install --require-hashes -r` file with a header of ours; each line
  pins the one wheel that is installed on the cell's Python and platform.
- A lock records what it was resolved from (`inputs`), so that a stale one is noticed.
- Parsing and writing are inverse: `dump_lock(parse_lock(text)) == text`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from curator.errors import Diagnostic, InputError
from curator.oci import Digest, canonical_json, parse_digest, sha256

if TYPE_CHECKING:
    from collections.abc import Iterable

_LINE = re.compile(
    r"(?P<name>[a-z0-9]+(?:-[a-z0-9]+)*)==(?P<version>[0-9][0-9a-z.+!]*)"
    r" --hash=sha256:(?P<sha256>[0-9a-f]{64})  # (?P<size>[0-9]{1,15}) bytes"
)
_FIELDS = ("cell", "python", "platform", "cut-off", "uv", "inputs")
_FIRST = "# curator lock 1"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_HINT = "lock files are written by `curator lock`"


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedWheel:
    """One wheel: normalised distribution name, version, hex SHA-256 and size of the file."""

    name: str
    version: str
    sha256: str
    size_bytes: int

    @property
    def line(self) -> str:
        """The requirement line that installs exactly this file."""
        return f"{self.name}=={self.version} --hash=sha256:{self.sha256}"

    @property
    def is_cuda(self) -> bool:
        """Whether this is a part of NVIDIA's CUDA stack, by its name on the package index."""
        return self.name.startswith(("nvidia-", "cuda-"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """Everything that is installed into a cell's image on top of its base, sorted by name."""

    cell: str
    python: str
    platform: str
    cutoff: str
    uv: str
    inputs: Digest
    wheels: tuple[LockedWheel, ...]

    def version_of(self, name: str) -> str | None:
        """Return the locked version of a distribution."""
        return next((wheel.version for wheel in self.wheels if wheel.name == name), None)

    @property
    def runtimes(self) -> tuple[LockedWheel, ...]:
        """The CUDA runtimes in the lock: one in a sound lock, none in a CPU build."""
        return tuple(w for w in self.wheels if w.name.startswith("nvidia-cuda-runtime"))

    @property
    def cuda(self) -> str | None:
        """The CUDA release of the locked runtime, such as `12.9`.

        Source: the runtime's wheel carries the version of the toolkit it is part of.
        """
        if not self.runtimes:
            return None
        return ".".join(self.runtimes[0].version.split(".")[:2])


def inputs_digest(requirements: Iterable[str], python: str, platform: str) -> Digest:
    """Return the identity of what a lock was resolved from."""
    value = {"requirements": list(requirements), "python": python, "platform": platform}
    return sha256(canonical_json(value))


def dump_lock(lock: Lock) -> str:
    """Write a lock."""
    values = (lock.cell, lock.python, lock.platform, lock.cutoff, lock.uv, lock.inputs)
    header = [f"# {name}: {value}" for name, value in zip(_FIELDS, values, strict=True)]
    lines = [f"{wheel.line}  # {wheel.size_bytes} bytes" for wheel in lock.wheels]
    return "\n".join([_FIRST, *header, *lines]) + "\n"


def parse_lock(text: str, *, file: str) -> Lock:
    """Read a lock.

    Raises:
        InputError: with the position of every line that is not as `curator lock` writes it.
    """
    findings: list[Diagnostic] = []
    lines = text.splitlines()
    header = _header(lines, file, findings)
    wheels = [
        wheel
        for number, line in enumerate(lines[len(_FIELDS) + 1 :], len(_FIELDS) + 2)
        if (wheel := _wheel(line, number, file, findings))
    ]
    if not wheels and not findings:
        findings.append(_finding("empty-lock", "no wheel is locked", file, len(lines)))
    names = [wheel.name for wheel in wheels]
    if names != sorted(set(names)) and not findings:
        message = "wheels are not sorted by name, each once"
        findings.append(_finding("unsorted-lock", message, file, len(_FIELDS) + 2))
    if findings:
        raise InputError(*findings)
    return Lock(
        cell=header["cell"],
        python=header["python"],
        platform=header["platform"],
        cutoff=header["cut-off"],
        uv=header["uv"],
        inputs=Digest(header["inputs"]),
        wheels=tuple(wheels),
    )


def _header(lines: list[str], file: str, findings: list[Diagnostic]) -> dict[str, str]:
    found: dict[str, str] = {}
    if not lines or lines[0] != _FIRST:
        findings.append(_finding("lock-header", f"does not begin with {_FIRST!r}", file, 1))
    for number, name in enumerate(_FIELDS, 2):
        line = lines[number - 1] if number <= len(lines) else ""
        prefix = f"# {name}: "
        if not line.startswith(prefix):
            findings.append(_finding("lock-header", f"expected {prefix.strip()!r}", file, number))
        found[name] = line.removeprefix(prefix)
    if not findings and not _DIGEST.fullmatch(found["inputs"]):
        findings.append(_finding("lock-header", "inputs is no digest", file, len(_FIELDS) + 1))
    return found


def _wheel(line: str, number: int, file: str, findings: list[Diagnostic]) -> LockedWheel | None:
    match = _LINE.fullmatch(line)
    if match:
        return LockedWheel(
            name=match["name"],
            version=match["version"],
            sha256=match["sha256"],
            size_bytes=int(match["size"]),
        )
    if "==" not in line:
        code, message = "unpinned", f"not pinned with ==: {line[:80]!r}"
    elif "--hash" not in line:
        code, message = "no-hash", f"no --hash=sha256: on {line[:80]!r}"
    else:
        code, message = "lock-line", f"not a line of a lock: {line[:80]!r}"
    findings.append(_finding(code, message, file, number))
    return None


def _finding(code: str, message: str, file: str, line: int) -> Diagnostic:
    return Diagnostic(code=code, message=message, file=file, line=line, column=1, hint=_HINT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """A combination that the package index cannot serve, and how that is known."""

    id: str
    because: str
    source: str


def dump_rejections(rejections: Iterable[Rejection]) -> str:
    """Write a framework's rejections, sorted by id."""
    value = {
        item.id: {"because": item.because, "source": item.source}
        for item in sorted(rejections, key=lambda item: item.id)
    }
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def parse_rejections(text: str, *, file: str) -> tuple[Rejection, ...]:
    """Read a framework's rejections.

    Raises:
        InputError: the file is not as `curator lock` writes it.
    """
    value = _json_object(text, file)
    found = []
    for name, item in value.items():
        if not _is_reason(item):
            line = next((n for n, t in enumerate(text.splitlines(), 1) if f'"{name}"' in t), 1)
            message = f"{name} is not {{because, source}}, each with some words"
            raise InputError(_finding("rejections", message, file, line))
        found.append(Rejection(id=name, because=item["because"], source=item["source"]))
    return tuple(found)


def _is_reason(item: object) -> bool:
    if not isinstance(item, dict) or sorted(item) != ["because", "source"]:
        return False
    return all(isinstance(text, str) and text.strip() for text in item.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseLock:
    """A root file system made from a distribution's archive: what it holds, and its hash.

    `diff_id` and `size_bytes` are of the uncompressed tar; packages are (name, version), sorted.
    """

    name: str
    platform: str
    packages: tuple[tuple[str, str], ...]
    diff_id: Digest
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLock:
    """A base that is pulled: what its tag meant when it was locked."""

    name: str
    platform: str
    reference: str
    digest: Digest


def dump_base(lock: BaseLock | ImageLock) -> str:
    """Write a base's lock."""
    value: dict[str, Any] = {"name": lock.name, "platform": lock.platform}
    if isinstance(lock, ImageLock):
        value |= {"reference": lock.reference, "digest": lock.digest}
    else:
        value |= {"diff_id": lock.diff_id, "size": lock.size_bytes, "packages": dict(lock.packages)}
    return json.dumps(value, indent=1) + "\n"


def parse_base(text: str, *, file: str) -> BaseLock | ImageLock:
    """Read a base's lock.

    Raises:
        InputError: the file is not as `curator lock --bases` writes it.
    """
    value = _json_object(text, file)
    try:
        name, platform = str(value["name"]), str(value["platform"])
        digest = str(value["digest" if "reference" in value else "diff_id"])
        parse_digest(digest)
        if "reference" in value:
            reference = str(value["reference"])
            return ImageLock(
                name=name, platform=platform, reference=reference, digest=Digest(digest)
            )
        return BaseLock(
            name=name,
            platform=platform,
            packages=tuple(sorted((str(n), str(v)) for n, v in value["packages"].items())),
            diff_id=Digest(digest),
            size_bytes=int(value["size"]),
        )
    except (KeyError, ValueError, OverflowError, TypeError, AttributeError, InputError) as error:
        raise InputError(_finding("base-lock", f"not a base's lock: {error!r}", file, 1)) from error


def _json_object(text: str, file: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        finding = Diagnostic(
            code="json", message=error.msg, file=file, line=error.lineno, column=error.colno
        )
        raise InputError(finding) from error
    except (ValueError, RecursionError) as error:
        # JSON by its grammar, beyond what Python reads: thousands of digits, nested too deep.
        raise InputError(_finding("json", f"cannot be read: {error}", file, 1)) from error
    if not isinstance(value, dict):
        raise InputError(_finding("json", "not a JSON object", file, 1))
    return value
