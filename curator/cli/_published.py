"""Verbs about what is published."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from curator.cli._console import Console, verb
from curator.settings import Overrides, resolve

if TYPE_CHECKING:
    from curator.index import Entry


@click.group()
def index() -> None:
    """Look at the published documents."""


@index.command()
@click.argument("selectors", nargs=-1)
@click.option("--store", metavar="DIR", help="Where the index is.")
@verb
def show(console: Console, selectors: tuple[str, ...], *, store: str | None) -> None:
    """Print the entries that SELECTORS choose: every document is checked against its hash."""
    from pathlib import Path  # noqa: PLC0415

    from curator.index import read_index  # noqa: PLC0415
    from curator.matrix import select  # noqa: PLC0415
    from curator.store import DirectoryStore  # noqa: PLC0415

    _, loaded = console.load()
    overrides = Overrides(store=Path(store) if store else None)
    settings = resolve(console.root(), loaded.farm, os.environ, overrides)
    found = read_index(DirectoryStore(settings.store))
    chosen = set(select([entry.cell for entry in found.entries], selectors))
    entries = [entry for entry in found.entries if entry.cell in chosen]
    text = "\n".join(_lines(entry) for entry in entries)
    console.answer(text, {"entries": [entry.to_json() for entry in entries]})


def _lines(entry: Entry) -> str:
    reason = f" ({entry.status.reason})" if entry.status.reason else ""
    return f"{entry.id}  {entry.status.state}{reason}\n    {entry.repository}@{entry.digest}"
