"""Verbs about what is published: index show, verify, diff, status, rebuild; audit."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from curator.cli._console import STORE_HELP, Console, Group, Verb, located, verb
from curator.errors import Diagnostic, EmptySelectionError, InputError
from curator.settings import Overrides, resolve

# What is left of an index that is damaged.
PARTS = ("v1/gen/", "v1/evidence/")

if TYPE_CHECKING:
    from collections.abc import Iterable

    from curator.index import Entry, Index, SigningKey
    from curator.ports import Store
    from curator.publish import Finding, Target
    from curator.settings import Settings


@click.group(cls=Group)
def index() -> None:
    """Look at the published documents."""


def _settings(console: Console, store: str | None, registry: str | None = None) -> Settings:
    _, loaded = console.load()
    overrides = Overrides(store=located(store), registry=registry)
    return resolve(console.root(), loaded.farm, os.environ, overrides)


def _place(console: Console, store: str | None) -> str:
    """Return the place that a flag names, or the farm's: looking at one takes no farm."""
    return located(store) or os.environ.get("CURATOR_STORE") or _settings(console, None).store


def _store(console: Console, store: str | None) -> Store:
    """Return the store to look at.

    Raises:
        InputError: there is no index.
    """
    from curator.index import HEAD_PATH  # noqa: PLC0415
    from curator.store import open_store  # noqa: PLC0415

    place = _place(console, store)
    found = open_store(place, os.environ)
    if found.read(HEAD_PATH) is None and not any(found.list(part) for part in PARTS):
        raise _nothing(place)
    return found


def _nothing(place: str) -> InputError:
    from curator.store import shown  # noqa: PLC0415

    message = f"there is no index at {shown(place)}"
    hint = "look at --store and CURATOR_STORE for a slip; the first publish makes an index"
    return InputError(Diagnostic(code="store", message=message, hint=hint))


@index.command()
@click.argument("selectors", nargs=-1)
@click.option("--store", metavar="PLACE", help=STORE_HELP)
@verb
def show(console: Console, selectors: tuple[str, ...], *, store: str | None) -> None:
    """Print the entries that SELECTORS choose: every document is checked against its hash."""
    from curator.index import read_index  # noqa: PLC0415
    from curator.matrix import select  # noqa: PLC0415

    found = read_index(_store(console, store))
    chosen = set(select([entry.cell for entry in found.entries], selectors))
    entries = [entry for entry in found.entries if entry.cell in chosen]
    lines = (line for entry in entries for line in _lines(entry))
    console.lines(lines, {"entries": [entry.to_json() for entry in entries]})


def _lines(entry: Entry) -> tuple[str, str]:
    reason = f" ({entry.status.reason})" if entry.status.reason else ""
    return f"{entry.id}  {entry.status.state}{reason}", f"    {entry.repository}@{entry.digest}"


@index.command()
@click.option("--store", metavar="PLACE", help=STORE_HELP)
@click.option(
    "--key",
    "keys",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="A public key to trust, in place of those that the store itself names.",
)
@click.option("--threshold", type=click.IntRange(1), help="How many of the keys have to sign.  [1]")
@verb
def verify(
    console: Console, *, store: str | None, keys: tuple[Path, ...], threshold: int | None
) -> None:
    """Check signature, chain, hashes and shape of every document; exits with 1 on any finding."""
    if threshold is not None and not keys:
        raise click.UsageError("--threshold is for the keys that --key names")
    from curator.cli._ports import now  # noqa: PLC0415
    from curator.publish import check_store  # noqa: PLC0415

    trusted = _trusted(keys)
    checked = check_store(_store(console, store), now(), keys=trusted, threshold=threshold or 1)
    tip = checked.tip.generation if checked.tip else None
    state = f"generation {tip.number}, {tip.count} entries" if tip else "nothing is published"
    data = {
        "generation": tip.number if tip else 0,
        "entries": tip.count if tip else 0,
        "findings": [finding.to_json() for finding in checked.findings],
    }
    lines = [*_findings(checked.findings), f"{state}: {_count(checked.findings)}"]
    console.lines(lines, data, status="ok" if not checked.findings else "findings")
    if checked.findings:
        raise SystemExit(1)


def _trusted(keys: Iterable[Path]) -> list[SigningKey]:
    from curator.sign import public_key  # noqa: PLC0415

    return [public_key(path.read_bytes()) for path in keys]


def _findings(findings: Iterable[Finding]) -> list[str]:
    return [f"{item.code:<14} {item.subject}: {item.message}" for item in findings]


def _count(findings: Iterable[Finding]) -> str:
    number = len(list(findings))
    return f"{number} findings" if number != 1 else "1 finding"


