"""What would be built, tested again or left alone, and why: a pure function of tree and index.

- No clock, no network, no engine: the same tree and index give the same plan, byte for byte.
- The recipe key decides whether an image is built, the probe key whether it is tested again.
- Each planned cell says in one sentence why it is planned; a rejected combination says so too.
- What the registry holds under a staging tag is not asked here: the run asks it once per build.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from curator.oci import Digest, canonical_json, sha256
from curator.recipe import Templates, render
from curator.smoke import Probes

if TYPE_CHECKING:
    from collections.abc import Collection

    from curator.index import Entry, Index
    from curator.matrix import Cell, Matrix, Rejected, Tree
    from curator.recipe import Recipe
    from curator.smoke import Probe


class Action(StrEnum):
    """What a run does with a cell."""

    BUILD = "build"
    SMOKE = "smoke"
    REUSE = "reuse"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedCell:
    """A cell with what is to be done; `previous` is what the index has of it."""

    cell: Cell
    recipe: Recipe
    probe: Probe
    action: Action
    why: str
    previous: Entry | None

    @property
    def symbol(self) -> str:
        """`+` new, `~` changed, `=` unchanged, as terraform prints them."""
        if self.action is Action.REUSE:
            return "="
        return "~" if self.previous else "+"

    def to_json(self) -> dict[str, Any]:
        """Return the plan's line for machines; `recipe` and `probe` are keys."""
        return {
            "id": self.cell.id,
            "action": self.action.value,
            "symbol": self.symbol,
            "why": self.why,
            "recipe": self.recipe.key,
            "probe": self.probe.key,
            "previous": self.previous.digest if self.previous else None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All planned cells and the rejected combinations, each in the matrix's order."""

    cells: tuple[PlannedCell, ...]
    rejected: tuple[Rejected, ...]

    @property
    def work(self) -> tuple[PlannedCell, ...]:
        """The cells for which something is to be done."""
        return tuple(cell for cell in self.cells if cell.action is not Action.REUSE)

    def count(self, symbol: str, action: Action) -> int:
        """Return how many cells have this symbol and action."""
        return sum(1 for cell in self.cells if (cell.symbol, cell.action) == (symbol, action))

    @property
    def summary(self) -> str:
        """The closing line, as terraform's users expect it."""
        again = sum(1 for cell in self.cells if cell.action is Action.SMOKE)
        return (
            f"Plan: {self.count('+', Action.BUILD)} to add, "
            f"{self.count('~', Action.BUILD)} to rebuild, {again} to test again, "
            f"{self.count('=', Action.REUSE)} unchanged."
        )

    def to_json(self) -> dict[str, Any]:
        """Return the whole plan for machines."""
        return {
            "cells": [cell.to_json() for cell in self.cells],
            "rejected": [rejected.to_json() for rejected in self.rejected],
            "summary": self.summary,
        }


def lock_digest(matrix: Matrix, cell: Cell) -> Digest:
    """Return what an entry records of its lock: the hash of the lines that are installed."""
    return sha256(canonical_json([wheel.line for wheel in matrix.locks[cell.id].wheels]))


def make_plan(  # noqa: PLR0913 - the inputs of a plan, all of them, each by name
    matrix: Matrix,
    tree: Tree,
    index: Index,
    *,
    ids: Collection[str],
    installer: str,
    gpus: int = 0,
) -> Plan:
    """Return the plan for the cells named by `ids`.

    `gpus` is how many GPUs the run's own host offers: with one, an image that never met a GPU
    is tested again.
    """
    chosen = frozenset(ids)
    known = {entry.cell: entry for entry in index.entries if entry.is_current}
    templates, probes = Templates(tree), Probes(tree)
    planned = []
    for cell in matrix.cells:
        if cell.id not in chosen:
            continue
        recipe = render(cell, matrix, templates, installer=installer)
        probe = probes.assemble(cell, matrix.locks[cell.id])
        entry = index.find(cell=cell.id, recipe=recipe.key) or known.get(cell.id)
        action, why = _decide(cell, matrix, recipe, probe, entry, gpus=gpus)
        planned.append(
            PlannedCell(
                cell=cell,
                recipe=recipe,
                probe=probe,
                action=action,
                why=why,
                previous=entry,
            )
        )
    rejected = tuple(item for item in matrix.rejected if item.id in chosen)
    return Plan(cells=tuple(planned), rejected=rejected)


def _decide(  # noqa: PLR0913 - as make_plan
    cell: Cell, matrix: Matrix, recipe: Recipe, probe: Probe, entry: Entry | None, *, gpus: int
) -> tuple[Action, str]:
    if entry is None:
        return Action.BUILD, f"new cell ({cell.file}:{cell.line})"
    if entry.recipe != recipe.key:
        return Action.BUILD, _changed(cell, matrix, recipe, entry)
    if all(test.probe != probe.key for test in entry.tests):
        return Action.SMOKE, "probe changed; the image is reused"
    if entry.status.state == "unpublished":
        return Action.SMOKE, f"refused last time: {entry.status.reason}"
    if gpus and (why := _wants_gpu(entry, probe)):
        return Action.SMOKE, f"{why}, and this host has one"
    return Action.REUSE, "unchanged"


def _wants_gpu(entry: Entry, probe: Probe) -> str:
    """Return why an image should meet a GPU; nothing if this probe saw it on one."""
    if entry.channel != "stable":
        return "never tested on a GPU"
    if any(test.suite == "gpu" and test.probe == probe.key for test in entry.tests):
        return ""
    return "probe changed since its test on a GPU"


def _changed(cell: Cell, matrix: Matrix, recipe: Recipe, entry: Entry) -> str:
    base = f"{recipe.base}@{recipe.base_key}"
    if entry.base != base:
        return f"base changed: {_short(entry.base)} -> {_short(base)}"
    if entry.lock != lock_digest(matrix, cell):
        return f"lock changed (matrix/locks/{cell.framework}/{cell.id}.txt)"
    return f"recipe changed (dockerfiles/{cell.framework}/, or what it includes)"


def _short(base: str) -> str:
    name, _, key = base.partition("@")
    return f"{name} {key[:12]}"
