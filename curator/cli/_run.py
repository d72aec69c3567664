"""Verbs that work on the plan: plan, render, run, demo."""

from __future__ import annotations

import json
import os
import signal
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from curator import settings
from curator.cli._console import STORE_HELP, Console, Interrupted, Verb, located, verb, writing
from curator.errors import Diagnostic, InputError
from curator.settings import Overrides

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from curator.farm import CellResult
    from curator.matrix import Matrix, Tree
    from curator.plan import Plan
    from curator.settings import Settings

LISTED_REJECTIONS = 25
STOPPING = (signal.SIGINT, signal.SIGTERM)
SYMBOL_COLOURS = {"+": "green", "~": "yellow", "!": "red"}


def _where(function: Callable[..., None]) -> Callable[..., None]:
    """Let a verb be told where to publish."""
    for option in (
        click.option("--store", metavar="PLACE", help=STORE_HELP),
        click.option("--registry", metavar="HOST[/PREFIX]", help="Where images are published."),
    ):
        function = option(function)
    return function


@click.command(cls=Verb)
@click.argument("selectors", nargs=-1)
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE")
@click.option("--check", is_flag=True, help="Exit with 1 if there is anything to do.")
@_where
@verb
def plan(  # noqa: PLR0913 - one parameter an option
    console: Console,
    selectors: tuple[str, ...],
    *,
    output: Path | None,
    check: bool,
    store: str | None,
    registry: str | None,
) -> None:
    """Say what would be built, tested again or left alone, and why; needs no docker."""
    tree, matrix = console.load()
    found = _settings(console, matrix, Overrides(store=located(store), registry=registry))
    made = _plan(tree, matrix, found, selectors)
    if output:
        with writing(output):
            output.write_text(json.dumps(made.to_json(), indent=2) + "\n")
    console.answer(_plan_text(console, made), made.to_json())
    if check and made.work:
        raise SystemExit(1)


def _settings(console: Console, matrix: Matrix, overrides: Overrides) -> Settings:
    return settings.resolve(console.root(), matrix.farm, os.environ, overrides)


def _plan(
    tree: Tree, matrix: Matrix, found: Settings, selectors: tuple[str, ...], gpus: int = 0
) -> Plan:
    from curator.index import read_index  # noqa: PLC0415
    from curator.matrix import select  # noqa: PLC0415
    from curator.plan import make_plan  # noqa: PLC0415
    from curator.store import open_store  # noqa: PLC0415

    every = [cell.id for cell in matrix.cells] + [item.id for item in matrix.rejected]
    index = read_index(open_store(found.store, os.environ))
    ids = select(every, selectors)
    return make_plan(matrix, tree, index, ids=ids, installer=settings.installer(), gpus=gpus)


def _plan_text(console: Console, made: Plan) -> str:
    lines = [
        _line(console, cell.symbol, f"{cell.cell.id}  {cell.action.value:<6} {cell.why}")
        for cell in made.work
    ]
    if unchanged := len(made.cells) - len(made.work):
        lines.append(f"  = {unchanged} unchanged")
    if len(made.rejected) > LISTED_REJECTIONS:
        lines.append(f"  ! {len(made.rejected)} rejected (`curator matrix --rejected` says why)")
    else:
        lines += [
            _line(console, "!", f"{item.id}  rejected {item.because}") for item in made.rejected
        ]
    return "\n".join([*lines, made.summary])


def _line(console: Console, symbol: str, text: str) -> str:
    return f"  {console.styled(symbol, SYMBOL_COLOURS[symbol])} {text}"


@click.command(cls=Verb)
@click.argument("cell")
@click.option("-o", "--output", type=click.Path(file_okay=False, path_type=Path), metavar="DIR")
@verb
def render(console: Console, cell: str, *, output: Path | None) -> None:
    """Print the Dockerfile of CELL, or write it with its whole context to DIR."""
    from curator import recipe  # noqa: PLC0415
    from curator.matrix import select  # noqa: PLC0415

    tree, matrix = console.load()
    ids = select([item.id for item in matrix.cells], (cell,))
    chosen = next(item for item in matrix.cells if item.id == ids[0])
    made = recipe.render(chosen, matrix, recipe.Templates(tree), installer=settings.installer())
    files = {"Dockerfile": made.dockerfile, **dict(made.context)}
    if output:
        with writing(output):
            for name, text in files.items():
                (output / name).parent.mkdir(parents=True, exist_ok=True)
                (output / name).write_text(text)
    data = {"id": chosen.id, "key": made.key, "base": made.base, "files": files}
    console.answer(str(output) if output else made.dockerfile.rstrip("\n"), data)


@click.command(cls=Verb)
@click.argument("selectors", nargs=-1)
@click.option("-j", "--jobs", type=click.IntRange(1), help="How many cells at once.")
@click.option("-x", "--exitfirst", is_flag=True, help="Stop at the first failure.")
@_where
@verb
def run(  # noqa: PLR0913 - one parameter an option
    console: Console,
    selectors: tuple[str, ...],
    *,
    jobs: int | None,
    exitfirst: bool,
    store: str | None,
    registry: str | None,
) -> None:
    """Build, test and publish what SELECTORS (or a plan file) choose; done work is not repeated."""
    tree, matrix = console.load()
    overrides = Overrides(store=located(store), registry=registry, jobs=jobs)
    job = _Job(console, tree, matrix, _settings(console, matrix, overrides))
    results = job.run(_from_plan_file(selectors), fail_fast=exitfirst)
    job.report(results)


