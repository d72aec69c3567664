"""The smallest set of tests that covers what images claim, on the hosts that somebody has.

- An image claims every pair on which the rules say yes. A fresh test is done already, a pass for
  all that follows from it; a stale one is not.
- A test on a host covers the host's own pair and what follows by rule from a pass there.
- As many claims as the hosts can cover are covered, and of all choices that do so the smallest
  is taken, exactly: what no other host covers is forced, the rest is searched to the end.
- Images are independent of each other, so the smallest for each is the smallest for all.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Any

from curator.coverage._evidence import known
from curator.coverage._pairs import areas, members

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime, timedelta

    from curator.coverage._evidence import Image
    from curator.coverage._pairs import Claims, Grid, Label, Pair, Ranges


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Host:
    """A machine that somebody has: its GPU's compute capability and its driver's branch."""

    sm: str
    driver: int

    @property
    def pair(self) -> Pair:
        """The pair that a test on this host speaks for."""
        return self.sm, self.driver

    def __str__(self) -> str:
        return f"{self.sm}/{self.driver}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Test:
    """One image to be tested on one host."""

    image: str
    host: Host

    def to_json(self) -> dict[str, Any]:
        """Return the test for machines."""
        return {"image": self.image, "sm": self.host.sm, "driver": self.host.driver}


@dataclass(frozen=True, slots=True, kw_only=True)
class Uncovered:
    """Claims that no test on these hosts covers, and why; `kernel` is None where not known."""

    image: str
    kernel: str | None
    sm: tuple[str, ...]
    drivers: Ranges
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Return the claims for machines."""
        return {
            "image": self.image,
            "kernel": self.kernel,
            "sm": list(self.sm),
            "drivers": [list(ends) for ends in self.drivers],
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class CoverPlan:
    """The tests to run, what stays uncovered, and the hosts of which the facts know nothing."""

    tests: tuple[Test, ...]
    uncovered: tuple[Uncovered, ...]
    unusable: tuple[tuple[Host, str], ...]

    def to_json(self) -> dict[str, Any]:
        """Return the plan for machines."""
        return {
            "tests": [test.to_json() for test in self.tests],
            "uncovered": [item.to_json() for item in self.uncovered],
            "unusable": [
                {"sm": host.sm, "driver": host.driver, "reason": reason}
                for host, reason in self.unusable
            ],
        }


@dataclass(frozen=True, slots=True)
class Problem:
    """One image's claims as sets of pairs; images alike in everything have equal problems.

    `failed` are the pairs whose failure stands, `refused` those of them with a fresh one: there
    the claim is known to be wrong, and a test would only say so again.
    """

    label: Label
    done: int
    failed: frozenset[int]
    refused: frozenset[int]


_Left = tuple[str | None, tuple[str, ...], "Ranges", str]


class Planner:
    """Plans tests on given hosts, earlier ones preferred; equal problems are solved once."""

    def __init__(self, grid: Grid, hosts: Sequence[Host]) -> None:
        self._grid = grid
        unique = list(dict.fromkeys(hosts))
        self._hosts = {
            host: number for host in unique if (number := grid.find(host.pair)) is not None
        }
        self.unusable = tuple(
            (host, grid.why_unknown(host.pair)) for host in unique if host not in self._hosts
        )
        self._solved: dict[Problem, tuple[tuple[Host, ...], tuple[_Left, ...]]] = {}

    def plan(self, images: Sequence[Image], now: datetime, max_age: timedelta) -> CoverPlan:
        """Return the plan, in the order of the images and of the hosts."""
        tests, uncovered = [], []
        for image in images:
            problem = self.problem(image, now, max_age)
            if problem not in self._solved:
                self._solved[problem] = self._solve(problem)
            hosts, left = self._solved[problem]
            tests += [Test(image=image.name, host=host) for host in hosts]
            uncovered += [
                Uncovered(image=image.name, kernel=kernel, sm=sm, drivers=drivers, reason=reason)
                for kernel, sm, drivers, reason in left
            ]
        return CoverPlan(tests=tuple(tests), uncovered=tuple(uncovered), unusable=self.unusable)

    def problem(self, image: Image, now: datetime, max_age: timedelta) -> Problem:
        """Return what an image claims and what is known already."""
        found = known(image, now=now, max_age=max_age)
        claims = self._grid.claims(image.label)
        failed = found.numbers(self._grid, found.failed)
        done = 0
        for number in found.numbers(self._grid, found.passed):
            done |= 1 << number | self._grid.follows(claims, number, failed)
        refused = (
            number
            for number, pair in failed.items()
            if any(not test.stale for test in found.failed[pair])
        )
        return Problem(image.label, done, frozenset(failed), frozenset(refused))

    def sets(self, problem: Problem) -> tuple[int, list[int]]:
        """Return the claims that are open, and which of them each host would cover."""
        claims = self._grid.claims(problem.label)
        refused = sum(1 << number for number in problem.refused)
        open_ = claims.yes & ~problem.done & ~refused
        return open_, [
            0 if number in problem.refused else self._covers(claims, number, problem) & open_
            for number in self._hosts.values()
        ]

    def _covers(self, claims: Claims, number: int, problem: Problem) -> int:
        return 1 << number | self._grid.follows(claims, number, problem.failed)

    def _solve(self, problem: Problem) -> tuple[tuple[Host, ...], tuple[_Left, ...]]:
        open_, sets = self.sets(problem)
        hosts = list(self._hosts)
        chosen = tuple(hosts[number] for number in smallest(sets))
        if problem.label.cubin is None:
            return chosen, ((None, (), (), "its kernels are not known, so it claims nothing"),)
        left = open_ & ~reduce(or_, sets, 0)
        return chosen, tuple(self._left(problem, left))

    def _left(self, problem: Problem, left: int) -> Iterator[_Left]:
        claims = self._grid.claims(problem.label)
        oldest = self._oldest(claims)
        reasons: dict[Pair, tuple[str, str]] = {}
        for number in members(left):
            row, column = self._grid.place(number)
            loads, rule = claims.loads(row), claims.driver_rule(column)
            reasons[self._grid.pair(number)] = loads, self._reason(loads, rule, column, oldest)
        for (loads, reason), sm, drivers in areas(self._grid, reasons):
            yield loads, sm, drivers, reason

    def _oldest(self, claims: Claims) -> dict[str, dict[str, int]]:
        """Return kernel -> driver rule -> column of the oldest driver of the hosts that fit."""
        found: defaultdict[str, dict[str, int]] = defaultdict(dict)
        for number in self._hosts.values():
            row, column = self._grid.place(number)
            rules, rule = found[claims.loads(row)], claims.driver_rule(column)
            rules[rule] = min(column, rules.get(rule, column))
        return found

    def _reason(
        self, loads: str, rule: str, column: int, oldest: Mapping[str, Mapping[str, int]]
    ) -> str:
        if loads.startswith("compute_"):
            return f"each driver compiles {loads} anew: only a host with the very pair tells"
        if loads not in oldest:
            return f"no host's GPU loads {loads}"
        if rule not in oldest[loads]:
            return f"no host whose GPU loads {loads} has a driver of the rule {rule}"
        if oldest[loads][rule] > column:
            branch = self._grid.branches[oldest[loads][rule]].number
            return f"hosts whose GPU loads {loads} have driver branch {branch} or newer ones"
        return f"a failed test stands in the way for {loads}"


def smallest(sets: Sequence[int]) -> tuple[int, ...]:
    """Return which of the sets have the union of all and are the fewest, in ascending order.

    Sets are whole numbers with a bit for each member. The answer is exact; of several smallest
    choices the one with the earlier sets is preferred where a step has a choice.
    """
    wanted = reduce(or_, sets, 0)
    live = {index: members_ for index, members_ in enumerate(sets) if members_}
    forced: list[int] = []
    while wanted:
        live = _undominated({index: found & wanted for index, found in live.items()})
        sole = _sole(live)
        if not sole:
            break
        forced += sole
        wanted &= ~reduce(or_, (live[index] for index in sole))
    for count in range(len(live) + 1):
        rest = _search(live, wanted, count)
        if rest is not None:
            return tuple(sorted((*forced, *rest)))
    raise AssertionError("all sets together have the union of all")


def _undominated(sets: dict[int, int]) -> dict[int, int]:
    """Leave out what another set holds as well; of equal sets the first stays."""
    kept: dict[int, int] = {}
    for index in sorted(sets, key=lambda index: (-sets[index].bit_count(), index)):
        if sets[index] and not any(not sets[index] & ~other for other in kept.values()):
            kept[index] = sets[index]
    return kept


def _sole(sets: dict[int, int]) -> list[int]:
    """Return the sets that hold something no other one does."""
    once = twice = 0
    for found in sets.values():
        twice |= once & found
        once |= found
    return [index for index, found in sets.items() if found & once & ~twice]


def _search(sets: dict[int, int], wanted: int, count: int) -> tuple[int, ...] | None:
    """Return at most so many sets that hold everything wanted, or None where there are none."""
    if not wanted:
        return ()
    largest = max((found & wanted).bit_count() for found in sets.values())
    if largest * count < wanted.bit_count():
        return None
    rarest = min(members(wanted), key=lambda bit: sum(found >> bit & 1 for found in sets.values()))
    for index in sorted(index for index, found in sets.items() if found >> rarest & 1):
        rest = _search(sets, wanted & ~sets[index], count - 1)
        if rest is not None:
            return (index, *rest)
    return None
