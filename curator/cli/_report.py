"""What a run says when it has ended."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING, Any

from curator import provision
from curator.index import SHORT_KEY, read_index
from curator.matrix import select
from curator.settings import Place
from curator.store import open_store, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from curator.farm import CellResult
    from curator.index import Entry
    from curator.matrix import Matrix
    from curator.settings import Settings

MIB = 1024**2


def summary(results: Sequence[CellResult]) -> str:
    """Return a line per cell, and the failures again at the end, same causes together."""
    if not results:
        return "Nothing to do."
    lines = [_line(result) for result in results]
    causes: dict[str, list[CellResult]] = {}
    for result in results:
        if result.cause:
            causes.setdefault(_without_names(result), []).append(result)
    for cells in causes.values():
        names = ", ".join(result.cell for result in cells)
        lines += ["", f"{cells[0].outcome.value}: {names}", f"  {cells[0].cause}"]
        lines += [f"  log: {result.log}" for result in cells if result.log]
    counts = {result.outcome.value: 0 for result in results}
    for result in results:
        counts[result.outcome.value] += 1
    built = sum(result.built for result in results)
    told = ", ".join(f"{number} {outcome}" for outcome, number in counts.items())
    return "\n".join([*lines, "", f"{told} ({built} built)"])


def _without_names(result: CellResult) -> str:
    return result.cause.replace(result.cell, "")


def _line(result: CellResult) -> str:
    stages = "  ".join(f"{name} {ms / 1000:.0f} s" for name, ms in result.stages_ms.items())
    size = f"{result.size_bytes / MIB:.0f} MiB" if result.size_bytes else ""
    told = (f"{result.outcome.value:<10} {result.cell}", size, stages, _committed(result))
    return "  ".join(part for part in told if part)


def _committed(result: CellResult) -> str:
    """Say which generation holds a cell; of a publish's id as much as `index status` needs."""
    if result.generation is None:
        return ""
    publish = f" (publish {result.publish[:SHORT_KEY]})" if result.publish else ""
    return f"generation {result.generation}{publish}"


def exit_code(results: Sequence[CellResult]) -> int:
    """Return 1 if a cell failed, 75 if some only have to be tried again, else 0."""
    outcomes = {result.outcome.value for result in results}
    if outcomes & {"failed", "refused"}:
        return 1
    return 75 if "deferred" in outcomes else 0


def references(
    matrix: Matrix, settings: Settings, selectors: tuple[str, ...]
) -> tuple[str, dict[str, Any]]:
    """Return what can be pulled, where index and page are, and a command that works here."""
    index = read_index(open_store(settings.store, os.environ))
    chosen = set(select([cell.id for cell in matrix.cells], selectors))
    entries = [entry for entry in index.entries if entry.cell in chosen and entry.is_published]
    place = Place.parse(settings.registry or "")
    pulls = [_pull(entry, place) for entry in entries]
    place_of_index = shown(settings.store)
    data: dict[str, Any] = {
        "references": pulls,
        "index": f"{place_of_index}/v1/index.json",
        "page": f"{place_of_index}/index.html",
    }
    if not pulls:
        return f"Nothing is published.\nindex: {data['index']}", data
    modules = {cell.id: cell.module for cell in matrix.cells}
    data["run"] = _run_line(modules[entries[0].cell], pulls[0], settings)
    listed = "\n".join(f"  {pull}" for pull in pulls)
    where = f"index: {data['index']}\npage:  {data['page']}\nrun:   {data['run']}"
    return f"Published:\n{listed}\n{where}", data


def _pull(entry: Entry, place: Place) -> str:
    return f"{place.repository(entry.repository)}:{entry.tags[0]}@{entry.digest}"


def _run_line(module: str, pull: str, settings: Settings) -> str:
    """Return a `docker run` that works with the engine of this machine, GPU or not."""
    engine = provision.status(settings.cache).engine
    command = engine.command if engine else ("docker",)
    network = ("--network", "host") if engine and engine.kind == "embedded" else ()
    program = f'import {module} as m; print(m.__name__, "imported")'
    return shlex.join((*command, "run", "--rm", *network, pull, "python", "-c", program))