@index.command()
@click.argument("first", metavar="[FROM]", required=False, type=click.IntRange(0))
@click.argument("second", metavar="[TO]", required=False, type=click.IntRange(1))
@click.option("--store", metavar="PLACE", help=STORE_HELP)
@verb
def diff(console: Console, first: int | None, second: int | None, *, store: str | None) -> None:
    """Say what changed between two generations; without numbers, what the newest one changed."""
    from curator.index import read_tip  # noqa: PLC0415

    source = _store(console, store)
    tip = read_tip(source)
    if tip is None:
        raise EmptySelectionError("nothing is published")
    new = second if second is not None else tip.generation.number
    old = first if first is not None else new - 1
    before, after = _state(source, old), _state(source, new)
    added, changed, gone = _compared(before, after)
    moved = {
        name: (before.tags.get(name), after.tags.get(name))
        for name in sorted(before.tags.keys() | after.tags.keys())
        if before.tags.get(name) != after.tags.get(name)
    }
    lines = [
        *(f"  + {name}" for name in added),
        *(f"  ~ {name}" for name in changed),
        *(f"  - {name}" for name in gone),
        *(f"  > {name}  {a or 'absent'} -> {b or 'absent'}" for name, (a, b) in moved.items()),
        (
            f"Generation {old} to {new}: {len(added)} added, {len(changed)} changed, "
            f"{len(gone)} gone, {len(moved)} tags moved."
        ),
    ]
    data = {
        "from": old,
        "to": new,
        "added": added,
        "changed": changed,
        "gone": gone,
        "tags": {name: {"from": a, "to": b} for name, (a, b) in moved.items()},
    }
    console.lines(lines, data)


def _state(source: Store, number: int) -> Index:
    from curator.index import Index, read_generation, read_groups  # noqa: PLC0415

    if number == 0:
        return Index()
    tip = read_generation(source, number)
    if tip is None:
        message = f"there is no generation {number}"
        raise InputError(Diagnostic(code="generation", message=message))
    return read_groups(source, tip)


def _compared(before: Index, after: Index) -> tuple[list[str], list[str], list[str]]:
    old = {entry.id: entry for entry in before.entries}
    new = {entry.id: entry for entry in after.entries}
    changed = [name for name in sorted(old.keys() & new.keys()) if old[name] != new[name]]
    return sorted(new.keys() - old.keys()), changed, sorted(old.keys() - new.keys())


@index.command()
@click.argument("publish", metavar="[ID]", required=False)
@click.option("--store", metavar="PLACE", help=STORE_HELP)
@verb
def status(console: Console, publish: str | None, *, store: str | None) -> None:
    """Say which generation holds the publish ID, after whatever crash; exits with 1 if none does.

    Without an ID: the newest generation, and how far the head is.
    """
    from curator.index import head_tip, read_tip  # noqa: PLC0415
    from curator.publish import generation_of  # noqa: PLC0415

    source = _store(console, store)
    if publish is not None:
        number = generation_of(source, publish)
        text = f"committed in generation {number}" if number else "not committed"
        console.answer(text, {"publish": publish, "generation": number})
        if number is None:
            raise SystemExit(1)
        return
    tip, head = read_tip(source), head_tip(source)
    newest, named = (found.generation.number if found else 0 for found in (tip, head))
    entries = tip.generation.count if tip else 0
    text = f"generation {newest}, {entries} entries; the head names {named}"
    console.answer(text, {"generation": newest, "head": named, "entries": entries})


@index.command()
@click.option("--store", metavar="PLACE", help=STORE_HELP)
@click.option("--to", required=True, metavar="PLACE", help="The new place, which has no index yet.")
@click.option("--registry", metavar="HOST[/PREFIX]", help="Where the images are.")
@verb
def rebuild(console: Console, *, store: str | None, to: str, registry: str | None) -> None:
    """Make the index again, from the evidence of a store and the registry alone.

    It is made at a new place, as another store: readers that pinned the old one are told so.
    Exits with 1 where something had to be left out.
    """
    from curator.cli._ports import destination  # noqa: PLC0415
    from curator.farm import target_of  # noqa: PLC0415
    from curator.publish import rebuild as made_again  # noqa: PLC0415

    _, loaded = console.load()
    place = destination(_settings(console, to, registry), loaded.farm)
    made = made_again(_store(console, store), target_of(place, place.now()))
    lines = [*(f"left out: {why}" for why in made.left_out), f"{len(made.index.entries)} entries"]
    data = {"entries": len(made.index.entries), "left_out": list(made.left_out)}
    console.lines(lines, data, status="findings" if made.left_out else "ok")
    if made.left_out:
        raise SystemExit(1)


@click.command(cls=Verb)
@click.option("--repair", is_flag=True, help="Mend what can be mended; deletes nothing.")
@click.option("--store", metavar="PLACE", help=STORE_HELP)
@click.option("--registry", metavar="HOST[/PREFIX]", help="Where images are published.")
@verb
def audit(console: Console, *, repair: bool, store: str | None, registry: str | None) -> None:
    """Compare registry and store with the index; exits with 1 while anything differs."""
    from curator.publish import audit as compare  # noqa: PLC0415

    _store(console, store)
    found = compare(_target(console, store, registry), repair=repair)
    lines = [
        *_findings(found.findings),
        *(f"repaired: {what}" for what in found.repaired),
        f"{_count(found.findings)}, {len(found.left)} left",
    ]
    console.lines(lines, found.to_json(), status="ok" if not found.left else "findings")
    if found.left:
        raise SystemExit(1)


def _target(console: Console, store: str | None, registry: str | None) -> Target:
    from curator.cli._ports import destination  # noqa: PLC0415
    from curator.farm import target_of  # noqa: PLC0415

    _, loaded = console.load()
    to = destination(_settings(console, store, registry), loaded.farm)
    return target_of(to, to.now())
