"""What an image's tests tell of each pair: the passes that count, the failures that stand."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from curator.compat import age_of, staleness, standing
from curator.coverage._pairs import Label

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from curator.compat import Stale
    from curator.coverage._pairs import Grid, Pair
    from curator.index import Entry, SuiteResult

GPU_SUITE: Final = "gpu"

_CAPABILITY = re.compile(r"\d{1,3}\.\d{1,2}")
_DRIVER = re.compile(r"\d{1,4}(\.\d{1,6}){0,3}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """What coverage looks at of one image; `probe` is the key of its current probe."""

    name: str
    probe: str
    label: Label
    tests: tuple[SuiteResult, ...] = ()


def image_of(entry: Entry, probe: str) -> Image:
    """Return an entry as coverage sees it; a kernel list without any kernel is not known.

    What a framework compiles at run time is in no file, so nothing listed does not mean nothing.
    """
    sm = entry.sm if entry.sm and (entry.sm.cubin or entry.sm.ptx) else None
    label = Label(
        cuda=entry.stack.cuda,
        driver_floor=entry.driver.min,
        cubin=sm.cubin if sm else None,
        ptx=sm.ptx if sm else (),
        built=entry.stack.built,
        gaps=entry.gaps,
    )
    return Image(name=entry.id, probe=probe, label=label, tests=entry.tests)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One test that ran on a GPU; `age_days` are whole days, None where its time says nothing."""

    evidence: str
    sm: str
    driver: str
    at: str
    passed: bool
    age_days: int | None
    stale: Stale | None

    @property
    def pair(self) -> Pair:
        """The capability and the driver branch it ran on."""
        return self.sm, int(self.driver.partition(".")[0])

    def to_json(self) -> dict[str, Any]:
        """Return the test as an entry's coverage names it."""
        stale = {"stale": self.stale} if self.stale else {}
        at = {"sm": self.sm, "driver": self.driver, "at": self.at}
        return {"evidence": self.evidence, **at, **stale}


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What tests tell by themselves, newest first; a pair is in one of the three at most.

    `passed` holds the fresh passes since the last failure, `faded` the stale ones where none is
    fresh, `failed` the failures since the last pass.
    """

    passed: Mapping[Pair, tuple[Evidence, ...]]
    faded: Mapping[Pair, tuple[Evidence, ...]]
    failed: Mapping[Pair, tuple[Evidence, ...]]

    def numbers(self, grid: Grid, pairs: Mapping[Pair, Any]) -> dict[int, Pair]:
        """Return those of the pairs that the facts know, by number."""
        found = ((grid.find(pair), pair) for pair in pairs)
        return {number: pair for number, pair in found if number is not None}


def known(image: Image, *, now: datetime, max_age: timedelta) -> Known:
    """Return what an image's tests tell."""
    by_pair: defaultdict[Pair, list[Evidence]] = defaultdict(list)
    for test in _tests(image, now, max_age):
        by_pair[test.pair].append(test)
    passed, faded, failed = {}, {}, {}
    for pair, tests in by_pair.items():
        run = standing(tests)
        fresh = tuple(test for test in run if not test.stale)
        if not run[0].passed:
            failed[pair] = run
        elif fresh:
            passed[pair] = fresh
        else:
            faded[pair] = run
    return Known(passed=passed, faded=faded, failed=failed)


def _tests(image: Image, now: datetime, max_age: timedelta) -> Iterator[Evidence]:
    for test in image.tests:
        if test.suite != GPU_SUITE or test.verdict not in {"pass", "fail"}:
            continue
        # Without a place there is no pair that the test could speak for.
        if not _CAPABILITY.fullmatch(test.sm or "") or not _DRIVER.fullmatch(test.driver or ""):
            continue
        age = age_of(test.at, now)
        yield Evidence(
            evidence=test.evidence,
            sm=test.sm or "",
            driver=test.driver or "",
            at=test.at,
            passed=test.verdict == "pass",
            age_days=None if age is None else max(age, timedelta()).days,
            stale=staleness(is_current=test.probe == image.probe, age=age, max_age=max_age),
        )
