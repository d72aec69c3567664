"""What the page's rules look at, as JSON: the catalogue without its prose, and the facts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from curator.facts import Facts
    from curator.resolve import Catalogue

# Columns of a catalogue that neither decide nor are shown in an answer.
_LEFT_OUT: Final = frozenset(
    {"cell", "contents", "cudnn", "evidence", "published", "reason", "replaced_by", "size"}
)


def embedded(known: Catalogue) -> dict[str, Any]:
    """Return a catalogue's document with the columns that the selector needs."""
    document: dict[str, Any] = json.loads(known.data)
    for columns in (document, document["tests"]):
        for kind in ("coded", "plain"):
            columns[kind] = {
                name: column for name, column in columns[kind].items() if name not in _LEFT_OUT
            }
    return document


def facts_of(facts: Facts) -> dict[str, Any]:
    """Return the facts as the scripts of the rules take them; the sources are those of rules."""
    return {
        "capabilities": {
            name: {
                "first_driver": found.first_driver,
                "last_driver": found.last_driver,
                "last_cuda": found.last_cuda,
                "first_cuda": found.first_cuda,
            }
            for name, found in facts.capabilities.items()
        },
        "branches": {
            str(number): {"cuda": found.cuda, "ptx": found.ptx}
            for number, found in facts.branches.items()
        },
        "forward": {cuda: list(found.branches) for cuda, found in facts.forward.items()},
        "first_drivers": {
            name: found.first_driver for name, found in facts.products.items() if found.first_driver
        },
        "products": [
            {
                "name": found.name,
                "sm": found.sm,
                "kind": found.kind,
                "aliases": list(found.aliases),
            }
            for found in facts.products.values()
        ],
        "rules": {
            name: {
                "says": dict(found.says),
                "change": [list(change) for change in found.change],
                "source": found.source,
            }
            for name, found in facts.rules.items()
        },
    }
