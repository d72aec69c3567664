"""Verbs about the engine, registry and emulated cloud of this machine."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from curator.cli._console import Console, Group, verb
from curator.settings import cache_directory

if TYPE_CHECKING:
    from curator.provision import Status


@click.group(cls=Group)
def engine() -> None:
    """Start, stop or look at the docker engine and registry that the farm uses here."""


@engine.command()
@click.option("--azurite", is_flag=True, help="Start an emulated Azure account for a store, too.")
@verb
def up(console: Console, *, azurite: bool) -> None:
    """Use the system's engine if one answers, else start a private one; start a registry."""
    from curator import provision  # noqa: PLC0415

    console.say("looking for an engine; a private one takes about half a minute to install")
    _show(console, provision.up(cache_directory(os.environ), azurite=azurite))


@engine.command()
@click.option(
    "--purge", is_flag=True, help="Remove images, registry, stored blobs and downloads as well."
)
@verb
def down(console: Console, *, purge: bool) -> None:
    """Stop the private engine, registry and Azurite; a system's engine is left alone."""
    from curator import provision  # noqa: PLC0415

    _show(console, provision.down(cache_directory(os.environ), purge=purge))


@engine.command()
@verb
def status(console: Console) -> None:
    """Say which engine, registry and Azurite would be used."""
    from curator import provision  # noqa: PLC0415

    _show(console, provision.status(cache_directory(os.environ)))


def _show(console: Console, found: Status) -> None:
    facts = found.to_json()
    lines = [f"{name}: {_plain(value)}" for name, value in facts.items()]
    console.answer("\n".join(lines), facts)


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(item)}" for name, item in value.items())
    return "none" if value is None else value
