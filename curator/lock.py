"""Locks, resolved by uv: what a version range means today, written down with hashes.

- The only place that asks the package index what exists; everything else reads the lock files.
- A combination that the index cannot serve is a `Rejection` in uv's own words; a network that
  fails is an error, never a rejection.
- What several combinations ask for alike is resolved once.
- An unchanged resolution leaves its file as it is, with the old cut-off.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.tags import compatible_tags, cpython_tags
from packaging.utils import canonicalize_name, parse_wheel_filename

from curator.errors import CuratorError, RefusedError, TemporaryError
from curator.lockfile import (
    Lock,
    LockedWheel,
    Rejection,
    dump_lock,
    dump_rejections,
    inputs_digest,
    parse_lock,
    parse_rejections,
)
from curator.matrix import candidates

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from curator.matrix import Cell, Tree

GLIBC = (2, 28)
ARCHITECTURES = {"linux/amd64": "x86_64", "linux/arm64": "aarch64"}
HTTP_TIMEOUT_S = 300
RESOLVE_TIMEOUT_S = 1800

# What uv says when the network failed, as opposed to an index that has no such thing.
_NETWORK = re.compile(
    r"failed to fetch|error sending request|connection|timed out|timeout|dns error|tls|certificate"
    r"|50\d |client error|status code 5",
    re.IGNORECASE,
)

# uv calls both a dead end of the resolution; neither says anything about what the index has.
_DENIED = re.compile(r"40[13] (?:Unauthorized|Forbidden)|could not be queried", re.IGNORECASE)
_OFFLINE = re.compile(r"network was disabled|not found in the cache", re.IGNORECASE)

# uv explains a dead end as "Because A and you require B, we can conclude that ...".
_CLAUSE = re.compile(r"\bBecause (.+?),? (?:and you require|and because|we can conclude)")


@dataclass(frozen=True, slots=True)
class _Question:
    """What is asked of the index."""

    requirements: tuple[str, ...]
    python: str
    platform: str


@dataclass(frozen=True, slots=True)
class _Refusal:
    because: str


def lock(tree: Tree, ids: Collection[str], *, cutoff: str, jobs: int) -> dict[str, str | None]:
    """Resolve the named combinations and return the files to write: path -> text, None removes.

    Raises:
        TemporaryError: the index could not be asked.
        RefusedError: the index wants other credentials.
    """
    cells = [cell for cell in candidates(tree) if cell.id in set(ids)]
    questions = {_question(cell) for cell in cells}
    with ThreadPoolExecutor(jobs) as pool:
        answers = dict(
            zip(questions, pool.map(lambda q: _resolve(q, cutoff), questions), strict=True)
        )
    files: dict[str, str | None] = {}
    refused: dict[str, list[Rejection]] = {}
    for cell in cells:
        found = judge(cell, answers[_question(cell)], cutoff)
        if isinstance(found, Rejection):
            refused.setdefault(cell.framework, []).append(found)
            if cell.lock_path in tree:
                files[cell.lock_path] = None
        else:
            files[cell.lock_path] = _text(found, tree.get(cell.lock_path), cell.lock_path)
    for framework in {cell.framework for cell in cells}:
        asked = {cell.id for cell in cells if cell.framework == framework}
        path = f"matrix/locks/{framework}/rejected.json"
        kept = parse_rejections(tree[path], file=path) if path in tree else ()
        merged = [item for item in kept if item.id not in asked] + refused.get(framework, [])
        files[path] = dump_rejections(merged) if merged else None
    return files


def _question(cell: Cell) -> _Question:
    return _Question(cell.requirements, cell.python, str(cell.platform))


def _text(lock: Lock, before: str | None, path: str) -> str:
    """Return the lock's text; the old text where nothing but the time of asking changed."""
    if before is not None:
        try:
            old = parse_lock(before, file=path)
        except CuratorError:
            return dump_lock(lock)
        if replace(old, cutoff=lock.cutoff, uv=lock.uv) == lock:
            return before
    return dump_lock(lock)


def judge(cell: Cell, answer: tuple[LockedWheel, ...] | _Refusal, cutoff: str) -> Lock | Rejection:
    """Return the cell's lock, or why what was resolved is not what the cell names."""
    source = f"package index, as of {cutoff[:10]}"
    if isinstance(answer, _Refusal):
        return Rejection(id=cell.id, because=answer.because, source=source)
    uv_version = version("uv")

    found = Lock(
        cell=cell.id,
        python=cell.python,
        platform=str(cell.platform),
        cutoff=cutoff,
        uv=uv_version,
        inputs=inputs_digest(cell.requirements, cell.python, str(cell.platform)),
        wheels=answer,
    )
    because = _mismatch(cell, found)
    if because is None:
        return found
    pins = ", ".join(f"{wheel.name}=={wheel.version}" for wheel in found.runtimes) or "no CUDA"
    said = f"Requires-Dist of {cell.package} {cell.version} leads to {pins} ({source})"
    return Rejection(id=cell.id, because=because, source=said)


