"""The verb publish: images with what other machines found of them."""

from __future__ import annotations

import os
from dataclasses import replace
from json import JSONDecodeError
from pathlib import Path
from typing import TYPE_CHECKING

import click

from curator import settings
from curator.cli._console import STORE_HELP, Console, Verb, located, verb
from curator.errors import CuratorError, Diagnostic, InputError, IntegrityError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from curator.farm import CellResult, Destination
    from curator.matrix import Matrix, Tree
    from curator.oci import Digest
    from curator.smoke import SmokeReport


@click.command(cls=Verb)
@click.argument(
    "reports", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option("--store", metavar="PLACE", help=STORE_HELP)
@click.option("--registry", metavar="HOST[/PREFIX]", help="Where images are published.")
@click.option("--dry-run", is_flag=True, help="List each write, and write nothing.")
@click.option(
    "--expect",
    multiple=True,
    metavar="NAME=DIGEST",
    help="Publish only if a moving tag (repository:tag) is at this digest, or `absent`.",
)
@verb
def publish(  # noqa: PLR0913 - one parameter an option
    console: Console,
    reports: tuple[Path, ...],
    *,
    store: str | None,
    registry: str | None,
    dry_run: bool,
    expect: tuple[str, ...],
) -> None:
    """Publish images with REPORTS that `curator smoke --cell --result` made on other machines.

    A report counts for the image, recipe and probe that it names, if they are the farm's of now.
    All of them are read before anything is published.
    """
    if expect and len(reports) != 1:
        raise click.UsageError("--expect is for one report at a time")
    from curator.cli._ports import destination  # noqa: PLC0415
    from curator.cli._report import exit_code, summary  # noqa: PLC0415
    from curator.publish import Rehearsal, write_site  # noqa: PLC0415

    tree, matrix = console.load()
    overrides = settings.Overrides(store=located(store), registry=registry)
    read = _read(reports, matrix)
    found = settings.resolve(console.root(), matrix.farm, os.environ, overrides)
    to = replace(destination(found, matrix.farm), expect=_expected(expect))
    rehearsal = Rehearsal.of(to.store, to.registry)
    if dry_run:
        to = replace(to, store=rehearsal.store, registry=rehearsal.registry)
    results = tuple(_published(report, tree, matrix, to) for report in read)
    write_site(to.store)
    code = exit_code(results)
    lines = rehearsal.writes or ["nothing to write"] if dry_run else []
    told = [summary(results)] if code or not dry_run else []
    data = {"cells": [result.to_json() for result in results], "writes": rehearsal.writes}
    console.answer("\n".join([*lines, *told]), data, status="failures" if code else "ok")
    if code:
        raise SystemExit(code)


def _read(files: Iterable[Path], matrix: Matrix) -> list[SmokeReport]:
    """Read reports, each of a cell of this farm.

    Raises:
        InputError: what is wrong with any of them.
    """
    from curator.smoke import SmokeReport  # noqa: PLC0415

    cells = {cell.id for cell in matrix.cells}
    read, findings = [], []
    for file in files:
        try:
            report = SmokeReport.parse(file.read_bytes(), str(file))
        except IntegrityError as error:
            findings.append(_malformed(file, error))
            continue
        if report.subject.cell not in cells:
            of = report.subject.cell or "no cell"
            message = f"a report of {of}, which this farm does not have"
            findings.append(Diagnostic(code="report", message=message, file=str(file)))
        read.append(report)
    if findings:
        raise InputError(*findings)
    return read


def _malformed(file: Path, error: IntegrityError) -> Diagnostic:
    """Return what is wrong with a file, and where, if that is known."""
    message, cause = str(error).removeprefix(f"{file}: "), error.__cause__
    line, column = (
        (cause.lineno, cause.colno) if isinstance(cause, JSONDecodeError) else (None, None)
    )
    return Diagnostic(code="report", message=message, file=str(file), line=line, column=column)


def _published(
    report: SmokeReport, tree: Tree, matrix: Matrix, destination: Destination
) -> CellResult:
    """Publish one report; that it fails is a result, and the others are published all the same."""
    from curator.farm import failed, publish_recorded  # noqa: PLC0415
    from curator.index import read_index  # noqa: PLC0415
    from curator.plan import make_plan  # noqa: PLC0415

    cell = str(report.subject.cell)
    try:
        index, installer = read_index(destination.store), settings.installer()
        (planned,) = make_plan(matrix, tree, index, ids={cell}, installer=installer).cells
        return publish_recorded(planned, report, matrix, destination)
    except InputError:
        raise
    except CuratorError as error:
        return failed(cell, error)


def _expected(texts: tuple[str, ...]) -> dict[str, Digest | None]:
    """Read `cupy:14.2=sha256:...` and `cupy:14.2=absent`."""
    from curator.oci import parse_digest  # noqa: PLC0415

    found: dict[str, Digest | None] = {}
    for text in texts:
        name, equals, digest = text.partition("=")
        if not equals or ":" not in name:
            message = f"not an expectation: {text!r}"
            hint = "write cupy:14.2=sha256:... or cupy:14.2=absent"
            raise InputError(Diagnostic(code="expect", message=message, hint=hint))
        found[name] = None if digest == "absent" else parse_digest(digest)
    return found
