"""The matrix: which images there are to be, and why the others are not.

`load` is the one door: text of a farm's files in, a `Matrix` out, or one `InputError` with every
finding at its file, line and column.

- A combination of a framework's axes is excluded by a rule, or rejected because the package
  index cannot serve it, or has a lock and is a cell. There is no fourth way: a combination
  with none of these is an error that says how to lock it.
- Versions are compared as versions, never as text or numbers.
- The order of cells depends on their values alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any, Literal

from packaging.version import InvalidVersion

from curator.errors import Diagnostic, InputError
from curator.matrix._expand import check_rules, expand, version
from curator.matrix._locks import Locks, base_lock_path
from curator.matrix._model import BaseRow, BasesFile, CudaFile, FarmFile, FrameworkFile, shape
from curator.matrix._select import emit_bake, emit_github, select
from curator.matrix._source import Source, read
from curator.matrix._values import (
    Base,
    Cell,
    Cuda,
    FarmConfig,
    Matrix,
    Rejected,
)

if TYPE_CHECKING:
    from curator.matrix._expand import Expansion

__all__ = [
    "Base",
    "Cell",
    "Cuda",
    "FarmConfig",
    "Matrix",
    "Rejected",
    "Tree",
    "base_lock_path",
    "bases",
    "candidates",
    "emit_bake",
    "emit_github",
    "load",
    "select",
]

Tree = Mapping[str, str]

FARM, CUDA, BASES = "matrix/farm.yaml", "matrix/cuda.yaml", "matrix/bases.yaml"
_FACTS = (FARM, CUDA, BASES)
_BASE_NAME = re.compile(r"[a-z0-9]+([.-][a-z0-9]+)*")


class _Reader:
    """Reads a tree's files, gathering findings instead of stopping at the first."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.findings: list[Diagnostic] = []
        self.cuda: dict[str, Cuda] = {}
        self.bases: dict[str, Base] = {}
        self.farm: FarmConfig | None = None
        self.expansions: list[Expansion] = []

    def read(self) -> None:
        """Read the facts, then each framework."""
        self._farm()
        self._cuda()
        self._bases(self.farm.epoch if self.farm else 0)
        for name in sorted(self.tree):
            if _is_framework(name):
                self._framework(name)

    def check(self) -> None:
        """Stop here if anything is wrong."""
        if self.findings:
            raise InputError(*dict.fromkeys(self.findings))

    def _source(self, name: str) -> Source | None:
        if name not in self.tree:
            message = "the file is missing"
            self.findings.append(Diagnostic(code="missing-file", message=message, file=name))
            return None
        return read(self.tree[name], name)

    def _farm(self) -> None:
        source = self._source(FARM)
        if source is None:
            return
        row = shape(source, FarmFile)
        self.findings += source.findings
        if row is not None:
            self.farm = FarmConfig(
                registry=row.registry,
                store=row.store,
                jobs=row.jobs,
                build_timeout_s=row.timeouts.build,
                smoke_timeout_s=row.timeouts.smoke,
                registry_timeout_s=row.timeouts.registry,
                alone_bytes=row.layers.alone_mib * 1024**2,
                evidence_days=row.evidence.max_age_days,
                epoch=row.epoch,
                demo=tuple(row.demo),
            )

    def _cuda(self) -> None:
        source = self._source(CUDA)
        if source is None:
            return
        rows = shape(source, CudaFile)
        for name, row in rows.releases.items() if rows else ():
            try:
                version(name)
            except InvalidVersion:
                message = f"{name!r} is no CUDA release such as 12.9"
                source.refuse("bad-value", message, ("releases", name))
            self.cuda[name] = Cuda(version=name, **row.model_dump())
        self.findings += source.findings

    def _bases(self, epoch: int) -> None:
        source = self._source(BASES)
        if source is None:
            return
        rows = shape(source, BasesFile)
        if rows is not None:
            order = _order(rows.bases, source)
            merged: dict[str, dict[str, Any]] = {}
            for name in order:
                row = rows.bases[name].model_dump(exclude_none=True)
                parent = row.pop("extends", None)
                merged[name] = {**merged.get(parent or "", {}), **row}
                base = _base(name, merged[name], epoch, source)
                if base is not None:
                    self.bases[name] = base
        self.findings += source.findings

    def _framework(self, name: str) -> None:
        source = self._source(name)
        assert source is not None  # noqa: S101 - the name was taken from the tree
        framework = shape(source, FrameworkFile)
        if framework is not None:
            check_rules(framework, source)
            self._cross_check(framework, source)
            if not source.findings:
                self.expansions.append(expand(framework, source, self.cuda))
        self.findings += source.findings

    def _cross_check(self, framework: FrameworkFile, source: Source) -> None:
        stem = source.file.removeprefix("matrix/").removesuffix(".yaml")
        if framework.framework != stem:
            message = f"the file of framework {framework.framework!r} is named {stem}.yaml"
            hint = f"name it {framework.framework}.yaml"
            source.refuse("file-name", message, ("framework",), hint=hint)
        for number, cuda in enumerate(framework.axes.cuda):
            if cuda not in self.cuda:
                hint = f"add it to {CUDA}, with its source"
                here = ("axes", "cuda", number)
                source.refuse("unknown-cuda", f"no facts about CUDA {cuda}", here, hint=hint)
        for number, python in enumerate(framework.axes.python):
            if python not in framework.bases:
                message = f"no base is named for Python {python}"
                source.refuse("no-base", message, ("axes", "python", number))
        for python, base in framework.bases.items():
            self._check_base(python, base, source)
        for file in ("Dockerfile.j2", "probe.py"):
            wanted = f"dockerfiles/{framework.framework}/{file}"
            if wanted not in self.tree:
                source.refuse("missing-file", f"{wanted} is missing", ("framework",))

    def _check_base(self, python: str, name: str, source: Source) -> None:
        base = self.bases.get(name)
        path = ("bases", python)
        if base is None:
            known = ", ".join(sorted(self.bases)) or "none"
            source.refuse("unknown-base", f"unknown base {name!r}", path, hint=f"known: {known}")
        elif base.python != python:
            message = f"base {name} has Python {base.python}, not {python}"
            source.refuse("wrong-base", message, path)


