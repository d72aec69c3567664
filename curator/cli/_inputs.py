"""Verbs about the farm's own files: validate, matrix, lock."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from curator import settings
from curator.cli._console import Console, Verb, verb, writing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from curator.matrix import Matrix


@click.command(cls=Verb)
@verb
def validate(console: Console) -> None:
    """Check matrix, locks and templates; every finding at once, with its position."""
    from curator import recipe  # noqa: PLC0415

    tree, loaded = console.load()
    installer = settings.installer()
    recipe.check(loaded, tree, installer=installer)
    text = f"{len(loaded.cells)} cells and {len(loaded.rejected)} rejected combinations are fine"
    console.answer(text, {"cells": len(loaded.cells), "rejected": len(loaded.rejected)})


@click.command(cls=Verb)
@click.argument("selectors", nargs=-1)
@click.option("--rejected", is_flag=True, help="Show the combinations that are no cells, and why.")
@click.option("--emit", type=click.Choice(["ids", "github", "bake"]), default="ids")
@verb
def matrix(console: Console, selectors: tuple[str, ...], *, rejected: bool, emit: str) -> None:
    """Print the cells that SELECTORS choose, an id a line.

    A selector is a glob over ids with braces ('{jax,cupy}-*'); several are a union; '!glob'
    takes away.
    """
    from curator.matrix import emit_bake, emit_github, select  # noqa: PLC0415
    from curator.recipe import base_keys  # noqa: PLC0415

    _, loaded = console.load()
    if rejected:
        _print_rejected(console, loaded, selectors)
        return
    chosen = set(select([cell.id for cell in loaded.cells], selectors))
    cells = [cell for cell in loaded.cells if cell.id in chosen]
    if emit == "ids":
        console.answer("\n".join(cell.id for cell in cells), [cell.to_json() for cell in cells])
        return
    if emit == "github":
        jobs = emit_github(cells)
        console.answer(json.dumps(jobs), jobs)
        return
    bake = emit_bake(cells, base_keys(loaded), loaded.farm.epoch)
    console.answer(json.dumps(bake, indent=2), bake)


def _print_rejected(console: Console, loaded: Matrix, selectors: tuple[str, ...]) -> None:
    from curator.matrix import select  # noqa: PLC0415

    chosen = set(select([item.id for item in loaded.rejected], selectors))
    items = [item for item in loaded.rejected if item.id in chosen]
    lines = [f"{item.id}\n    {item.because}\n    source: {item.source}" for item in items]
    console.answer("\n".join(lines), [item.to_json() for item in items])


@click.command(cls=Verb)
@click.argument("selectors", nargs=-1)
@click.option("--bases", is_flag=True, help="Make the bases again and record what they hold.")
@click.option("--cut-off", metavar="TIME", help="Ignore releases after this RFC 3339 time.")
@click.option("-j", "--jobs", type=click.IntRange(1), default=4, show_default=True)
@click.option("--dry-run", is_flag=True, help="Say what would change, write nothing.")
@verb
def lock(  # noqa: PLR0913 - one parameter an option
    console: Console,
    selectors: tuple[str, ...],
    *,
    bases: bool,
    cut_off: str | None,
    jobs: int,
    dry_run: bool,
) -> None:
    """Resolve the chosen combinations into hash-pinned locks, or the bases with --bases."""
    from curator.lock import lock as resolve  # noqa: PLC0415
    from curator.matrix import candidates, select  # noqa: PLC0415

    tree = console.tree()
    if bases:
        from curator.cli._bases import lock_bases  # noqa: PLC0415

        cache = settings.cache_directory(os.environ)
        files: Mapping[str, str | None] = lock_bases(tree, selectors, cache)
    else:
        ids = select([cell.id for cell in candidates(tree)], selectors)
        files = resolve(tree, ids, cutoff=cut_off or _now(), jobs=jobs)
    changed = {path: text for path, text in sorted(files.items()) if tree.get(path) != text}
    if not dry_run:
        write(console.root(), changed)
    console.answer("\n".join(changed) or "nothing changed", {"changed": list(changed)})


def write(root: Path, files: Mapping[str, str | None]) -> None:
    """Write files below a farm's root, each in one step; None removes."""
    for name, text in files.items():
        path = root / name
        with writing(path):
            if text is None:
                path.unlink(missing_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.new")
            temporary.write_text(text)
            temporary.replace(path)


def _now() -> str:
    now = datetime.now(UTC).replace(microsecond=0)
    return now.isoformat().replace("+00:00", "Z")
