"""All images of an index in one compact document: what a resolver and the page look through.

The document has columns in place of rows, since most of ten thousand images are never looked at:

    {"v": 1, "registry": "...", "generation": 7, "sha256": "sha256:...", "at": TIME, "count": 2,
     "labels": [LABEL, ...],                     what the rules look at, each once
     "coded": {"version": {"values": ["2.9", "2.8"], "at": [0, 1]}, ...},
     "plain": {"id": ["...", "..."], "digest": [...], ...},
     "tests": {"image": [0, 0, 1], "coded": {"sm": {...}, ...}, "plain": {"at": [...], ...}}}

The place of an image is its number: the newest framework version is first, then CUDA, Python and
time of publishing. `values` of versions are in that order too. `tests.image` ascends.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Final

from packaging.version import Version

from curator import compat
from curator.errors import IntegrityError
from curator.oci import canonical_json
from curator.resolve._values import Image, Label, Tested

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from curator.compat import Stale
    from curator.index import Coverage, Entry, SuiteResult, Tip
    from curator.oci import Digest

VERSION: Final = 1
_DRIVER: Final = re.compile(r"[0-9]{1,4}(\.[0-9]{1,6}){0,3}")
_CODED: Final = (
    "framework",
    "version",
    "python",
    "repository",
    "channel",
    "state",
    "cudnn",
    "reason",
    "replaced_by",
    "contents",
)
_PLAIN: Final = ("id", "cell", "digest", "size", "tags", "moving", "published")
_TEST_CODED: Final = ("sm", "driver", "verdict", "gpu", "stale")
_TEST_PLAIN: Final = ("at", "evidence", "speed")


@dataclass(frozen=True, slots=True)
class Coded:
    """A column of which many fields are alike: the values, and for each row which one it has."""

    values: Sequence[Any]
    at: Sequence[int]

    def __getitem__(self, place: int) -> Any:  # noqa: ANN401 - a column's own kind
        return self.values[self.at[place]]

    def where(self, is_wanted: Callable[[Any], bool]) -> list[bool]:
        """Return for each value whether it is wanted."""
        return [is_wanted(value) for value in self.values]


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """The images of an index's state, by place; `ordered` and `catalogue` make one."""

    count: int
    labels: tuple[Label, ...]
    coded: Mapping[str, Coded]
    plain: Mapping[str, Sequence[Any]]
    tested: Sequence[int]
    test_coded: Mapping[str, Coded]
    test_plain: Mapping[str, Sequence[Any]]
    registry: str = ""
    generation: int = 0
    sha256: str = ""
    at: str = ""

    @property
    def images(self) -> Iterator[Image]:
        """Every image, in order."""
        return map(self.image, range(self.count))

    def image(self, place: int) -> Image:
        """Return an image by its place."""
        return Image(
            label=self.label(place),
            tests=self.tests(place),
            **{name: column[place] for name, column in self.coded.items() if name != "label"},
            **{name: _value(column[place]) for name, column in self.plain.items()},
        )

    def label(self, place: int) -> Label:
        """Return what the rules look at in an image."""
        return self.labels[self.coded["label"].at[place]]

    def tests(self, place: int, is_here: Sequence[bool] | None = None) -> tuple[Tested, ...]:
        """Return the tests of an image; with `is_here`, those on such codes of capabilities."""
        first = bisect_left(self.tested, place)
        last = bisect_left(self.tested, place + 1, first)
        sms = self.test_coded["sm"].at
        return tuple(
            self._test(row) for row in range(first, last) if is_here is None or is_here[sms[row]]
        )

    def _test(self, place: int) -> Tested:
        plain = {name: column[place] for name, column in self.test_plain.items()}
        plain["speed"] = plain["speed"] or {}
        return Tested(**{name: c[place] for name, c in self.test_coded.items()}, **plain)

    def reference(self, image: Image) -> str:
        """Return what to pull: a tag to read, and the digest that counts."""
        tag = f":{image.tags[0]}" if image.tags else ""
        place = f"{self.registry}/" if self.registry else ""
        return f"{place}{image.repository}{tag}@{image.digest}"

    def find(self, name: str) -> Image | None:
        """Return the image of a tag (`cupy:14.2`), an id, a cell (its newest) or a digest."""
        repository, _, tag = name.rpartition(":")
        for column in ("id", "digest", "cell"):
            if name in self.plain[column]:
                return self.image(self.plain[column].index(name))
        for place in range(self.count):
            tags = (*self.plain["tags"][place], *self.plain["moving"][place])
            if tag in tags and self.coded["repository"][place] == repository:
                return self.image(place)
        return None

    @cached_property
    def data(self) -> bytes:
        """The document, as the module describes it."""
        document = {
            "v": VERSION,
            "registry": self.registry,
            "generation": self.generation,
            "sha256": self.sha256,
            "at": self.at,
            "count": self.count,
            "labels": [label.to_json() for label in self.labels],
            "coded": _to_json(self.coded),
            "plain": self.plain,
            "tests": {
                "image": self.tested,
                "coded": _to_json(self.test_coded),
                "plain": self.test_plain,
            },
        }
        return canonical_json(document)

    @classmethod
    def read(cls, data: bytes) -> Catalogue:
        """Read what `data` gave; what stands in its columns is not looked at.

        Raises:
            IntegrityError: it is no such document.
        """
        try:
            value = json.loads(data)
            if value["v"] != VERSION:
                raise IntegrityError(f"a catalogue of version {value['v']}")
            made = cls(
                count=value["count"],
                labels=tuple(Label.from_json(label) for label in value["labels"]),
                coded=_coded(value["coded"], ("label", *_CODED)),
                plain={name: value["plain"][name] for name in _PLAIN},
                tested=value["tests"]["image"],
                test_coded=_coded(value["tests"]["coded"], _TEST_CODED),
                test_plain={name: value["tests"]["plain"][name] for name in _TEST_PLAIN},
                registry=value["registry"],
                generation=value["generation"],
                sha256=value["sha256"],
                at=value["at"],
            )
            columns = [*(column.at for column in made.coded.values()), *made.plain.values()]
            if any(len(column) != made.count for column in columns):
                raise IntegrityError("a catalogue whose columns differ in length")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise IntegrityError(f"this is no catalogue: {error!r}") from error
        return made


