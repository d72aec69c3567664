"""The pairs of compute capability and driver branch, and what the rules say of an image on each.

A set of pairs is one whole number with a bit for each pair, so that ten thousand images stay
quick; a pair's number is its row (the capability) times the branches, plus its column.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING, Any

from curator import compat

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from curator.compat import Answer, Gap
    from curator.facts import Capability, DriverBranch, Gpus

Pair = tuple[str, int]

_DOTTED = re.compile(r"\d{1,4}(\.\d{1,4}){0,3}")
_UNREADABLE = compat.Answer(says="unknown", rule="driver-floor")


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """What an image says about where it runs; no `cubin` at all is: not known.

    `built` is the CUDA release that compiled the framework, where that is known to be another;
    `gaps` are libraries that the framework needs, with code for fewer GPUs.
    """

    cuda: str
    driver_floor: str
    cubin: tuple[str, ...] | None
    ptx: tuple[str, ...] = ()
    built: str | None = None
    gaps: tuple[Gap, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What the rules say of a CUDA release and its driver floor, whatever the kernels.

    `supported` is per row, and `written` the same for a GPU that needs the framework's PTX;
    `drivers` and `compilers` (of PTX) are per column. `runs` and `compiles` hold the pairs on which
    drivers do; `rules` those of `runs` by the rule that says so.
    """

    supported: tuple[Answer, ...]
    written: tuple[Answer, ...]
    drivers: tuple[Answer, ...]
    compilers: tuple[Answer, ...]
    rules: Mapping[str, int]
    runs: int = 0
    compiles: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What the rules say of a label; `yes` holds the pairs on which every rule says so.

    `threads` holds, by cubin and driver rule, the pairs on which an image runs the same machine
    code under the same rule. PTX has none: every driver makes its own code of it. A GPU that is
    newer than the image's CUDA shares none with others, one in a gap none at all. `gaps` tells per
    row of a library without code for the GPU.
    """

    family: Family
    kernels: tuple[Answer, ...]
    gaps: tuple[Answer | None, ...]
    yes: int
    threads: Mapping[tuple[str, str], int]

    def answers(self, row: int, column: int) -> tuple[Answer, ...]:
        """Return every rule's answer for a pair."""
        kernel, family = self.kernels[row], self.family
        jit = (family.compilers[column],) if kernel.rule == "kernel-ptx" else ()
        gap = filter(None, (self.gaps[row],))
        return (self.supported(row), kernel, family.drivers[column], *jit, *gap)

    def supported(self, row: int) -> Answer:
        """Return whether the CUDA releases that a GPU needs know it."""
        is_jit = self.kernels[row].rule == "kernel-ptx"
        return (self.family.written if is_jit else self.family.supported)[row]

    def loads(self, row: int) -> str:
        """Return the kernel image that a GPU loads; nothing where there is none."""
        return self.kernels[row].loads or ""

    def driver_rule(self, column: int) -> str:
        """Return the rule that decides on a driver branch."""
        return self.family.drivers[column].rule

    def thread(self, row: int, column: int) -> int:
        """Return the pairs that share a pair's machine code and driver rule; none for PTX."""
        code = _code(self.kernels[row], self.family.supported[row])
        return self.threads.get((code, self.driver_rule(column)), 0)


def _code(kernel: Answer, supported: Answer) -> str:
    """Return what names the machine code of a GPU among all."""
    own = f" on {dict(kernel.compared)['gpu']}" if supported.says == "unknown" else ""
    return f"{kernel.loads or ''}{own}"


def _gap(gpu: Capability, kernel: Answer, gaps: Iterable[Gap]) -> Answer | None:
    """Return what tells of a library without code for a GPU that the framework has kernels for."""
    found = (compat.library(gpu.sm, gap) for gap in gaps if kernel.says == "yes")
    return next((answer for answer in found if answer.says != "yes"), None)


