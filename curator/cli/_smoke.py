"""Verbs about tests: smoke, probe."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import click

from curator import settings
from curator.cli._console import Console, Verb, verb, writing
from curator.errors import Diagnostic, InputError

if TYPE_CHECKING:
    from curator.matrix import Matrix, Tree
    from curator.oci import Reference
    from curator.ports import Runner
    from curator.smoke import HostFacts, Probe, SmokeReport, Subject

TIMEOUT_S = 900
EXIT_CODES = {"pass": 0, "fail": 1, "not-run": 75, "bad-host": 75}
MARKS = {"pass": "ok", "fail": "FAIL", "not-run": "-"}


@click.command(cls=Verb)
@click.argument("subjects", nargs=-1, metavar="IMAGE@DIGEST")
@click.option("--cell", metavar="ID", help="Test it as this cell: contents, label and GPU.")
@click.option("--framework", metavar="NAME", help="Test that this framework computes right in it.")
@click.option(
    "--oci",
    "layout",
    type=click.Path(exists=True, path_type=Path),
    metavar="PATH",
    help="Take the image from this OCI layout or archive, and run it without docker.",
)
@click.option("--context", metavar="NAME", help="Run it on the engine of this docker context.")
@click.option("--known-good", metavar="IMAGE@DIGEST", help="Whom to ask before an image is blamed.")
@click.option("--timeout", type=click.IntRange(1), default=TIMEOUT_S, metavar="SECONDS")
@click.option("--plan", is_flag=True, help="Say which tests cover what published CELLs claim.")
@click.option(
    "--host", "hosts", multiple=True, metavar="SM/DRIVER", help="With --plan: we have it."
)
@click.option("-o", "--result", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE")
@verb
def smoke(  # noqa: PLR0913 - one parameter an option
    console: Console,
    subjects: tuple[str, ...],
    *,
    cell: str | None,
    framework: str | None,
    layout: Path | None,
    context: str | None,
    known_good: str | None,
    timeout: int,
    plan: bool,
    hosts: tuple[str, ...],
    result: Path | None,
) -> None:
    """Test any image by its digest on this host's GPU, and say what was found.

    Without --cell or --framework only the driver is asked: kernels of our own, no framework.
    Exits with 0 if all passed, 1 if the image failed, 75 if this host could not tell.
    With --plan, SELECTORS of published cells stand in place of the image.
    """
    if plan:
        from curator.cli._cover import plan_tests  # noqa: PLC0415

        plan_tests(console, subjects, hosts)
        return
    from curator.farm import tested  # noqa: PLC0415
    from curator.smoke import Probes  # noqa: PLC0415

    if len(subjects) != 1:
        raise click.UsageError("name one image, by its digest")
    reference = _by_digest(subjects[0])
    probe, subject = _probe(console, reference, cell, framework)
    good = _by_digest(known_good) if known_good else None
    runner, host = _runner(layout, context, good or reference)
    report = tested(
        probe,
        reference,
        subject,
        runner=runner,
        host=host,
        timeout_s=timeout,
        no_gpu="" if host.gpus else "this host has no GPU",
        known_good=lambda: (Probes({}).bare(), good) if good else None,
    )
    if result:
        with writing(result):
            result.write_bytes(report.data)
    console.lines(_lines(report), report.to_json(), status=report.verdict)
    if code := EXIT_CODES[report.verdict]:
        raise SystemExit(code)


def _by_digest(text: str) -> Reference:
    """Read a reference; what a tag names now may not be what is pulled in a minute."""
    from curator.oci import Reference  # noqa: PLC0415

    reference = Reference.parse(text)
    if reference.digest is None:
        message = f"{text}: an image is tested by its digest"
        hint = f"write {text}@sha256:..., as `docker buildx imagetools inspect` shows it"
        raise InputError(Diagnostic(code="reference", message=message, hint=hint))
    return reference


def _probe(
    console: Console, image: Reference, cell: str | None, framework: str | None
) -> tuple[Probe, Subject]:
    from curator.smoke import Probes, Subject  # noqa: PLC0415

    assert image.digest is not None  # noqa: S101 - `_by_digest` saw to it
    if cell and framework:
        raise click.UsageError("--cell and --framework are two ways of saying what to test")
    if cell:
        tree, matrix = console.load()
        key = _recipe_key(tree, matrix, cell)
        return _of_cell(tree, matrix, cell), Subject(image=image.digest, cell=cell, recipe_key=key)
    subject = Subject(image=image.digest)
    if framework:
        return Probes(console.tree()).framework(framework), subject
    return Probes({}).bare(), subject


def _of_cell(tree: Tree, matrix: Matrix, name: str) -> Probe:
    from curator.matrix import select  # noqa: PLC0415
    from curator.smoke import Probes  # noqa: PLC0415

    (chosen,) = select([cell.id for cell in matrix.cells], (name,))[:1]
    cell = next(cell for cell in matrix.cells if cell.id == chosen)
    return Probes(tree).assemble(cell, matrix.locks[cell.id])


def _recipe_key(tree: Tree, matrix: Matrix, name: str) -> str:
    from curator import recipe  # noqa: PLC0415

    cell = next(cell for cell in matrix.cells if cell.id == name)
    installer = settings.installer()
    return recipe.render(cell, matrix, recipe.Templates(tree), installer=installer).key


def _runner(layout: Path | None, context: str | None, image: Reference) -> tuple[Runner, HostFacts]:
    """Return what runs the image, and the facts of the host that it runs on."""
    from curator import provision  # noqa: PLC0415
    from curator.errors import HostError  # noqa: PLC0415
    from curator.farm import remote_host  # noqa: PLC0415
    from curator.host import host_facts  # noqa: PLC0415
    from curator.ports import EngineAddress  # noqa: PLC0415
    from curator.runner import BundleRunner, DockerRunner, Slots  # noqa: PLC0415

    cache = settings.cache_directory(os.environ)
    if context:
        address = EngineAddress(docker="docker", kind="system", context=context)
        host = remote_host(DockerRunner(address), image)
        slots = Slots(cache / "gpus" / context, [gpu.uuid for gpu in host.gpus])
        return DockerRunner(address, threading.Event(), slots), host
    host = host_facts()
    slots = Slots(cache / "gpus" / "local", [gpu.uuid for gpu in host.gpus])
    if layout:
        return BundleRunner(layout, cache / "bundles", slots=slots), host
    found = provision.status(cache).engine
    if found is None:
        raise HostError(
            "no docker engine answers: start Docker, run `curator engine up`, or test an image "
            "without one (--oci)"
        )
    return DockerRunner(found, threading.Event(), slots), host


def _lines(report: SmokeReport) -> list[str]:
    """Return a line for each check, and the verdict at the end."""
    lines = [
        f"{MARKS[check.outcome]:<5} {check.name:<12} {check.ms / 1000:>7.1f} s  {check.detail}"
        for check in report.checks
    ]
    gpu = report.tested_gpu
    where = f"{gpu.name} (sm {gpu.sm}), driver {report.host.driver}" if gpu else "no GPU"
    verdict = f"{report.verdict}: contents {report.contents}, gpu {report.gpu} ({where})"
    blamed = [f"bad host: {report.bad_host}"] if report.bad_host else []
    return [*(line.rstrip() for line in lines), *blamed, verdict]


@click.command(cls=Verb)
@click.argument("cell", metavar="CELL|driver")
@click.option("--nonce", default="report", show_default=True, help="What marks the report's line.")
@verb
def probe(console: Console, cell: str, *, nonce: str) -> None:
    """Print the exact program that tests CELL: run it with `python3 -c`.

    `driver` is the one that needs no framework.
    """
    from curator.smoke import Probes, run_program  # noqa: PLC0415

    if cell == "driver":
        made = Probes({}).bare()
    else:
        tree, matrix = console.load()
        made = _of_cell(tree, matrix, cell)
    text = run_program(made, nonce)
    console.answer(text.rstrip("\n"), {"key": made.key, "checks": made.checks, "program": text})