def catalogue(
    tip: Tip, registry: str, entries: Iterable[Entry], tags: Mapping[str, Digest]
) -> Catalogue:
    """Return the catalogue of a state: its entries and moving tags (`repository:tag` to digest).

    Tests are as old as they were when the state was published.
    """
    moving: dict[tuple[str, str], list[str]] = {}
    for name, digest in tags.items():
        repository, _, tag = name.rpartition(":")
        moving.setdefault((repository, digest), []).append(tag)
    now = compat.moment_of(tip.generation.at)
    return replace(
        ordered(_of(entry, moving, now) for entry in entries),
        registry=registry,
        generation=tip.generation.number,
        sha256=tip.sha256,
        at=tip.generation.at,
    )


def ordered(images: Iterable[Image]) -> Catalogue:
    """Return the catalogue of images."""
    rows = sorted(images, key=_newest, reverse=True)
    labels = {canonical_json(image.label.to_json()): image.label for image in rows}
    codes = {label: code for code, label in enumerate(labels)}
    numbers = [codes[canonical_json(image.label.to_json())] for image in rows]
    tests = [(place, test) for place, image in enumerate(rows) for test in image.tests]
    return Catalogue(
        count=len(rows),
        labels=tuple(labels.values()),
        coded={
            "label": Coded(range(len(labels)), numbers),
            **{name: _column([getattr(image, name) for image in rows]) for name in _CODED},
        },
        plain={name: [_plain(getattr(image, name)) for image in rows] for name in _PLAIN},
        tested=[place for place, _ in tests],
        test_coded={
            name: _column([getattr(test, name) for _, test in tests]) for name in _TEST_CODED
        },
        test_plain={
            name: [_plain(getattr(test, name)) for _, test in tests] for name in _TEST_PLAIN
        },
    )