@click.command(cls=Verb)
@click.argument("selectors", nargs=-1)
@click.option("-j", "--jobs", type=click.IntRange(1), help="How many cells at once.")
@verb
def demo(console: Console, selectors: tuple[str, ...], *, jobs: int | None) -> None:
    """Do the farm's whole job here: private engine, registry and store, a small real selection.

    Bases that the distribution has moved past are locked again on the way.
    """
    from curator import provision  # noqa: PLC0415

    cache = settings.cache_directory(os.environ)
    console.say("engine and registry: starting (a private engine installs in half a minute)")
    status = provision.up(cache)
    tree, matrix = console.load()
    overrides = Overrides(store=str(cache / "store"), registry=status.registry, jobs=jobs)
    job = _Job(console, tree, matrix, _settings(console, matrix, overrides))
    chosen = selectors or matrix.farm.demo
    job.refresh_bases(chosen)
    results = job.run(chosen, fail_fast=False)
    job.report(results, chosen)


def _from_plan_file(selectors: tuple[str, ...]) -> tuple[str, ...]:
    """Return the ids of the work in a plan file, where one is named instead of a selector."""
    if len(selectors) != 1 or not selectors[0].endswith(".json"):
        return selectors
    file = selectors[0]
    try:
        cells = json.loads(Path(file).read_text())["cells"]
        return tuple(cell["id"] for cell in cells if cell["action"] != "reuse")
    except OSError as error:
        message = f"cannot be read: {error.strerror}"
        raise InputError(Diagnostic(code="plan", message=message, file=file)) from error
    except (ValueError, KeyError, TypeError) as error:
        hint = "`curator plan -o FILE` writes one"
        message = "not a plan"
        raise InputError(Diagnostic(code="plan", message=message, file=file, hint=hint)) from error


class _Job:
    """A run on this machine: what it works on, and how it tells of it."""

    def __init__(self, console: Console, tree: Tree, matrix: Matrix, found: Settings) -> None:
        self.console = console
        self.tree = tree
        self.matrix = matrix
        self.settings = found
        self.cancelled = threading.Event()
        self.signal = 0

    def plan(self, selectors: tuple[str, ...], gpus: int = 0) -> Plan:
        """Return the plan as it is now."""
        return _plan(self.tree, self.matrix, self.settings, selectors, gpus)

    def refresh_bases(self, selectors: tuple[str, ...]) -> None:
        """Lock again what bases the distribution has moved past, where a build needs them."""
        from curator.cli._bases import moved_bases  # noqa: PLC0415
        from curator.cli._inputs import write  # noqa: PLC0415
        from curator.cli._ports import connected  # noqa: PLC0415

        plan = self.plan(selectors)
        if not plan.work:
            return
        self.console.say("bases: making what the registry lacks (half a minute each)")
        with connected(self.settings, self.matrix.farm, self.cancelled) as ports:
            files = moved_bases(plan, self.matrix, ports)
        if files:
            write(self.console.root(), files)
            self.console.say(f"bases: the distribution moved on; locked again: {', '.join(files)}")
            self.tree, self.matrix = self.console.load()

    def run(self, selectors: tuple[str, ...], *, fail_fast: bool) -> tuple[CellResult, ...]:
        """Do what the plan says, showing progress, and return each cell's result."""
        from curator import farm  # noqa: PLC0415
        from curator.cli._ports import connected  # noqa: PLC0415
        from curator.cli._progress import board  # noqa: PLC0415
        from curator.publish import write_site  # noqa: PLC0415

        if not self.plan(selectors, gpus=_gpus()).work:
            self._recover()
            return ()
        with connected(self.settings, self.matrix.farm, self.cancelled) as ports, self._signals():
            plan = self.plan(selectors, gpus=len(ports.host.gpus))
            mode = "none" if self.console.quiet else self.console.progress
            with board(self.console.rich(), len(plan.work), mode) as shown:
                results = farm.run(
                    plan,
                    self.matrix,
                    ports,
                    jobs=self.settings.jobs,
                    fail_fast=fail_fast,
                    cancelled=self.cancelled,
                    observe=shown.observe,
                )
            write_site(ports.store)
        return results

    def _recover(self) -> None:
        """Finish what a publisher that was killed after its last commit left to do."""
        from curator.cli._ports import destination, registry_of  # noqa: PLC0415
        from curator.farm import target_of  # noqa: PLC0415
        from curator.publish import recover  # noqa: PLC0415

        if registry_of(self.settings) is not None:
            to = destination(self.settings, self.matrix.farm)
            recover(target_of(to, to.now()))

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Let the first Ctrl-C or SIGTERM end the run in order, and the second end it at once."""

        def handle(number: int, _: FrameType | None) -> None:
            if self.cancelled.is_set():
                os._exit(128 + number)
            self.signal = number
            self.cancelled.set()
            self.console.say("stopping; once more to stop at once")

        before = {number: signal.signal(number, handle) for number in STOPPING}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def report(self, results: tuple[CellResult, ...], demo: tuple[str, ...] = ()) -> None:
        """Print what became of the cells, and end with the code that it calls for."""
        from curator.cli._report import exit_code, references, summary  # noqa: PLC0415

        code = exit_code(results)
        text = summary(results)
        data: dict[str, Any] = {"cells": [result.to_json() for result in results]}
        if demo:
            shown, data["demo"] = references(self.matrix, self.settings, demo)
            text = f"{text}\n{shown}"
        self.console.lines(text.split("\n"), data, status="ok" if code == 0 else "failures")
        if self.signal:
            self.console.say("stopped: the same command goes on where this one ended")
            raise Interrupted(128 + self.signal)
        if code:
            raise SystemExit(code)


def _gpus() -> int:
    from curator.host import host_facts  # noqa: PLC0415

    return len(host_facts().gpus)
