"""Choosing cells by their ids, and handing the choice to other tools."""

from __future__ import annotations

import difflib
import re
from fnmatch import translate
from typing import TYPE_CHECKING, Any

from curator.errors import EmptySelectionError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from curator.matrix._values import Cell

GITHUB_LIMIT = 256
_INNERMOST = re.compile(r"\{([^{}]*)\}")


def select(ids: Iterable[str], selectors: Sequence[str]) -> tuple[str, ...]:
    """Return the ids that the selectors choose, in the given order; no selector chooses all.

    A selector is a shell glob over the whole id, with `{a,b}` for alternatives; several are a
    union, and `!glob` takes away from it (from everything, if only such are given).

    Raises:
        EmptySelectionError: a selector matches nothing; the message names the nearest ids.
    """
    known = list(dict.fromkeys(ids))
    wanted = [text for text in selectors if not text.startswith("!")]
    chosen = {name for text in wanted for name in _matching(known, text)}
    if not wanted:
        chosen = set(known)
    for text in selectors:
        if text.startswith("!"):
            chosen.difference_update(_matching(known, text[1:]))
    if selectors and not chosen:
        raise EmptySelectionError(f"{' '.join(selectors)} leaves no cell")
    return tuple(name for name in known if name in chosen)


def _matching(known: Sequence[str], selector: str) -> list[str]:
    patterns = [re.compile(translate(text)) for text in braces(selector)]
    found = [name for name in known if any(pattern.match(name) for pattern in patterns)]
    if not found:
        near = difflib.get_close_matches(selector, known, n=3, cutoff=0.3)
        nearest = f"; nearest: {', '.join(near)}" if near else ""
        raise EmptySelectionError(f"no cell matches {selector!r}{nearest}")
    return found


def braces(text: str) -> list[str]:
    """Return the alternatives of a text with braces: `a{b,c}` -> `ab`, `ac`.

    A pair without a comma stands for itself without the braces; unpaired braces are literal.
    """
    match = _INNERMOST.search(text)
    if match is None:
        return [text]
    before, after = text[: match.start()], text[match.end() :]
    return [full for part in match[1].split(",") for full in braces(before + part + after)]


def emit_github(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Return GitHub Actions matrices of at most 256 jobs each, the most one matrix may have."""
    rows = [cell.to_json() for cell in cells]
    chunks = range(0, len(rows), GITHUB_LIMIT)
    return [{"include": rows[start : start + GITHUB_LIMIT]} for start in chunks]


def emit_bake(
    cells: Sequence[Cell], base_keys: Mapping[tuple[str, str], str], epoch: int
) -> dict[str, Any]:
    """Return a bake file with a target per cell, over contexts that `curator render -o` wrote.

    `base_keys` is (base, platform) -> key, the tag of a base in the farm's registry; REGISTRY and
    UV (a directory with uv's binary) are variables of the file. Bake refuses dots in target names,
    so they become underscores.
    """
    names = {cell.id: re.sub(r"[^A-Za-z0-9_-]", "_", cell.id) for cell in cells}
    targets = {
        names[cell.id]: {
            "args": {"SOURCE_DATE_EPOCH": str(epoch)},
            "context": f"./{cell.id}",
            "contexts": {
                "base": (
                    f"docker-image://${{REGISTRY}}/base/{cell.base}"
                    f":{base_keys[cell.base, str(cell.platform)]}"
                ),
                "uv": "${UV}",
            },
            "platforms": [str(cell.platform)],
            "secret": ["id=ca,src=/etc/ssl/certs/ca-certificates.crt", "id=uv,src=/dev/null"],
            "tags": [f"{cell.framework}:{cell.id.removeprefix(cell.framework + '-')}"],
        }
        for cell in cells
    }
    return {
        "variable": {"REGISTRY": {"default": "127.0.0.1:5000"}, "UV": {"default": "./uv"}},
        "group": {"default": {"targets": list(names.values())}},
        "target": targets,
    }
