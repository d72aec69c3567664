"""The verb that looks at this machine: doctor."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from curator.cli._console import STORE_HELP, Console, Verb, located, verb
from curator.errors import InputError, printable
from curator.settings import Overrides, cache_directory, resolve

if TYPE_CHECKING:
    from curator.doctor import Finding, Look

COLOURS = {"ok": "green", "warn": "yellow", "fail": "red", "skip": None}


@click.command(cls=Verb)
@click.option("--registry", metavar="HOST[/PREFIX]", help="Where images are published.")
@click.option("--store", metavar="PLACE", help=STORE_HELP)
@verb
def doctor(console: Console, *, registry: str | None, store: str | None) -> None:
    """Say whether this machine is set up, and what to do if not; exits with 1 if a check fails.

    Docker, GPUs in containers, disks, shared memory, the registry and the store are asked, and
    nobody else.
    """
    from curator.doctor import checks  # noqa: PLC0415

    findings = list(checks(_look(console, registry, store)))
    failed = [finding for finding in findings if finding.state == "fail"]
    text = "\n".join([*(_line(console, finding) for finding in findings), _summary(findings)])
    data = {"checks": [finding.to_json() for finding in findings]}
    console.answer(text, data, status="findings" if failed else "ok")
    if failed:
        raise SystemExit(1)


def _look(console: Console, registry: str | None, store: str | None) -> Look:
    """Return what is configured; outside a farm, flags and the environment say it alone."""
    from curator.doctor import Look  # noqa: PLC0415

    places = Overrides(registry=registry, store=located(store))
    try:
        _, loaded = console.load()
        settings = resolve(console.root(), loaded.farm, os.environ, places)
    except InputError as error:
        console.say(f"no farm is read here: {error.diagnostics[0]}")
        return Look(
            environ=os.environ,
            cache=cache_directory(os.environ),
            registry=registry or os.environ.get("CURATOR_REGISTRY"),
            store=places.store or located(os.environ.get("CURATOR_STORE")),
        )
    return Look(
        environ=os.environ,
        cache=settings.cache,
        registry=settings.registry,
        store=settings.store,
    )


def _line(console: Console, finding: Finding) -> str:
    mark = console.styled(f"{finding.state:<4}", COLOURS[finding.state])
    line = f"{mark}  {finding.name}: {printable(finding.text)}"
    return f"{line}\n      -> {printable(finding.fix)}" if finding.fix else line


def _summary(findings: list[Finding]) -> str:
    states = [finding.state for finding in findings]
    counts = (f"{states.count(state)} {state}" for state in ("ok", "warn", "fail", "skip"))
    return f"Doctor: {', '.join(counts)}."