def _column(fields: Sequence[Any]) -> Coded:
    """Return a coded column, its values in the order in which they first stand there."""
    codes = {value: code for code, value in enumerate(dict.fromkeys(fields))}
    return Coded(list(codes), [codes[value] for value in fields])


def _to_json(columns: Mapping[str, Coded]) -> dict[str, Any]:
    return {name: {"values": list(c.values), "at": list(c.at)} for name, c in columns.items()}


def _coded(columns: Mapping[str, Any], names: Iterable[str]) -> dict[str, Coded]:
    return {name: Coded(columns[name]["values"], columns[name]["at"]) for name in names}


def _plain(value: Any) -> Any:  # noqa: ANN401 - a field
    if isinstance(value, tuple):
        return list(value)
    return (dict(value) or None) if hasattr(value, "items") else value


def _value(value: Any) -> Any:  # noqa: ANN401 - a field
    return tuple(value) if isinstance(value, list) else value


def _newest(image: Image) -> tuple[Any, ...]:
    versions = (image.version, image.label.cuda, image.python)
    return (*map(_version, versions), (image.published or "").rstrip("Z"), image.id)


@lru_cache(maxsize=4096)
def _version(text: str) -> Version:
    return Version(text)


def _of(
    entry: Entry, moving: Mapping[tuple[str, str], Sequence[str]], now: datetime | None
) -> Image:
    stack = entry.stack
    tags = moving.get((entry.repository, entry.digest), ())
    return Image(
        id=entry.id,
        cell=entry.cell,
        framework=stack.framework,
        version=stack.version,
        python=stack.python,
        repository=entry.repository,
        digest=entry.digest,
        label=Label(
            cuda=stack.cuda,
            floor=entry.driver.min,
            platforms=entry.platforms,
            cubin=entry.sm.cubin if entry.sm else None,
            ptx=entry.sm.ptx if entry.sm else (),
            requires=entry.requires,
            forward=entry.forward,
            glibc=stack.glibc,
            built=stack.built,
            gaps=entry.gaps,
        ),
        size=entry.size,
        tags=entry.tags,
        moving=tuple(sorted(tags, key=lambda tag: (-len(tag), tag))),
        channel=entry.channel,
        state=entry.status.state,
        reason=entry.status.reason,
        replaced_by=entry.status.replaced_by,
        published=entry.published,
        cudnn=stack.cudnn,
        contents=_contents(entry),
        tests=tuple(
            Tested(
                sm=test.sm,
                driver=test.driver,
                verdict="pass" if test.verdict == "pass" else "fail",
                at=test.at,
                gpu=test.gpu,
                evidence=test.evidence,
                stale=_stale(test, entry.coverage, now),
                speed=test.speed or {},
            )
            for test in entry.tests
            if test.suite == "gpu" and test.verdict in {"pass", "fail"}
            if test.sm and test.driver and _DRIVER.fullmatch(test.driver)
        ),
    )


def _stale(test: SuiteResult, coverage: Coverage | None, now: datetime | None) -> Stale | None:
    """Say why a test is not enough any more, by the probe and the limit of the entry's coverage."""
    if coverage is None or now is None:
        return None
    return compat.staleness(
        is_current=test.probe == coverage.probe,
        age=compat.age_of(test.at, now),
        max_age=timedelta(days=coverage.max_age_days),
    )


def _contents(entry: Entry) -> str | None:
    """Return the digest of the newest report on what is in an image."""
    tests = [test for test in entry.tests if test.suite == "contents"]
    return max(tests, key=lambda test: test.at.rstrip("Z")).evidence if tests else None
