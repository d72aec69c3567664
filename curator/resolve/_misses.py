"""What would have to change for an image to run: the other side of each no."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from curator.compat import numbers

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from curator.compat import Answer
    from curator.facts import Facts
    from curator.resolve._catalogue import Catalogue
    from curator.resolve._values import Image, Judgement

NO_CHECK: Final = "NVIDIA_DISABLE_REQUIRE=1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What has to change, the least of each kind; `driver` is the least version, where one is."""

    texts: tuple[str, ...]
    driver: str | None = None

    @property
    def order(self) -> tuple[int, tuple[int, ...]]:
        """The smaller, the easier."""
        return len(self.texts), numbers(self.driver or "0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Miss:
    """An image that does not run, and what would let it: one text for each thing to change."""

    image: Image
    changes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the miss for machines."""
        return {"id": self.image.id, "name": self.image.name, "changes": list(self.changes)}


def change(judgement: Judgement, facts: Facts) -> Change | None:
    """Return what would have to change; None if nothing helps, or it is not known."""
    if any(gate.answer.says == "unknown" for gate in judgement.gates):
        return None
    found: dict[str, list[str]] = {}
    gates = [gate for gate in judgement.gates if gate.answer.says == "no"]
    for gate in gates:
        parts = list(_parts(gate.answer, facts))
        if not parts:
            return None
        for kind, text in parts:
            found.setdefault(kind, []).append(text)
    driver = max(found.pop("driver", ()), key=numbers, default=None)
    texts = [text for kind in sorted(found) for text in dict.fromkeys(found[kind])]
    if driver:
        texts.insert(0, f"driver >= {driver}")
    if {gate.gate for gate in gates} == {"G1"}:
        texts[-1] += f", or {NO_CHECK}"
    return Change(texts=tuple(texts), driver=driver)


def _parts(answer: Answer, facts: Facts) -> Iterator[tuple[str, str]]:
    told = dict(answer.compared)
    for kind, template in facts.rules[answer.rule].change:
        with contextlib.suppress(KeyError):
            text = template.format_map(told)
            yield _speaking(text, facts) if kind == "speaks" else (kind, text)


def _speaking(cuda: str, facts: Facts) -> tuple[str, str]:
    """Return the first driver branch that speaks a CUDA release."""
    for branch in facts.gpus.branches:
        if numbers(branch.cuda) >= numbers(cuda)[:2]:
            return "driver", str(branch.number)
    return "cuda", f"a driver that speaks CUDA {cuda}"


def nearest(
    known: Catalogue, rejected: Iterable[tuple[int, Judgement]], facts: Facts, most: int
) -> tuple[Miss, ...]:
    """Return what is nearest to running: the fewest changes, the oldest driver, the newest image.

    Of a framework's images that need the same, the first one stands for all.
    """
    frameworks = known.coded["framework"].at
    first: dict[tuple[int, int], tuple[int, Judgement]] = {}
    for place, judgement in rejected:
        first.setdefault((frameworks[place], id(judgement)), (place, judgement))
    found: dict[tuple[int, tuple[str, ...]], tuple[Change, int]] = {}
    for place, judgement in first.values():
        needs = change(judgement, facts)
        if needs is not None:
            found.setdefault((frameworks[place], needs.texts), (needs, place))
    order = sorted(found.values(), key=lambda pair: pair[0].order)
    return tuple(
        Miss(image=known.image(place), changes=needs.texts) for needs, place in order[:most]
    )
