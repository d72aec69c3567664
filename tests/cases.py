"""The table of hosts and images from public issues and documents (`data/cases.json`)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from curator.oci import sha256
from curator.resolve import Host, Image, Label


@dataclass(frozen=True)
class Case:
    """A host, an image, and what became of it; `gate` and `rule` are the first that decided."""

    id: str
    source: str
    host: Host
    image: Image
    says: str
    gate: str | None
    rule: str | None


def _case(row: dict[str, dict[str, str]], name: str) -> Case:
    image = row["image"]
    return Case(
        id=name,
        source=row["source"]["url"],
        host=Host.from_json(row["host"]),
        image=Image(
            id=name,
            cell=name,
            framework=image.get("framework") or "none",
            version=image.get("version") or "0",
            python="3",
            repository="x",
            digest=sha256(name.encode()),
            label=Label.from_json(image),
        ),
        says=row["expect"]["says"],
        gate=row["expect"]["gate"],
        rule=row["expect"]["rule"],
    )


CASES = tuple(
    _case(row, row["id"])
    for row in json.loads((Path(__file__).parent / "data/cases.json").read_text())["cases"]
)
