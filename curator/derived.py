"""The files that are made from the index for people and tools that do not walk it.

All of them can be made again from the documents at any time; nothing is ever decided on them.

    v1/index.json                everything in one file, while the farm is small enough for that
    v1/framework/<name>.json     the entries and moving tags of one framework
    v1/badge/<name>.json         the newest image, in the shape of shields' endpoint badges
    v1/feed.xml                  the last changes, as an Atom feed
    v1/schema/<name>.json        JSON Schema of each document, from the models that read them

Source: https://shields.io/badges/endpoint-badge, RFC 4287 (Atom).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final
from xml.etree import ElementTree as ET

from packaging.version import Version
from pydantic import TypeAdapter
from pydantic_core import to_json

from curator.index import (
    ENTRY_VERSION,
    SPEC,
    Config,
    Entry,
    EntryChange,
    FrameworkFile,
    Generation,
    Group,
    Head,
    Model,
    Record,
    Report,
    Shard,
    WholeFile,
    instant,
)
from curator.oci import canonical_json, hex_of, sha256

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from curator.index import State, Tip
    from curator.oci import Digest

WHOLE_PATH: Final = "v1/index.json"
FEED_PATH: Final = "v1/feed.xml"
# A file of everything has about 2.5 kB for each entry, and readers take 8 MiB.
MAX_ENTRIES: Final = 2000
MAX_CHANGES: Final = 50
# Of the kinds of GPU on which an image failed, so many are named; its page names all.
MAX_TOLD: Final = 2
SCHEMA: Final = "https://json-schema.org/draft/2020-12/schema"
MODELS: Final[Mapping[str, type[Model]]] = {
    "config": Config,
    "entry": Entry,
    "framework": FrameworkFile,
    "generation": Generation,
    "group": Group,
    "head": Head,
    "index": WholeFile,
    "record": Record,
    "report": Report,
    "shard": Shard,
}
ATOM: Final = "http://www.w3.org/2005/Atom"
ORDER: Final[tuple[State, ...]] = ("active", "candidate", "deprecated")
COLOURS: Final[Mapping[State, str]] = {
    "active": "brightgreen",
    "candidate": "lightgrey",
    "deprecated": "orange",
}


class Recent(EntryChange):
    """A change with its generation and time, as the feed shows it."""

    gen: int
    at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdicts:
    """What the newest GPU tests of an image come to: whether one passed, and where some failed.

    `failed` names compute capabilities (`sm 8.0`), and the driver's branch too where the same
    capability passed with another one.
    """

    has_passed: bool
    failed: tuple[str, ...]

    @property
    def failed_on(self) -> str:
        """Where it failed, in a few words; nothing if it did not."""
        if not self.failed:
            return ""
        more = len(self.failed) - MAX_TOLD
        told = ", ".join(self.failed[:MAX_TOLD])
        return f"failed on {told} and {more} more" if more > 0 else f"failed on {told}"


def verdicts(tests: Iterable[tuple[str, str, str, str]]) -> Verdicts:
    """Return what GPU tests come to; each is its capability, driver, `pass` or `fail`, and time.

    Of the same capability and driver branch the newest counts.
    """
    ordered = sorted(tests, key=lambda test: instant(test[-1]))
    newest_of = {(sm, driver.partition(".")[0]): verdict for sm, driver, verdict, _ in ordered}
    passed = {sm for (sm, _), verdict in newest_of.items() if verdict == "pass"}
    failed = sorted(host for host, verdict in newest_of.items() if verdict == "fail")
    told = [
        f"sm {sm} with driver {branch}" if sm in passed else f"sm {sm}" for sm, branch in failed
    ]
    return Verdicts(has_passed=bool(passed), failed=tuple(dict.fromkeys(told)))


@dataclass(frozen=True, slots=True)
class Listed:
    """A published or other entry as its document has it, and as one line of text."""

    id: str
    line: str
    value: Mapping[str, Any]

    @property
    def is_published(self) -> bool:
        """As `Entry.is_published`."""
        return bool(self.value.get("tags")) and self.value["status"]["state"] in ORDER

    @property
    def verdicts(self) -> Verdicts:
        """What its GPU tests come to."""
        return verdicts(
            (test["sm"], test["driver"], test["verdict"], test["at"])
            for test in self.value.get("tests", ())
            if test["suite"] == "gpu" and test.get("sm") and test.get("driver")
        )


def listed(shard: bytes) -> tuple[Listed, ...]:
    """Return the entries of a shard's document; those of a later version are not shown."""
    # A shard is canonical JSON, and so is a part of it that is written in the order it was read.
    return tuple(
        Listed(entry["id"], to_json(entry).decode(), entry)
        for entry in json.loads(shard)["entries"]
        if entry["v"] == ENTRY_VERSION
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What some groups hold, for showing it: their entries and moving tags."""

    entries: Sequence[Listed]
    tags: Mapping[str, Digest]

    @property
    def lines(self) -> list[str]:
        """Every entry as a line, by id."""
        return [entry.line for entry in sorted(self.entries, key=lambda entry: entry.id)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Framework:
    """What a framework's files are made of.

    `view` is None where there are too many entries for one file; `newest` is looked for all the
    same.
    """

    name: str
    view: View | None
    newest: Listed | None


def framework_path(name: str) -> str:
    """Return where a framework's entries stand."""
    return f"v1/framework/{name}.json"


def badge_path(name: str) -> str:
    """Return where a framework's badge stands."""
    return f"v1/badge/{name}.json"


def whole_file(tip: Tip, registry: str, view: View | None) -> bytes:
    """Return the one file that holds everything; `view` is None where that would be too much.

    One line for each field and each entry: easy to compare.
    """
    fields = {
        "spec": SPEC,
        "store": tip.generation.store,
        "registry": registry,
        "generation": tip.generation.number,
        "sha256": tip.sha256,
        "at": tip.generation.at,
        "tags": dict(view.tags) if view else None,
    }
    return _file(fields, view.lines if view else None)


def framework_file(tip: Tip, registry: str, framework: Framework) -> bytes:
    """Return the entries and moving tags of one framework; it changes only when they do."""
    fields = {
        "spec": SPEC,
        "store": tip.generation.store,
        "registry": registry,
        "framework": framework.name,
        "tags": dict(framework.view.tags) if framework.view else None,
    }
    return _file(fields, framework.view.lines if framework.view else None)


def _file(fields: Mapping[str, object], lines: Sequence[str] | None) -> bytes:
    texts = {name: canonical_json(value).decode() for name, value in fields.items()}
    if lines is None:
        texts["entries"] = "null"
    else:
        body = ",\n".join(lines)
        texts["entries"] = f"[\n{body}\n]" if lines else "[]"
    body = ",\n".join(f'"{name}":{text}' for name, text in sorted(texts.items()))
    return f"{{\n{body}\n}}\n".encode()


def newest(entries: Iterable[Listed]) -> Listed | None:
    """Return the published entry of the newest version; one that a GPU tested goes first."""
    return max((entry for entry in entries if entry.is_published), key=_rank, default=None)


def _rank(entry: Listed) -> tuple[int, Version, Version, str]:
    stack, state = entry.value["stack"], entry.value["status"]["state"]
    return (
        -ORDER.index(state),
        Version(stack["version"]),
        Version(stack["cuda"]),
        instant(entry.value.get("published")),
    )


def badge(framework: Framework) -> bytes:
    """Return a framework's badge: its newest image, and what GPUs say of it."""
    message, colour = "no image", "red"
    if framework.newest is not None:
        entry = framework.newest.value
        told, colour = _told(framework.newest)
        message = f"{entry['stack']['version']} CUDA {entry['stack']['cuda']}, {told}"
    fields = {"schemaVersion": 1, "label": framework.name, "message": message, "color": colour}
    return canonical_json(fields)


def _told(entry: Listed) -> tuple[str, str]:
    state, found = entry.value["status"]["state"], entry.verdicts
    if found.failed and not found.has_passed:
        return found.failed_on, "red"
    if found.failed:
        return f"tested, {found.failed_on}", "orange"
    return "tested on a GPU" if state == "active" else state, COLOURS[state]


def recent_of(tips: Iterable[Tip]) -> Iterator[Recent]:
    """Yield what generations changed."""
    for tip in tips:
        generation = tip.generation
        for change in generation.changes:
            yield Recent(gen=generation.number, at=generation.at, **change.to_json())


def feed(store: str, registry: str, recent: Sequence[Recent]) -> bytes:
    """Return the last changes as an Atom feed, the newest first.

    Links are relative to the feed: the page of each image stands beside the documents.

    Source: RFC 4287, 4.1.1 and 4.1.2.
    """
    root = ET.Element("feed", xmlns=ATOM)
    _add(root, "id", f"urn:uuid:{store}")
    _add(root, "title", f"Images of {registry}")
    _add(root, "updated", recent[-1].at if recent else "1970-01-01T00:00:00Z")
    _link(root, "self", "feed.xml", "application/atom+xml")
    _link(root, "alternate", "../index.html", "text/html")
    _add(ET.SubElement(root, "author"), "name", "curator")
    for change in reversed(recent):
        _add_change(root, store, registry, change)
    ET.indent(root)
    data: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return data + b"\n"


def _add_change(root: ET.Element, store: str, registry: str, change: Recent) -> None:
    entry = ET.SubElement(root, "entry")
    name = hex_of(sha256(f"{store} {change.gen} {change.entry}".encode()))
    _add(entry, "id", f"urn:sha256:{name}")
    _add(entry, "title", f"{change.entry}: {change.state}")
    _add(entry, "updated", change.at)
    _link(entry, "alternate", f"../image/{change.entry}.html", "text/html")
    where = f"{registry}/{change.repository}"
    tag = f" as {where}:{change.tag}" if change.tag else ""
    _add(entry, "summary", f"{where}@{change.digest}{tag}")


def _add(parent: ET.Element, name: str, text: str) -> None:
    ET.SubElement(parent, name).text = text


def _link(parent: ET.Element, rel: str, href: str, kind: str) -> None:
    ET.SubElement(parent, "link", rel=rel, href=href, type=kind)


@cache
def schemas() -> Mapping[str, bytes]:
    """Return the JSON Schema of each document, by path."""
    return {f"v1/schema/{name}.json": _schema(name, model) for name, model in MODELS.items()}


def _schema(name: str, model: type[Model]) -> bytes:
    made = TypeAdapter(model).json_schema(mode="validation")
    return canonical_json({**made, "$schema": SCHEMA, "$id": f"curator:v1/schema/{name}.json"})
