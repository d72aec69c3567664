"""Each combination held against the lock files: is it a cell, and if not, why not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from curator.errors import Diagnostic, InputError
from curator.lockfile import (
    ImageLock,
    inputs_digest,
    parse_base,
    parse_lock,
    parse_rejections,
)
from curator.matrix._values import Rejected

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from curator.lockfile import BaseLock, Lock
    from curator.matrix._expand import Expansion
    from curator.matrix._values import Base, Cell

BASES = "matrix/bases.yaml"


class Locks:
    """Holds each combination against the lock files."""

    def __init__(
        self, tree: Mapping[str, str], expansions: Sequence[Expansion], bases: Mapping[str, Base]
    ) -> None:
        self.tree = tree
        self.expansions = expansions
        self.known_bases = bases
        self.findings: list[Diagnostic] = []
        self.cells: list[Cell] = []
        self.rejected: list[Rejected] = []
        self.locks: dict[str, Lock] = {}
        self.bases: dict[tuple[str, str], BaseLock | ImageLock] = {}
        self.unseen = {name for name in tree if name.startswith("matrix/locks/")}

    def read(self) -> None:
        """Decide for each combination whether it is a cell."""
        for found in self.expansions:
            self.rejected += found.rejected
            if found.cells:
                self._framework(found.cells)
        every = (name for found in self.expansions for name in found.order)
        place = {name: number for number, name in enumerate(every)}
        self.rejected.sort(key=lambda item: place[item.id])
        self._orphans()

    def _framework(self, cells: list[Cell]) -> None:
        file = f"matrix/locks/{cells[0].framework}/rejected.json"
        refused: dict[str, tuple[str, str]] = {}
        if file in self.tree:
            self.unseen.discard(file)
            try:
                found = parse_rejections(self.tree[file], file=file)
                refused = {item.id: (item.because, item.source) for item in found}
            except InputError as error:
                self.findings += error.diagnostics
        for cell in cells:
            if cell.lock_path in self.tree:
                self._cell(cell)
            elif cell.id in refused:
                self.rejected.append(_rejected(cell, *refused.pop(cell.id)))
            else:
                self._refuse("no-lock", f"no lock for {cell.id}", cell.file, cell.line, cell)
        for name in refused:
            message = f"{name} has a lock, or is no combination of the axes"
            hint = "remove the entry, or its lock"
            finding = Diagnostic(
                code="orphan", message=message, file=file, line=1, column=1, hint=hint
            )
            self.findings.append(finding)

    def _cell(self, cell: Cell) -> None:
        file = cell.lock_path
        self.unseen.discard(file)
        try:
            lock = parse_lock(self.tree[file], file=file)
        except InputError as error:
            self.findings += error.diagnostics
            return
        wrong = _misfit(cell, lock)
        if wrong:
            self._refuse("stale-lock", wrong, file, 2, cell)
            return
        self.locks[cell.id] = lock
        self.cells.append(cell)
        self._base(cell)

    def _base(self, cell: Cell) -> None:
        platform = str(cell.platform)
        if (cell.base, platform) in self.bases:
            return
        file = base_lock_path(cell.base, platform)
        if file not in self.tree:
            finding = Diagnostic(
                code="no-lock",
                message=f"no lock for base {cell.base} on {platform}",
                file=BASES,
                hint=f"run `curator lock --bases {cell.base}`",
            )
            self.findings.append(finding)
            return
        try:
            lock = parse_base(self.tree[file], file=file)
        except InputError as error:
            self.findings += error.diagnostics
            return
        base = self.known_bases[cell.base]
        pulled = isinstance(lock, ImageLock)
        if (lock.name, lock.platform, pulled) != (base.name, platform, base.kind == "image"):
            kind = "image" if pulled else "made"
            finding = Diagnostic(
                code="stale-lock",
                message=f"the lock is of {lock.name} on {lock.platform} ({kind})",
                file=file,
                line=1,
                column=1,
                hint=f"run `curator lock --bases {cell.base}`",
            )
            self.findings.append(finding)
        self.bases[cell.base, platform] = lock

    def _orphans(self) -> None:
        for file in sorted(self.unseen):
            if file.startswith("matrix/locks/bases/"):
                continue
            message = "the lock belongs to no combination of the matrix"
            finding = Diagnostic(code="orphan", message=message, file=file, hint="remove it")
            self.findings.append(finding)

    def _refuse(self, code: str, message: str, file: str, line: int, cell: Cell) -> None:
        hint = f"run `curator lock {cell.id}`"
        finding = Diagnostic(code=code, message=message, file=file, line=line, column=1, hint=hint)
        self.findings.append(finding)


def base_lock_path(base: str, platform: str) -> str:
    """Return where a base's lock is in a farm's tree."""
    return f"matrix/locks/bases/{base}-{platform.replace('/', '-')}.json"


def _misfit(cell: Cell, lock: Lock) -> str | None:
    """Return why a lock is not this cell's, if it is not."""
    platform, found = str(cell.platform), lock.version_of(cell.package)
    runtimes = " and ".join(f"{wheel.name} {wheel.version}" for wheel in lock.runtimes)
    cuda = cell.cuda if cell.recipe == "wheels" else None
    inputs = inputs_digest(cell.requirements, cell.python, platform)
    checks = (
        (lock.cell == cell.id, f"the lock is of {lock.cell}, not of {cell.id}"),
        (
            (lock.python, lock.platform) == (cell.python, platform),
            f"the lock is for Python {lock.python} on {lock.platform}",
        ),
        (
            lock.inputs == inputs,
            "the lock was resolved from other requirements than the matrix has now",
        ),
        (len(lock.runtimes) <= 1, f"the lock holds two CUDA runtimes, {runtimes}"),
        (lock.cuda == cuda, f"the lock holds CUDA {lock.cuda}, not {cuda}"),
        (found == cell.version, f"the lock holds {cell.package} {found}, not {cell.version}"),
    )
    return next((message for fits, message in checks if not fits), None)


def _rejected(cell: Cell, because: str, source: str) -> Rejected:
    return Rejected(
        id=cell.id,
        framework=cell.framework,
        version=cell.version,
        cuda=cell.cuda,
        python=cell.python,
        platform=cell.platform,
        because=because,
        source=source,
    )
