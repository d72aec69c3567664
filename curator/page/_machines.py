"""Which drivers let GPUs of a compute capability run an image, in words: rules, then its tests.

- A hole in a range is told: a run is of neighbouring branches that there are facts about.
- Tests of an image count as the judge counts them: each is about its own branch.
- The branch after the last one that there are facts about stands for all later ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Final

from curator.resolve import PLATFORMS, Gpu, Host, Judge

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from curator.compat import Says
    from curator.facts import Facts
    from curator.resolve import Gate, Image, Judgement, Label, Tested

_ARCHITECTURES: Final = {platform: name for name, platform in PLATFORMS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer for some drivers; with no `drivers` it holds for all of them."""

    says: Says
    drivers: str = ""
    because: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """GPUs of a compute capability: what is known of the drivers, and what the GPUs load."""

    sm: str
    architecture: str
    answers: tuple[Answer, ...]
    loads: str


class Machines:
    """Says where images run; what images of one label have in common is looked at once."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._branches = tuple(branch.number for branch in facts.gpus.branches)
        self._judges: dict[tuple[str, str, int], Judge] = {}
        self._by_rule: dict[Label, Mapping[str, Machine]] = {}

    def of(self, image: Image) -> tuple[Machine, ...]:
        """Return a machine for each compute capability with facts, and each that ran the image."""
        label, known = image.label, self._rules(image.label)
        tests: dict[str, list[Tested]] = {}
        for test in image.tests:
            tests.setdefault(test.sm, []).append(test)
        return tuple(
            self._machine(label, sm, tests[sm]) if sm in tests else known[sm]
            for sm in [*known, *sorted(tests.keys() - known.keys())]
        )

    def _rules(self, label: Label) -> Mapping[str, Machine]:
        if label not in self._by_rule:
            self._by_rule[label] = {
                about.sm: self._machine(label, about.sm, ())
                for about in self._facts.gpus.capabilities
            }
        return self._by_rule[label]

    def _machine(self, label: Label, sm: str, tests: Sequence[Tested]) -> Machine:
        branches = sorted({*self._branches, *(test.branch for test in tests)})
        branches.append(branches[-1] + 1)
        found = {branch: self._judge(sm, label, branch)(label, tests) for branch in branches}
        about = self._facts.capabilities.get(sm)
        answers = [*_good(found, label), *_unsure(found, label)]
        if not answers:
            known = [branch for branch in self._branches if about is None or about.has(branch)]
            fairest = self._judge(sm, label, max(known or branches)).label(label)
            answers = [Answer(says="no", because=_reason(fairest))]
        return Machine(
            sm=sm,
            architecture=about.architecture if about else "",
            answers=(*answers, *_failed(found)),
            loads=next(filter(None, map(_loads, found.values())), ""),
        )

    def _judge(self, sm: str, label: Label, branch: int) -> Judge:
        architecture = _ARCHITECTURES.get(label.platforms[0], "x86_64")
        key = sm, architecture, branch
        if key not in self._judges:
            host = Host(driver=str(branch), gpus=(Gpu(sm=sm),), architecture=architecture)
            self._judges[key] = Judge(host, self._facts)
        return self._judges[key]


def _good(found: Mapping[int, Judgement], label: Label) -> Iterator[Answer]:
    if good := [branch for branch, one in found.items() if one.says == "yes"]:
        yield Answer(says="yes", drivers=_drivers(good, found, label))


def _unsure(found: Mapping[int, Judgement], label: Label) -> Iterator[Answer]:
    """Yield what is not known, once for each rule that does not know; the newest driver tells."""
    by_rule: dict[str, list[int]] = {}
    for branch, one in found.items():
        if one.says == "unknown":
            by_rule.setdefault(_last(one).answer.rule, []).append(branch)
    for branches in by_rule.values():
        yield Answer(
            says="unknown",
            drivers=_drivers(branches, found, label),
            because=_reason(found[branches[-1]]),
        )


def _failed(found: Mapping[int, Judgement]) -> Iterator[Answer]:
    for branch, one in found.items():
        if one.says == "no" and one.test:
            yield Answer(says="no", drivers=f"driver {branch}", because=_reason(one))


def _drivers(chosen: Collection[int], found: Mapping[int, Judgement], label: Label) -> str:
    """Say which drivers some branches are: `driver 535; 550; 570 or later`."""
    branches = list(found)
    runs = [list(run) for is_in, run in groupby(branches, key=chosen.__contains__) if is_in]
    return f"driver {'; '.join(_run(run, branches, _first(run[0], found, label)) for run in runs)}"


def _first(branch: int, found: Mapping[int, Judgement], label: Label) -> str:
    """Return the first driver of a branch that is meant: the floor's own branch starts there."""
    rules = {gate.answer.rule for gate in found[branch].gates}
    is_floor = label.floor.partition(".")[0] == str(branch) and "driver-forward" not in rules
    return label.floor if is_floor else str(branch)


def _run(run: Sequence[int], branches: Sequence[int], first: str) -> str:
    if run[-1] == branches[-1]:
        return f"{first} or later" if len(run) > 1 else f"later than {branches[-2]}"
    if len(run) > 1:
        return f"{first} to {run[-1]}"
    return f"{first} and later of {run[0]}" if "." in first else first


def _last(judgement: Judgement) -> Gate:
    """Return the last gate that says what all come to."""
    return next(gate for gate in reversed(judgement.gates) if gate.answer.says == judgement.says)


def _reason(judgement: Judgement) -> str:
    return _last(judgement).answer.text


def _loads(judgement: Judgement) -> str | None:
    loads = (gate.answer.loads for gate in judgement.gates if gate.answer.loads)
    return next(loads, None) if judgement.says == "yes" else None
