"""Writes pages: templates that escape, one script and its hash, data that cannot end its element.

- Nothing is run or loaded but what stands beside the page: a Content-Security-Policy says so, with
  the hash of the page's one script.
- Data is JSON in which no `<` stands as itself, so that no text can close the element.

Source: Content Security Policy Level 3, "script-src" with hashes; HTML, "Restrictions for contents
of script elements".
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

import jinja2
from markupsafe import Markup

from curator.page._names import COMMAND, minute

if TYPE_CHECKING:
    from collections.abc import Mapping

COMMON: Final = ("common.js",)
SELECTOR: Final = (
    "common.js",
    "versions.js",
    "compat.js",
    "judge.js",
    "rules.js",
    "words.js",
    "answers.js",
    "selector.js",
)
_ESCAPES: Final = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}
COLOURS: Final[Mapping[str, str]] = {
    "brightgreen": "#2a7d2e",
    "lightgrey": "#6a6a6a",
    "orange": "#a85d00",
    "red": "#b3261e",
}


@dataclass(frozen=True, slots=True)
class Script:
    """The text of a page's script, and the source that a policy allows it by."""

    text: Markup
    source: Markup


def read(name: str) -> str:
    """Return the text of a file of this package."""
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def page(template: str, *, scripts: tuple[str, ...] = COMMON, **values: Any) -> str:  # noqa: ANN401 - what a template shows
    """Return a page."""
    return (
        _environment()
        .get_template(template)
        .render(script=script(scripts), command=COMMAND, **values)
    )


@cache
def script(names: tuple[str, ...]) -> Script:
    """Return the one script of a page, put together from files of this package."""
    text = "\n" + "\n".join(map(code, names))
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return Script(Markup(text), Markup(f"'sha256-{digest}'"))  # noqa: S704 - our own files


@cache
def code(name: str) -> str:
    """Return a script without its comments and indentation, which are for those who write it.

    No text of a script goes over several lines (a test looks), so that each line can be cut alone.
    """
    lines = (line.strip() for line in read(name).splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("//"))


def data(value: object) -> Markup:
    """Return a value as JSON that can stand in a script element."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    for letter, escape in _ESCAPES.items():
        text = text.replace(letter, escape)
    return Markup(text)  # noqa: S704 - nothing in it can end the element


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(read),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["minute"] = minute
    environment.filters["data"] = data
    return environment


# A letter of the badge's font is as wide as this on the average, in tenths of a pixel.
_LETTER: Final = 66


def badge(label: str, message: str, colour: str) -> str:
    """Return a badge as a picture; its widths are those of the texts, nearly."""
    left, right = (len(text) * _LETTER // 10 + 12 for text in (label, message))
    return page(
        "badge.svg.j2",
        label=label,
        message=message,
        colour=COLOURS.get(colour, COLOURS["lightgrey"]),
        left=left,
        right=right,
    )
