"""The verb explain: why an image runs or does not, on what evidence; and what a code means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from curator.cli._console import Console, verb
from curator.cli._pull import (
    catalogue_of,
    described,
    gate_lines,
    host_of,
    host_options,
    index_options,
)
from curator.errors import Diagnostic, HostError, InputError, RefusedError

if TYPE_CHECKING:
    from curator.facts import Facts
    from curator.resolve import Catalogue, Host, Image


@click.command()
@click.argument("name")
@host_options
@index_options
@verb
def explain(console: Console, name: str, **given: Any) -> None:  # noqa: ANN401 - click's options
    """Explain NAME: a tag, image, cell, or combination such as tensorflow-1.8-cuda9.2; or a code.

    A combination that no image has is explained from what its publisher documents.
    """
    from curator.facts import facts  # noqa: PLC0415

    known = facts()
    rule = known.rules.get(name)
    if rule is not None:
        lines = [f"{rule.name} ({rule.gate})", *(f"  {s}: {t}" for s, t in rule.says.items())]
        lines.append(f"  source: {rule.source}, read {rule.read}")
        console.answer("\n".join(lines), {"rule": name, "source": rule.source, "says": rule.says})
        return
    if (told := _error(name)) is not None:
        console.answer(f"{name}: {told}", {"code": name, "text": told})
        return
    catalogue = _published(console, given)
    image = catalogue.find(name) if catalogue else None
    if image is not None and catalogue is not None:
        _explain_image(console, image, catalogue, host_of(given), known)
        return
    _explain_combination(console, name, catalogue, known)


def _published(console: Console, given: dict[str, Any]) -> Catalogue | None:
    """Return the catalogue, or None where nothing is published yet."""
    try:
        return catalogue_of(console, given)
    except RefusedError:
        return None


def _error(code: str) -> str | None:
    """Return what an error of this code means."""
    from curator import errors  # noqa: PLC0415

    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, errors.CuratorError) and kind.code == code:
            return f"{kind.__doc__} (exit {kind.exit_code})"
    return None


def _explain_image(
    console: Console, image: Image, catalogue: Catalogue, host: Host, known: Facts
) -> None:
    from curator.resolve import judge  # noqa: PLC0415

    judgement = judge(image, host, known)
    label = image.label
    state = f"{image.state}{f': {image.reason}' if image.reason else ''}"
    lines = [
        f"{image.name}  {state}",
        f"  {image.framework} {image.version}, CUDA {label.cuda}, Python {image.python}",
        f"  {catalogue.reference(image)}",
        f"  kernels: {'not read' if label.cubin is None else ' '.join(label.cubin) or 'none'}",
        *([f"  PTX: {' '.join(label.ptx)}"] if label.ptx else []),
        *(
            f"  {test.verdict} {test.at[:10]} on {test.gpu or test.sm} (sm {test.sm}), "
            f"driver {test.driver}, evidence {test.evidence or 'none'}"
            for test in image.tests
        ),
        f"On {described(host)}: {judgement.says}",
        *gate_lines(judgement),
    ]
    if image.replaced_by:
        lines.insert(1, f"  replaced by {image.replaced_by}")
    data = {
        "id": image.id,
        "reference": catalogue.reference(image),
        "host": host.to_json(),
        "state": image.state,
        "reason": image.reason,
        "tests": [test.to_json() for test in image.tests],
        **judgement.to_json(),
    }
    console.answer("\n".join(lines), data)


def _explain_combination(
    console: Console, name: str, catalogue: Catalogue | None, known: Facts
) -> None:
    from curator.resolve import Combination, claims  # noqa: PLC0415

    asked = Combination.parse(name)
    documented = claims(asked, known) if asked else ()
    rejected = _rejected(console, name)
    if asked is None or not (documented or rejected):
        hint = "name it as tensorflow-1.8-cuda9.2, pytorch:2.9, an image's id, or a code"
        raise InputError(
            Diagnostic(code="unknown", message=f"nothing is known of {name!r}", hint=hint)
        )
    offered = [image for image in (catalogue.images if catalogue else ()) if image.is_offered]
    images = [image.name for image in offered if asked.names(image)]
    others = [image.name for image in offered if image.framework == asked.framework]
    lines = [f"{name}: {_counted(images)} of this published"]
    for claim in documented:
        lines += [f"  {claim.says}: {claim.text}", f"      {claim.source}"]
    for because, source in rejected:
        lines += [f"  no: {because}", f"      {source}"]
    if images or others:
        told = "published" if images else f"published of {asked.framework}"
        lines.append(f"  {told}: {', '.join((images or others)[:5])}")
    data = {
        "combination": name,
        "claims": [claim.to_json() for claim in documented],
        "rejected": [{"because": because, "source": source} for because, source in rejected],
        "published": images,
    }
    console.answer("\n".join(lines), data)


def _counted(images: list[str]) -> str:
    if not images:
        return "no image"
    return f"{len(images)} images" if len(images) > 1 else "1 image"


def _rejected(console: Console, name: str) -> list[tuple[str, str]]:
    """Return why the farm that we stand in does not build a cell."""
    try:
        _, loaded = console.load()
    except (InputError, HostError):
        return []
    return [
        (found.because, found.source)
        for found in loaded.rejected
        if found.id == name or found.id.startswith(f"{name}-")
    ][:1]
