"""What would have to change for an image to run.

- Every change that is named was applied and judged again: with all of them the image runs.
- Drivers are named as what is known to run it: from the first driver of the newest ones in a row
  that do, to the first known branch that does not any more.
- Other hardware is named as the rule that says no names it; some such GPU runs the image.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from curator.compat import numbers
from curator.resolve._judge import PLATFORMS, Judge, is_readable
from curator.resolve._values import Gpu

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from curator.compat import Answer
    from curator.facts import Facts
    from curator.resolve._catalogue import Catalogue
    from curator.resolve._values import Host, Image, Judgement, Label, Tested

OFF: Final = "NVIDIA_DISABLE_REQUIRE"
NO_CHECK: Final = f"{OFF}=1"
ARCHITECTURES: Final[Mapping[str, str]] = {place: name for name, place in PLATFORMS.items()}
# What is unknown of a GPU with any driver.
_LASTING: Final = frozenset(
    {"gpu-newer", "gpu-unknown", "gpu-not-given", "kernel-gap", "kernel-unread"}
)
# What a GPU has to be that stands for any other: neither a Jetson board nor a consumer's.
_EMBEDDED: Final = frozenset({"11.0"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What has to change: `hardware` of the texts are about that, which is harder than a driver.

    `driver` is the least version, where one is named, and `host` the host with all of it. There the
    image runs, unless the runtime's check has to be turned off.
    """

    texts: tuple[str, ...]
    host: Host
    hardware: int = 0
    driver: str | None = None

    @property
    def order(self) -> tuple[int, int, tuple[int, ...]]:
        """The smaller, the easier."""
        return self.hardware, len(self.texts), numbers(self.driver or "0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Miss:
    """An image that does not run, and what would let it: one text for each thing to change."""

    image: Image
    changes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the miss for machines."""
        return {"id": self.image.id, "name": self.image.name, "changes": list(self.changes)}


def change(image: Image, host: Host, facts: Facts) -> Change | None:
    """Return what would have to change for an image that does not run; None if nothing is known."""
    judgement = Judge(host, facts)(image.label, image.tests)
    return Changes(host, facts).of(image.label, image.tests, judgement)


class Changes:
    """Looks for what would let images run on a host; what they have in common is judged once."""

    def __init__(self, host: Host, facts: Facts) -> None:
        self._host, self._facts = host, facts
        self._judges: dict[Host, Judge] = {}
        # By identity, as in `Judge`.
        self._untested: dict[int, tuple[Label, Change | None]] = {}
        names = (gpu.name or "" for gpu in host.gpus)
        products = (facts.products[name] for name in names if name in facts.products)
        self._firsts = {one.first_driver for one in products if one.first_driver}
        self._sms = {gpu.sm for gpu in host.gpus}
        known = (facts.capabilities.get(sm or "") for sm in self._sms)
        self._since = max((one.first_driver or 0 for one in known if one), default=0)

    def least(self, label: Label, judgement: Judgement) -> tuple[int, int, tuple[int, ...]]:
        """Return what the order of a change is not below, without looking for one."""
        hardware = len(self._texts(judgement))
        refused = [gate for gate in judgement.gates if gate.answer.says == "no"]
        if all(self._hard(gate.answer) for gate in refused):
            return hardware, hardware, (0,)
        if hardware or label.forward or {gate.gate for gate in refused} == {"G1"}:
            return hardware, hardware + 1, (0,)
        return hardware, 1, max(numbers(label.floor), (self._since,))

    def of(self, label: Label, tests: Sequence[Tested], judgement: Judgement) -> Change | None:
        """Return what would have to change; None if that is nothing that anybody can say."""
        # Tests on other GPUs count where another GPU is meant.
        if tests and (self._texts(judgement) or any(test.sm in self._sms for test in tests)):
            return self._look(label, tests, judgement)
        known = self._untested.get(id(label))
        if known is None:
            known = self._untested[id(label)] = label, self._look(label, (), judgement)
        return known[1]

    def _look(self, label: Label, tests: Sequence[Tested], judgement: Judgement) -> Change | None:
        host = self._other_hardware(label, judgement) if _may_help(label, judgement) else None
        if host is None:
            return None
        texts = self._texts(judgement)
        unknown = {gate.answer.rule for gate in judgement.gates if gate.answer.says == "unknown"}
        if not (texts or tests) and unknown & _LASTING:
            return None
        if self._runs(host, label, tests):
            return Change(texts=texts, host=host, hardware=len(texts))
        found = self._drivers(host, label, tests)
        told = [] if found is None else [f"driver >= {found[0]}"]
        if found is not None and found[1] is not None:
            told[0] += f" and < {found[1]}"
        if {gate.gate for gate in judgement.gates if gate.answer.says == "no"} == {"G1"}:
            off = replace(label, requires={**(label.requires or {}), OFF: "1"})
            if self._runs(host, off, tests):
                told = [", or ".join([*told, NO_CHECK])]
        if not told:
            return None
        driver = found[0] if found else None
        on = host if driver is None else replace(host, driver=driver)
        return Change(texts=(*told, *texts), host=on, hardware=len(texts), driver=driver)

    def _runs(self, host: Host, label: Label, tests: Sequence[Tested]) -> bool:
        judge = self._judges.get(host)
        if judge is None:
            judge = self._judges[host] = Judge(host, self._facts)
        return judge(label, tests).says == "yes"

    def _drivers(
        self, host: Host, label: Label, tests: Sequence[Tested]
    ) -> tuple[str, str | None] | None:
        """Return the newest drivers in a row that run an image: the first, and the first not to."""
        end = first = None
        for driver in reversed(self._known_drivers(label)):
            if self._runs(replace(host, driver=driver), label, tests):
                first = driver
            elif first is None:
                end = driver
            else:
                break
        return None if first is None else (first, end)

    def _known_drivers(self, label: Label) -> list[str]:
        """Return the drivers at which an answer can change, in ascending order."""
        exact = {label.floor, *self._firsts}
        known = {numbers(version)[0] for version in exact}
        bare = (str(number) for number in self._facts.branches if number not in known)
        return sorted((*exact, *bare), key=numbers)

    def _hard(self, answer: Answer) -> bool:
        return bool(self._facts.rules[answer.rule].change)

    def _texts(self, judgement: Judgement) -> tuple[str, ...]:
        """Return what other hardware, or engine, the rules that say no ask for."""
        found = {
            text.format_map(dict(gate.answer.compared)): kind
            for gate in judgement.gates
            if gate.answer.says == "no"
            for kind, text in self._facts.rules[gate.answer.rule].change
        }
        return tuple(sorted(found, key=lambda text: (found[text], text)))

    def _other_hardware(self, label: Label, judgement: Judgement) -> Host | None:
        """Return the host with other hardware where a rule asks for it; None if there is none."""
        host, gpus = self._host, list(self._host.gpus)
        for gate in judgement.gates:
            if gate.answer.says != "no" or not self._hard(gate.answer):
                continue
            if gate.answer.rule == "platform":
                place = label.platforms[0]
                name = ARCHITECTURES.get(place, place.removeprefix("linux/"))
                host = replace(host, architecture=name)
            elif gate.answer.rule == "glibc-clone3":
                host = replace(host, docker=dict(gate.answer.compared)["least"])
            elif (other := self._other_gpu(label)) is None:
                return None
            elif gate.gpu is None:
                gpus.append(other)
            else:
                gpus[gate.gpu] = other
        return replace(host, gpus=tuple(gpus))

    def _other_gpu(self, label: Label) -> Gpu | None:
        """Return a GPU that an image has kernels for, one that the host's driver knows if it can.

        Of those the newest; without a driver the one that the most drivers know.
        """
        known = self._facts.capabilities
        targets = {*(label.cubin or ()), *label.ptx} - _EMBEDDED
        found = sorted((known[sm] for sm in targets if sm in known), key=lambda one: one.order)
        branch = self._host.branch
        here = [one for one in found if branch is not None and one.has(branch)]
        if here:
            return Gpu(sm=here[-1].sm, kind="datacenter")
        lasting = [one for one in found if one.last_driver is None] or found
        oldest = min(lasting, key=lambda one: one.first_driver or 0, default=None)
        return None if oldest is None else Gpu(sm=oldest.sm, kind="datacenter")


def _may_help(label: Label, judgement: Judgement) -> bool:
    """Say whether any change may help: not against a failed test, nor where nothing was read."""
    return (
        judgement.says == "no"
        and is_readable(label)
        and not any(gate.gate == "E" and gate.answer.says == "no" for gate in judgement.gates)
    )


def nearest(
    known: Catalogue,
    host: Host,
    rows: Sequence[tuple[int, Judgement]],
    facts: Facts,
    most: int,
) -> tuple[Miss, ...]:
    """Return what of rejected images is nearest: less hardware, fewer changes, older drivers.

    Of a framework's images that need the same, the first one stands for all; of others that are as
    near, too, the first comes first. What cannot be among them any more is not looked at.
    """
    frameworks, changes = known.coded["framework"].at, Changes(host, facts)
    # Backwards, so that the first of those that are alike is kept.
    pairs = ((frameworks[place], id(judgement)) for place, judgement in reversed(rows))
    first = dict(zip(pairs, range(len(rows) - 1, -1, -1), strict=True))
    judged = {number: rows[row] for (_, number), row in first.items()}
    least = {
        number: changes.least(known.label(place), judgement)
        for number, (place, judgement) in judged.items()
        if _may_help(known.label(place), judgement)
    }
    bounds = sorted((least[number], row) for (_, number), row in first.items() if number in least)
    found: dict[tuple[int, tuple[str, ...]], tuple[Any, int, Change]] = {}
    for bound, row in bounds:
        if len(found) >= most and sorted(found.values())[most - 1][:2] < (bound, row):
            break
        place, judgement = rows[row]
        needs = changes.of(known.label(place), known.tests(place), judgement)
        if needs is not None:
            key, here = (frameworks[place], needs.texts), (needs.order, row, needs)
            found[key] = min(found.get(key, here), here)
    return tuple(
        Miss(image=known.image(rows[row][0]), changes=needs.texts)
        for _, row, needs in sorted(found.values())[:most]
    )
