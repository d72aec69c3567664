"""The verb resolve: which image runs on a machine."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any, Final

import click

from curator.cli._console import Console, Verb, verb
from curator.cli._pull import (
    catalogue_of,
    described,
    gate_lines,
    host_of,
    host_options,
    index_options,
)
from curator.errors import Diagnostic, EmptySelectionError, InputError, NoFitError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from curator.facts import Facts
    from curator.resolve import Catalogue, Host, Judgement, Match, Resolution, Wishes

# As `curator.emit.KINDS`, which loads yaml; a test holds the two together.
KINDS: Final = ("docker", "compose", "devcontainer", "k8s", "azureml", "dockerfile")
MOST: Final = 20


@click.command(cls=Verb)
@click.option("--framework", metavar="NAME", help="pytorch, tensorflow, jax, cupy, ...")
@click.option("--version", metavar="VERSION", help="Of the framework: 2.9, '>=2.6,<2.9'.")
@click.option("--cuda", metavar="VERSION", help="12, 12.8, '>=12.4'.")
@click.option("--python", metavar="VERSION", help="3.12, '>=3.11'.")
@click.option("--channel", type=click.Choice(["stable", "candidate"]))
@click.option("--prefer", type=click.Choice(["newest", "fastest"]), default="newest")
@host_options
@index_options
@click.option(
    "--all", "everything", is_flag=True, help="List what runs, and why the rest does not."
)
@click.option("--explain", "explained", is_flag=True, help="Say each rule, its numbers and source.")
@click.option("--pin", is_flag=True, help="Print the reference alone, pinned by digest.")
@click.option("--emit", type=click.Choice(KINDS), help="Print a document that runs the image.")
@verb
def resolve(console: Console, **given: Any) -> None:  # noqa: ANN401 - click's options
    """Say which image runs on a machine: this one, or the one that the flags describe.

    Exits with 4 when no image is known to run there, and names what is nearest.
    """
    from curator.facts import facts  # noqa: PLC0415 - as the whole verb
    from curator.resolve import Wishes  # noqa: PLC0415
    from curator.resolve import resolve as resolved  # noqa: PLC0415

    names = ("framework", "version", "cuda", "python", "channel", "prefer")
    wishes = Wishes(**{name: given[name] for name in names})
    known, host = facts(), host_of(given)
    catalogue = catalogue_of(console, given)
    found = resolved(catalogue, host, wishes, known, most=None if given["everything"] else MOST)
    if not found.considered:
        raise EmptySelectionError(_nothing(catalogue, wishes))
    data = _data(found, catalogue, host)
    if not found.ranked:
        lines = [] if given["pin"] or given["emit"] else list(_unfit(found, host, known, **given))
        console.lines(lines, data, status="no-fit")
        if not console.json:
            raise NoFitError(f"no image is known to run on {described(host)}")
        raise SystemExit(NoFitError.exit_code)
    if given["pin"] or given["emit"]:
        _print_one(console, found, catalogue, host, given["emit"])
        return
    lines = []
    for best in found.best:
        lines += _chosen(best, host, catalogue.reference(best.image))
        if given["explained"]:
            lines += gate_lines(best.judgement)
    lines += [f"newer {m.image.name} needs {' and '.join(m.changes)}" for m in found.misses]
    if given["everything"]:
        lines += _listed(found)
    console.lines(lines, data)


def _print_one(
    console: Console, found: Resolution, catalogue: Catalogue, host: Host, kind: str | None
) -> None:
    """Print the one best image's reference, or a document that runs it."""
    from curator.resolve import why  # noqa: PLC0415 - as the whole verb

    if len(found.best) > 1:
        names = ", ".join(best.image.framework for best in found.best)
        hint = "name one with --framework"
        message = f"images of several frameworks run there: {names}"
        raise InputError(Diagnostic(code="framework", message=message, hint=hint))
    best = found.best[0]
    reference = text = catalogue.reference(best.image)
    if kind is not None:
        from curator.emit import emit  # noqa: PLC0415

        reason = f"{best.image.name}: {why(best.judgement)}"
        text = emit(kind, image=best.image, reference=reference, host=host, why=reason)
    console.answer(text.rstrip("\n"), {"reference": reference, "document": text})


def _chosen(best: Match, host: Host, reference: str) -> Iterator[str]:
    from curator.resolve import RUN, why  # noqa: PLC0415

    yield f"{best.image.name}    {_confidence(best.judgement, host)}"
    if best.image.state == "deprecated":
        reason = f": {best.image.reason}" if best.image.reason else ""
        instead = f"; replaced by {best.image.replaced_by}" if best.image.replaced_by else ""
        yield f"  deprecated{reason}{instead}"
    yield f"  {shlex.join((*RUN, reference))}"
    yield f"  why: {why(best.judgement)}"


def _confidence(judgement: Judgement, host: Host) -> str:
    test = judgement.test
    if test is None:
        return f"not tested here: follows by rule for {described(host)}"
    where = f"{test.gpu or 'a GPU'} (sm_{test.sm.replace('.', '')}), driver {test.driver}"
    told = f"tested {test.at[:10]} on {where}"
    if judgement.confidence == "tested":
        return told
    return f"{told}; follows by rule for driver {host.driver}"


def _listed(found: Resolution) -> Iterator[str]:
    for match in found.ranked:
        yield f"  + {match.image.name}  {match.judgement.confidence}"
    for mark, matches in (("?", found.unsure), ("-", found.rejected)):
        for match in matches:
            first = match.judgement.first
            reason = f"  {first.gate}: {first.answer.text}" if first else ""
            yield f"  {mark} {match.image.name}{reason}"


def _unfit(
    found: Resolution,
    host: Host,
    known: Facts,
    **given: Any,  # noqa: ANN401 - click's options
) -> Iterator[str]:
    from curator.resolve import judge  # noqa: PLC0415 - as the whole verb

    yield f"Nothing is known to run on {described(host)}."
    for match in found.unsure[:1]:
        first = match.judgement.first
        yield f"  perhaps {match.image.name}: {first.answer.text if first else ''}"
        if given["explained"]:
            yield from gate_lines(match.judgement)
    for miss in found.misses:
        yield f"  nearest: {miss.image.name} needs {' and '.join(miss.changes)}"
        if given["explained"]:
            yield from gate_lines(judge(miss.image, host, known))
    if given["everything"]:
        yield from _listed(found)


def _nothing(catalogue: Catalogue, wishes: Wishes) -> str:
    """Say that no image has what is wished, and what there is."""
    offered = [image for image in catalogue.images if image.is_offered]
    named = [image for image in offered if image.framework == wishes.framework]
    if wishes.framework is not None and not named:
        from difflib import get_close_matches  # noqa: PLC0415

        there = sorted({image.framework for image in offered})
        near = get_close_matches(wishes.framework, there, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        return f"no image of {wishes.framework}: {hint}there are {', '.join(there) or 'none'}"
    there = [image.cell for image in named or offered][:5]
    return f"no image has all of that; there are {', '.join(there) or 'none'}"


def _data(found: Resolution, catalogue: Catalogue, host: Host) -> dict[str, Any]:
    return {"host": host.to_json(), "generation": catalogue.generation, **found.to_json()}
