"""The verb explain: why an image runs or does not, on what evidence; and what a code means."""

from __future__ import annotations

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
    is_host_told,
)
from curator.errors import CuratorError, Diagnostic, InputError, TemporaryError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from curator.facts import Facts
    from curator.resolve import Catalogue, Host, Image

# Most of what is asked is known without an index.
PATIENCE_S: Final = 5.0


@click.command(cls=Verb)
@click.argument("name")
@host_options
@index_options
@verb
def explain(console: Console, name: str, **given: Any) -> None:  # noqa: ANN401 - click's options
    """Explain NAME: a tag, image, cell, or combination such as tensorflow-1.8-cuda9.2; or a code.

    A combination that no image has is explained from what its publisher documents.
    """
    from curator.cli._combination import about  # noqa: PLC0415
    from curator.facts import facts  # noqa: PLC0415

    known = facts()
    if _explain_code(console, name, known):
        return
    catalogue, failure = _published(console, given)
    image = _named(catalogue, name) if catalogue else None
    if image is not None and catalogue is not None:
        _explain_image(console, image, catalogue, host_of(given), known)
        return
    host = host_of(given) if is_host_told(given) else None
    found = about(console, name, catalogue, known, host)
    if found is None:
        raise _unknown(name, failure)
    if failure is not None:
        console.warn("no-index", f"no index was read: {failure}")
    console.lines(*found)


def _unknown(name: str, failure: CuratorError | None) -> CuratorError:
    """Return the error for a name that nobody knows; a later try may read the index that does."""
    message = f"nothing is known of {name!r}"
    if isinstance(failure, TemporaryError):
        return TemporaryError(f"{message}, and no index was read: {failure}")
    hint = "name it as tensorflow-1.8-cuda9.2, pytorch:2.9, an image's id, or a code"
    unknown = Diagnostic(code="unknown", message=message, hint=hint)
    if failure is None:
        return InputError(unknown)
    unread = f"no index was read: {failure}"
    return InputError(unknown, Diagnostic(code="no-index", message=unread, severity="warning"))


def _published(
    console: Console, given: dict[str, Any]
) -> tuple[Catalogue | None, CuratorError | None]:
    """Return the catalogue, or why there is none: what ships with the package needs no index."""
    try:
        return catalogue_of(console, given, timeout_s=PATIENCE_S), None
    except InputError:
        raise
    except CuratorError as error:
        return None, error


def _explain_code(console: Console, name: str, known: Facts) -> bool:
    """Explain a rule or the code of an error or finding; False if it is none."""
    from curator import errors  # noqa: PLC0415
    from curator.codes import CODES  # noqa: PLC0415

    rule = known.rules.get(name)
    if rule is not None:
        lines = [f"{rule.name} ({rule.gate})", *(f"  {s}: {t}" for s, t in rule.says.items())]
        lines.append(f"  source: {rule.source}, read {rule.read}")
        console.lines(lines, {"rule": name, "source": rule.source, "says": dict(rule.says)})
        return True
    if name not in CODES:
        return False
    means, advice = CODES[name]
    kinds = [kind for kind in vars(errors).values() if getattr(kind, "code", None) == name]
    ends = "".join(f" (exit {kind.exit_code})" for kind in kinds[:1])
    data = {"code": name, "text": means, "do": advice}
    console.lines([f"{name}: {means}{ends}", f"  {advice}"], data)
    return True


def _named(catalogue: Catalogue, name: str) -> Image | None:
    """Return the image of a name; of a whole reference, as `--pin` prints it, the digest counts."""
    place, at, digest = name.removeprefix(f"{catalogue.registry}/").partition("@")
    return catalogue.find(digest if at else place)


def _explain_image(
    console: Console, image: Image, catalogue: Catalogue, host: Host, known: Facts
) -> None:
    from curator.resolve import judge  # noqa: PLC0415

    judgement = judge(image, host, known)
    lines = [
        *_about(image, catalogue),
        f"On {described(host)}: {judgement.says}",
        *gate_lines(judgement),
    ]
    data = {
        "id": image.id,
        "reference": catalogue.reference(image),
        "host": host.to_json(),
        "state": image.state,
        "reason": image.reason,
        "replaced_by": image.replaced_by,
        "tests": [test.to_json() for test in image.tests],
        **judgement.to_json(),
    }
    console.lines(lines, data)


def _about(image: Image, catalogue: Catalogue) -> Iterator[str]:
    """Yield what an image is, whatever the host."""
    label = image.label
    yield f"{image.name}  {image.state}{f': {image.reason}' if image.reason else ''}"
    if image.replaced_by:
        yield f"  replaced by {image.replaced_by}"
    yield f"  {image.framework} {image.version}, CUDA {label.cuda}, Python {image.python}"
    yield f"  {catalogue.reference(image)}"
    yield f"  kernels: {'not read' if label.cubin is None else ' '.join(label.cubin) or 'none'}"
    if label.ptx:
        yield f"  PTX: {' '.join(label.ptx)}"
    for test in image.tests:
        yield (
            f"  {test.verdict} {test.at[:10]} on {test.gpu or test.sm} (sm {test.sm}), "
            f"driver {test.driver}, evidence {test.evidence or 'none'}"
        )