class Grid:
    """The pairs that the facts know, and each label's claims on them."""

    def __init__(self, gpus: Gpus) -> None:
        self.capabilities: tuple[Capability, ...] = gpus.capabilities
        self.branches: tuple[DriverBranch, ...] = gpus.branches
        self._rows = {found.sm: row for row, found in enumerate(self.capabilities)}
        self._columns = {found.number: column for column, found in enumerate(self.branches)}
        self._ptx = {found.cuda: found.ptx for found in self.branches}
        self._claims: dict[Label, Claims] = {}
        self._families: dict[tuple[str, str, str | None], Family] = {}
        width = self.width = len(self.branches)
        exists = [
            [capability.has(branch.number) for branch in self.branches]
            for capability in self.capabilities
        ]
        self.rows = [
            sum(1 << row * width + column for column, known in enumerate(line) if known)
            for row, line in enumerate(exists)
        ]
        self.columns = [
            sum(1 << row * width + column for row, line in enumerate(exists) if line[column])
            for column in range(width)
        ]
        self.since = [sum(self.columns[column:]) for column in range(width)]
        self.all = sum(self.rows)

    def find(self, pair: Pair) -> int | None:
        """Return a pair's number, or None for one that the facts do not know."""
        row, column = self._rows.get(pair[0]), self._columns.get(pair[1])
        if row is None or column is None or not self.rows[row] & self.columns[column]:
            return None
        return row * self.width + column

    def why_unknown(self, pair: Pair) -> str:
        """Say what the facts do not know of a pair."""
        if pair[0] not in self._rows:
            return f"no facts about compute capability {pair[0]}"
        if pair[1] not in self._columns:
            return f"no facts about driver branch {pair[1]}"
        return f"driver branch {pair[1]} does not know compute capability {pair[0]}"

    def place(self, number: int) -> tuple[int, int]:
        """Return a pair's row and column."""
        return divmod(number, self.width)

    def pair(self, number: int) -> Pair:
        """Return a pair by its number."""
        row, column = self.place(number)
        return self.capabilities[row].sm, self.branches[column].number

    def claims(self, label: Label) -> Claims:
        """Return what the rules say of a label on every pair."""
        if label not in self._claims:
            self._claims[label] = self._judge(label)
        return self._claims[label]

    def _judge(self, label: Label) -> Claims:
        kernels, family = self._kernels(label), self._family(label)
        gaps = tuple(map(_gap, self.capabilities, kernels, repeat(label.gaps)))
        yes = 0
        threads: defaultdict[tuple[str, str], int] = defaultdict(int)
        for row, (kernel, here) in enumerate(zip(kernels, self.rows, strict=True)):
            is_jit = kernel.rule == "kernel-ptx"
            supported = (family.written if is_jit else family.supported)[row].says
            if kernel.says != "yes" or supported == "no" or gaps[row]:
                continue
            if supported == "yes":
                yes |= here & family.runs & (family.compiles if is_jit else family.runs)
            for rule, columns in () if is_jit else family.rules.items():
                threads[_code(kernel, family.supported[row]), rule] |= here & columns
        return Claims(family=family, kernels=kernels, gaps=gaps, yes=yes, threads=threads)

    def _kernels(self, label: Label) -> tuple[Answer, ...]:
        if label.cubin is None:
            return (compat.Answer(says="unknown", rule="kernel-none"),) * len(self.capabilities)
        return tuple(
            compat.kernel(found.sm, cubin=label.cubin, ptx=label.ptx) for found in self.capabilities
        )

    def _family(self, label: Label) -> Family:
        key = label.cuda, label.driver_floor, label.built
        if key not in self._families:
            self._families[key] = self._made_family(*key)
        return self._families[key]

    def _made_family(self, cuda: str, floor: str, built: str | None) -> Family:
        writer = built or cuda
        if not all(_DOTTED.fullmatch(text) for text in (cuda, floor, writer)):
            unknown = (_UNREADABLE,)
            rows, columns = unknown * len(self.capabilities), unknown * self.width
            return Family(
                supported=rows, written=rows, drivers=columns, compilers=columns, rules={}
            )
        drivers = tuple(
            compat.driver(cuda, str(found.number), floor=floor, speaks=found.cuda)
            for found in self.branches
        )
        made = self._ptx.get(".".join(writer.split(".")[:2]))
        compilers = tuple(
            compat.accepts_ptx(writer, speaks=found.cuda, made=made, accepts=found.ptx)
            for found in self.branches
        )
        rules: defaultdict[str, int] = defaultdict(int)
        for column, driver in zip(self.columns, drivers, strict=True):
            if driver.says == "yes":
                rules[driver.rule] |= column
        return Family(
            supported=self._supported(cuda),
            written=self._supported(cuda, built),
            drivers=drivers,
            compilers=compilers,
            rules=rules,
            runs=self._where_yes(drivers),
            compiles=self._where_yes(compilers),
        )

    def _supported(self, cuda: str, built: str | None = None) -> tuple[Answer, ...]:
        return tuple(
            compat.supported(
                found.sm,
                cuda,
                first_cuda=found.first_cuda,
                last_cuda=found.last_cuda,
                built=built,
            )
            for found in self.capabilities
        )

    def _where_yes(self, answers: Iterable[Answer]) -> int:
        both = zip(self.columns, answers, strict=True)
        return sum(column for column, answer in both if answer.says == "yes")

    def follows(self, claims: Claims, number: int, failed: Collection[int]) -> int:
        """Return the pairs that follow by rule from a pass on a pair, that pair itself not.

        They load the same cubin under the same driver rule, with the same branch or a newer one.
        A failed test on the way stops it: on the pass's own GPU after its branch for every GPU,
        on another GPU for that one.
        """
        row, column = self.place(number)
        thread = claims.thread(row, column)
        if not thread >> number & 1:
            return 0
        found = thread & self.since[column] & ~(1 << number)
        for other in failed:
            other_row, other_column = self.place(other)
            if other == number or not thread >> other & 1:
                continue
            if other_row != row:
                found &= ~(self.rows[other_row] & self.since[other_column])
            elif other_column > column:
                found &= ~self.since[other_column]
        return found


