"""Where an image was tested, where it follows that it runs, and where it does not. Pure.

For every pair of compute capability and driver branch that the facts (`curator.facts`) know:

- `tested`: a test on this very pair passed, is not stale, and none failed there since. It stands
  even where a rule says no, and then names that rule.
- `inferred`: a test on another pair passed whose GPU loads the same cubin, under the same driver
  rule (native, or minor-version compatibility), with the same driver branch or an older one.
  Names the test and the rules. It is about the framework's own kernels; PTX infers nothing,
  because every driver makes its own machine code of it. A failure on the way ends it.
- `bad`: a test failed there and none passed later, or a rule says that it cannot run.
- `untested`: nothing says no, and no fresh test says yes.

Only GPU suites with `pass` or `fail` are tests: `not-run` and `bad-host` say nothing of an image.
A test is stale when its probe is not the current one, when it is older than `max_age_days`, or
when its time cannot be placed (`curator.compat`, which says what counts of several, too). A stale
pass makes nothing tested or inferred and is named where it did; a stale failure stays one until a
later pass.

The JSON (an entry's `coverage`), in stable order, without ages: those change by themselves, and
are the reader's now minus `at`.

    {"probe": KEY, "max_age_days": 90, "groups": [{
        "answer": "tested" | "inferred" | "untested" | "bad",
        "sm": ["8.6", "8.9"],                  compute capabilities
        "drivers": [[525, 550], [580, 610]],   ranges of branches, both ends included
        "rules": ["kernel-cubin", ...],        absent if none; sources: `facts().rules`
        "tests": [{"evidence": DIGEST, "sm": "8.6", "driver": "550.54.15", "at": TIME,
                   "stale": "probe" | "age" | "time"}]}]}    absent if none; `stale` if it is

A group is every combination of its `sm` and its `drivers`, of the branches that are known; no pair
is in two. Of a pair that is in no group nothing is known.

    grid = Grid(facts().gpus)
    found = coverage(image_of(entry, probe.key), grid, now=now, max_age_days=90)
    plan = cover(images, [Host(sm="9.0", driver=580)], grid, now=now, max_age_days=90)
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal

from curator.compat import moment_of, numbers
from curator.coverage._cover import CoverPlan, Host, Planner, Test, Uncovered, smallest
from curator.coverage._evidence import GPU_SUITE, Evidence, Image, image_of, known
from curator.coverage._pairs import Grid, Label, areas, members

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from curator.coverage._evidence import Known
    from curator.coverage._pairs import Claims, Pair, Ranges
    from curator.facts import Gpus

__all__ = [
    "GPU_SUITE",
    "CoverPlan",
    "Coverage",
    "Evidence",
    "Grid",
    "Group",
    "Host",
    "Image",
    "Label",
    "Planner",
    "Test",
    "Uncovered",
    "cover",
    "coverage",
    "image_of",
    "smallest",
]

Standing = Literal["tested", "inferred", "untested", "bad"]

# The rules that carry a pass from one pair to another.
_CARRYING: Final = frozenset({"kernel-cubin", "driver-native", "driver-minor"})
_ORDER: Final[tuple[Standing, ...]] = ("tested", "inferred", "untested", "bad")


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Pairs of which the same is known, for the same reasons."""

    answer: Standing
    sm: tuple[str, ...]
    drivers: Ranges
    rules: tuple[str, ...] = ()
    tests: tuple[Evidence, ...] = ()

    def holds(self, sm: str, branch: int) -> bool:
        """Return whether a pair is one of these."""
        return sm in self.sm and any(first <= branch <= last for first, last in self.drivers)

    def to_json(self) -> dict[str, Any]:
        """Return the group as the module describes it."""
        return {
            "answer": self.answer,
            "sm": list(self.sm),
            "drivers": [list(ends) for ends in self.drivers],
            **({"rules": list(self.rules)} if self.rules else {}),
            **({"tests": [test.to_json() for test in self.tests]} if self.tests else {}),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """One image's coverage; see the module for what its words mean."""

    probe: str
    max_age_days: int
    groups: tuple[Group, ...]

    def at(self, sm: str, branch: int) -> Group | None:
        """Return what is known of a pair; None for nothing."""
        return next((group for group in self.groups if group.holds(sm, branch)), None)

    def to_json(self) -> dict[str, Any]:
        """Return the document that an entry holds as `coverage`."""
        return {
            "probe": self.probe,
            "max_age_days": self.max_age_days,
            "groups": [group.to_json() for group in self.groups],
        }


_Found = tuple[Standing, tuple[str, ...], tuple[Evidence, ...]]


def coverage(image: Image, gpus: Gpus | Grid, *, now: str, max_age_days: int) -> Coverage:
    """Return what is known of an image on every pair that the facts know or a test ran on.

    `now` is RFC 3339 UTC. A `Grid` made once of the facts keeps what images have in common.

    Raises:
        ValueError: `now` is no time.
    """
    grid = gpus if isinstance(gpus, Grid) else Grid(gpus)
    found = known(image, now=_moment(now), max_age=timedelta(days=max_age_days))
    pairs = _View(grid, grid.claims(image.label), found).answers()
    groups = [
        Group(answer=answer, sm=sm, drivers=drivers, rules=rules, tests=tests)
        for (answer, rules, tests), sm, drivers in areas(grid, pairs)
    ]
    groups.sort(key=_group_order)
    return Coverage(probe=image.probe, max_age_days=max_age_days, groups=tuple(groups))


def cover(
    images: Sequence[Image],
    hosts: Sequence[Host],
    gpus: Gpus | Grid,
    *,
    now: str,
    max_age_days: int,
) -> CoverPlan:
    """Return the smallest set of tests on these hosts that covers what the images claim.

    Hosts are in order of preference. Raises as `coverage` does.
    """
    grid = gpus if isinstance(gpus, Grid) else Grid(gpus)
    return Planner(grid, hosts).plan(images, _moment(now), timedelta(days=max_age_days))


def _moment(now: str) -> datetime:
    moment = moment_of(now)
    if moment is None:
        raise ValueError(f"{now!r} is no time such as 2026-11-23T10:00:00Z")
    return moment


@dataclass(frozen=True, slots=True)
class _Pass:
    """A pass, where it was, and the pairs that follow from it."""

    row: int
    column: int
    reach: int
    test: Evidence


class _View:
    """One image's claims and tests, looked at pair by pair."""

    def __init__(self, grid: Grid, claims: Claims, found: Known) -> None:
        self._grid, self._claims, self._found = grid, claims, found
        self._failed = found.numbers(grid, found.failed)
        self._fresh = self._passes(found.passed)
        self._faded = self._passes(found.faded)

    def answers(self) -> dict[Pair, _Found]:
        """Return what is known of every pair that the facts know, and of those tested besides."""
        grid, found = self._grid, self._found
        answers = {grid.pair(number): self._answer(number) for number in members(grid.all)}
        for pair in (*found.passed, *found.failed, *found.faded):
            if pair not in answers:
                answers[pair] = self._of_tests(pair) or ("untested", (), found.faded[pair])
        return answers

    def _passes(self, tests: Mapping[Pair, tuple[Evidence, ...]]) -> tuple[_Pass, ...]:
        return tuple(
            _Pass(
                *self._grid.place(number),
                self._grid.follows(self._claims, number, self._failed),
                tests[pair][0],
            )
            for number, pair in self._found.numbers(self._grid, tests).items()
        )

    def _of_tests(self, pair: Pair, rules: tuple[str, ...] = ()) -> _Found | None:
        """Return what a pair's own tests decide, if they do."""
        if pair in self._found.passed:
            return "tested", rules, self._found.passed[pair]
        if pair in self._found.failed:
            return "bad", rules, self._found.failed[pair]
        return None

    def _answer(self, number: int) -> _Found:
        pair, (row, column) = self._grid.pair(number), self._grid.place(number)
        answers = self._claims.answers(row, column)
        against = tuple(answer.rule for answer in answers if answer.says == "no")
        own = self._of_tests(pair, against)
        if own or against:
            return own or ("bad", against, ())
        if nearest := _nearest(self._fresh, number, row, column):
            rules = tuple(answer.rule for answer in answers if answer.rule in _CARRYING)
            return "inferred", rules, (nearest,)
        unknown = tuple(answer.rule for answer in answers if answer.says == "unknown")
        faded = _nearest(self._faded, number, row, column)
        return "untested", unknown, self._found.faded.get(pair, (faded,) if faded else ())


def _nearest(passes: tuple[_Pass, ...], number: int, row: int, column: int) -> Evidence | None:
    """Return the test that a pair follows from: the same GPU first, then the nearest branch."""
    reaching = [found for found in passes if found.reach >> number & 1]
    if not reaching:
        return None
    return min(
        reaching,
        key=lambda found: (found.row != row, column - found.column, abs(found.row - row)),
    ).test


def _group_order(group: Group) -> tuple[int, tuple[int, ...], Ranges, tuple[str, ...]]:
    return _ORDER.index(group.answer), numbers(group.sm[0]), group.drivers, group.rules