def _is_framework(name: str) -> bool:
    return (
        name.startswith("matrix/")
        and name.count("/") == 1
        and name.endswith((".yaml", ".yml"))
        and name not in _FACTS
    )


def _order(rows: Mapping[str, BaseRow], source: Source) -> list[str]:
    """Return the bases, each after the one it extends."""
    graph: dict[str, list[str]] = {}
    for name, row in rows.items():
        if row.extends is not None and row.extends not in rows:
            message = f"{name!r} extends an unknown base {row.extends!r}"
            source.refuse("unknown-base", message, ("bases", name, "extends"))
        graph[name] = [row.extends] if row.extends and row.extends in rows else []
    try:
        return list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        cycle = " -> ".join(reversed(error.args[1]))
        path = ("bases", str(error.args[1][0]), "extends")
        source.refuse("cycle", f"bases extend each other in a circle: {cycle}", path)
        return []


def _base(name: str, row: dict[str, Any], epoch: int, source: Source) -> Base | None:
    """Return the base, or None for one that only others extend."""
    if "suite" not in row and "reference" not in row:
        return None
    kind: Literal["mmdebstrap", "image"] = "mmdebstrap" if "suite" in row else "image"
    if ("suite" in row and "reference" in row) or row.get("kind", kind) != kind:
        message = f"base {name!r} has a suite and a reference, or another kind than its fields say"
        source.refuse("base-kind", message, ("bases", name), hint="keep one")
        return None
    if not _BASE_NAME.fullmatch(name):
        message = f"{name!r} is no name for a base such as debian-12"
        source.findings.append(source.finding("base-name", message, ("bases", name), key=True))
        return None
    if "python" not in row:
        source.refuse("missing-key", f"base {name!r} does not say its python", ("bases", name))
        return None
    return Base(
        name=name,
        kind=kind,
        python=row["python"],
        suite=row.get("suite"),
        include=tuple(row.get("include", ())),
        exclude_paths=tuple(row.get("exclude_paths", ())),
        keep_paths=tuple(row.get("keep_paths", ())),
        epoch=row.get("epoch", epoch),
        reference=row.get("reference"),
    )


def candidates(tree: Tree) -> tuple[Cell, ...]:
    """Return every combination that no rule excludes, locked or not: what can be locked.

    Raises:
        InputError: with every finding in the files, locks aside.
    """
    reader = _Reader(tree)
    reader.read()
    reader.check()
    return tuple(cell for found in reader.expansions for cell in found.cells)


def bases(tree: Tree) -> Mapping[str, Base]:
    """Return the bases by name, locked or not.

    Raises:
        InputError: with every finding in the files, locks aside.
    """
    reader = _Reader(tree)
    reader.read()
    reader.check()
    return reader.bases


def load(tree: Tree) -> Matrix:
    """Return the checked matrix of a farm's files.

    Raises:
        InputError: with every finding in the files, locks included.
    """
    reader = _Reader(tree)
    reader.read()
    reader.check()
    locked = Locks(tree, reader.expansions, reader.bases)
    locked.read()
    reader.findings += locked.findings
    reader.check()
    assert reader.farm is not None  # noqa: S101 - check() raised otherwise
    return Matrix(
        cells=tuple(locked.cells),
        rejected=tuple(locked.rejected),
        bases=reader.bases,
        cuda=reader.cuda,
        farm=reader.farm,
        locks=locked.locks,
        base_locks=locked.bases,
    )