def members(numbers: int) -> Iterator[int]:
    """Return the pairs in a set, in ascending order."""
    while numbers:
        lowest = numbers & -numbers
        yield lowest.bit_length() - 1
        numbers ^= lowest


Ranges = tuple[tuple[int, int], ...]


def areas(grid: Grid, pairs: Mapping[Pair, Any]) -> list[tuple[Any, tuple[str, ...], Ranges]]:
    """Return pairs that are alike as (what they are, capabilities, ranges of branches).

    A range covers every branch between its ends that is known of any capability, ends included.
    """
    rows: defaultdict[tuple[str, Any], list[int]] = defaultdict(list)
    for pair in sorted(pairs, key=lambda found: (compat.numbers(found[0]), found[1])):
        rows[pair[0], pairs[pair]].append(pair[1])
    found: defaultdict[tuple[Any, Ranges], list[str]] = defaultdict(list)
    known = {branch.number for branch in grid.branches} | {branch for _, branch in pairs}
    order = {branch: place for place, branch in enumerate(sorted(known))}
    for (sm, what), branches in rows.items():
        found[what, _ranges(branches, order)].append(sm)
    return [(what, tuple(sms), ranges) for (what, ranges), sms in found.items()]


def _ranges(branches: list[int], order: Mapping[int, int]) -> Ranges:
    runs: list[tuple[int, int]] = []
    for branch in branches:
        if runs and order[runs[-1][1]] == order[branch] - 1:
            runs[-1] = (runs[-1][0], branch)
        else:
            runs.append((branch, branch))
    return tuple(runs)
