"""Which tests would cover what the published images claim: `smoke --plan`."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from curator import settings
from curator.cli._ports import now
from curator.coverage import Grid, Host, cover, image_of
from curator.errors import Diagnostic, InputError
from curator.facts import facts
from curator.host import host_facts
from curator.index import read_index
from curator.matrix import select
from curator.smoke import Probes
from curator.store import open_store

if TYPE_CHECKING:
    from curator.cli._console import Console
    from curator.coverage import CoverPlan

HOST = re.compile(r"(?:sm_?)?(\d+)\.?(\d)/(\d+)(?:\.\d+)*")


def plan_tests(console: Console, selectors: tuple[str, ...], hosts: tuple[str, ...]) -> None:
    """Print the smallest set of tests on these hosts, and what stays uncovered with its reason."""
    tree, matrix = console.load()
    found = settings.resolve(console.root(), matrix.farm, os.environ, settings.Overrides())
    entries = read_index(open_store(found.store, os.environ)).entries
    cells = {cell.id: cell for cell in matrix.cells}
    known = [entry for entry in entries if entry.cell in cells and entry.is_published]
    chosen = set(select([entry.cell for entry in known], selectors)) if known else set()
    probes = Probes(tree)
    images = [
        image_of(entry, probes.assemble(cells[entry.cell], matrix.locks[entry.cell]).key)
        for entry in known
        if entry.cell in chosen
    ]
    made = cover(
        images,
        [_host(text) for text in hosts] or _this_host(),
        Grid(facts().gpus),
        now=now(),
        max_age_days=matrix.farm.evidence_days,
    )
    console.answer(_text(made, len(images)), made.to_json())


def _host(text: str) -> Host:
    """Read `9.0/580`, `sm_90/580` or `90/580.95.05`."""
    match = HOST.fullmatch(text)
    if match is None:
        message = f"not a compute capability and a driver branch: {text!r}"
        raise InputError(Diagnostic(code="host", message=message, hint="write it as 9.0/580"))
    return Host(sm=f"{match[1]}.{match[2]}", driver=int(match[3]))


def _this_host() -> list[Host]:
    here = host_facts()
    if not here.gpus or here.driver is None:
        hint = "name hosts that you have, such as --host 9.0/580 --host 7.5/535"
        raise InputError(Diagnostic(code="host", message="this host has no GPU", hint=hint))
    branch = int(here.driver.partition(".")[0])
    return [Host(sm=sm, driver=branch) for sm in sorted({gpu.sm for gpu in here.gpus})]


def _text(made: CoverPlan, images: int) -> str:
    lines = [
        f"  test {test.image} on sm {test.host.sm}, driver {test.host.driver}"
        for test in made.tests
    ]
    for item in made.uncovered:
        drivers = ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in item.drivers)
        where = f"sm {', '.join(item.sm)}; drivers {drivers}: " if item.sm else ""
        lines.append(f"  uncovered {item.image}: {where}{item.reason}")
    lines += [f"  unusable host {host}: {reason}" for host, reason in made.unusable]
    left = len({item.image for item in made.uncovered})
    closing = f"{len(made.tests)} tests for {images} images; {left} images keep uncovered claims."
    return "\n".join([*lines, closing])