def _mismatch(cell: Cell, found: Lock) -> str | None:
    if cell.recipe == "toolkit":
        return f"{cell.package} brings a CUDA of its own" if found.cuda else None
    if found.cuda is None:
        return f"{cell.package} {cell.version} resolves to a build without CUDA"
    if len(found.runtimes) > 1:
        names = " and ".join(wheel.name for wheel in found.runtimes)
        return f"{cell.package} {cell.version} resolves to two CUDA runtimes: {names}"
    strangers = _other_major(found)
    if strangers:
        return f"{cell.package} {cell.version} mixes CUDA {found.cuda} with {strangers}"
    if found.cuda != cell.cuda:
        return (
            f"no wheel of {cell.package} {cell.version} for CUDA {cell.cuda}: "
            f"the release on the package index is for CUDA {found.cuda}"
        )
    return None


def _other_major(found: Lock) -> str:
    """Return the locked wheels whose names are of another CUDA major, such as `…-cu11` in 12.x."""
    suffixes = ((wheel, re.search(r"-cu(\d+)$", wheel.name)) for wheel in found.wheels)
    wrong = [wheel.name for wheel, suffix in suffixes if suffix and suffix[1] != _major(found)]
    return ", ".join(wrong)


def _major(found: Lock) -> str:
    return (found.cuda or "").partition(".")[0]


def _resolve(question: _Question, cutoff: str) -> tuple[LockedWheel, ...] | _Refusal:
    """Ask uv for the one wheel of each distribution that a question leads to."""
    from uv import find_uv_bin  # noqa: PLC0415

    architecture = ARCHITECTURES[question.platform]
    with tempfile.TemporaryDirectory() as directory:
        asked = Path(directory) / "requirements.in"
        asked.write_text("\n".join(question.requirements) + "\n")
        command = [
            find_uv_bin(), "pip", "compile", "--quiet", "--only-binary", ":all:",
            "--python-version", question.python,
            "--python-platform", f"{architecture}-manylinux_{GLIBC[0]}_{GLIBC[1]}",
            "--exclude-newer", cutoff,
            "--format", "pylock.toml", "--no-header", str(asked),
        ]  # fmt: skip
        result = _run(command, directory)
    if result.returncode:
        return _refusal(question, result.stderr)
    packages = tomllib.loads(result.stdout).get("packages", [])
    wheels = (_wheel(package, question.python, architecture) for package in packages)
    return tuple(sorted(wheels, key=lambda wheel: wheel.name))


def _run(command: Sequence[str], directory: str) -> subprocess.CompletedProcess[str]:
    import os  # noqa: PLC0415

    environment = {**os.environ, "UV_HTTP_TIMEOUT": str(HTTP_TIMEOUT_S), "NO_COLOR": "1"}
    environment.pop("VIRTUAL_ENV", None)
    try:
        return subprocess.run(  # noqa: S603 - our own uv, with arguments we made
            command,
            capture_output=True,
            text=True,
            check=False,
            cwd=directory,
            env=environment,
            timeout=RESOLVE_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise TemporaryError(f"uv gave no answer in {RESOLVE_TIMEOUT_S} s") from error


def _refusal(question: _Question, stderr: str) -> _Refusal:
    text = " ".join(stderr.split())
    asked = " ".join(question.requirements)
    if _DENIED.search(text):
        raise RefusedError(f"the package index refused to be asked for {asked}: {text[-300:]}")
    if _OFFLINE.search(text):
        raise TemporaryError(f"uv may not use the network, asked for {asked}: {text[-300:]}")
    if "No solution found" not in text:
        if _NETWORK.search(text):
            raise TemporaryError(f"the package index could not be asked for {asked}: {text[:300]}")
        raise CuratorError(f"uv could not resolve {asked}: {text[:600]}")
    return _Refusal(_because(text))


def _because(text: str) -> str:
    """Return the decisive clause of uv's explanation, in uv's words, on one line."""
    match = _CLAUSE.search(text)
    reason = match[1] if match else text.partition("cause:")[2].strip() or text
    return reason[:400].rstrip(".,")


def _wheel(package: Mapping[str, Any], python: str, architecture: str) -> LockedWheel:
    """Return the best wheel that a lock lists for an interpreter."""
    rank = {tag: number for number, tag in enumerate(_tags(python, architecture))}

    def place(wheel: Mapping[str, Any]) -> int:
        _, _, _, tags = parse_wheel_filename(str(wheel["url"]).rpartition("/")[2])
        return min((rank[tag] for tag in tags if tag in rank), default=len(rank))

    best = min(package["wheels"], key=place)
    if place(best) == len(rank):
        listed = ", ".join(str(wheel["url"]).rpartition("/")[2] for wheel in package["wheels"])
        message = f"uv chose {package['name']} without a wheel for glibc {GLIBC[0]}.{GLIBC[1]}"
        raise CuratorError(f"{message} and Python {python}: {listed[:300]}")
    return LockedWheel(
        name=canonicalize_name(package["name"]),
        version=str(package["version"]),
        sha256=str(best["hashes"]["sha256"]),
        size_bytes=int(best["size"]),
    )


def _tags(python: str, architecture: str) -> Iterable[Any]:
    """Return the tags an interpreter takes on glibc 2.28, best first."""
    numbers = [int(part) for part in python.split(".")]
    modern = [f"manylinux_2_{minor}_{architecture}" for minor in range(GLIBC[1], 4, -1)]
    legacy = [f"manylinux{year}_{architecture}" for year in ("2014", "2010", "1")]
    platforms = [*modern, *legacy, f"linux_{architecture}"]
    yield from cpython_tags(python_version=numbers, platforms=platforms)
    yield from compatible_tags(
        python_version=numbers, interpreter=f"cp{numbers[0]}{numbers[1]}", platforms=platforms
    )
