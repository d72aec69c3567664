"""The container runtime's own check, before any process of the image starts.

The variables `NVIDIA_REQUIRE_*` of an image are all asked; each is a list of alternatives,
divided by spaces, of conditions, divided by commas: `cuda>=12.4 brand=tesla,driver>=470`.
`cuda` is the CUDA release of the host's driver, `driver` its version, `arch` and `brand` a GPU's
compute capability and brand: nvidia-container-cli asks it of every GPU, the toolkit of the first.
Properties and brands are compared without case. One that is not known is unknown: the command line
refuses the whole variable, the toolkit skips it. Variables for JetPack are left out.

An image with `CUDA_VERSION` and without `NVIDIA_REQUIRE_CUDA`, or with an empty one, asks for its
major and minor, which have to be those of a semantic version. `NVIDIA_DISABLE_REQUIRE` turns the
check off.

Source: nvidia-container-toolkit, internal/requirements/constraints/factory.go and
internal/config/image/cuda_image.go; libnvidia-container, src/cli/dsl.c (read 2026-11-28).
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Final

from curator.compat._answer import Answer, numbers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from curator.compat._answer import Numbers, Says

PREFIX: Final = "NVIDIA_REQUIRE_"
CUDA: Final = "NVIDIA_REQUIRE_CUDA"
OFF: Final = "NVIDIA_DISABLE_REQUIRE"
LEGACY: Final = "CUDA_VERSION"
JETPACK: Final = "NVIDIA_REQUIRE_JETPACK"
# As Go's strconv.ParseBool reads it.
TRUE: Final = frozenset({"1", "t", "T", "true", "TRUE", "True"})

_CONDITION = re.compile(r"([A-Za-z]+)(>=|<=|!=|=|<|>)([^<>=!]+)")
# As golang.org/x/mod/semver: one or two numbers alone, or three with more behind them.
_NUMBER: Final = r"(?:0|[1-9][0-9]{0,5})"
_SEMANTIC = re.compile(
    rf"v?({_NUMBER})(?:\.({_NUMBER})(?:\.{_NUMBER}"
    r"(?:-[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?)?)?"
)
_VERSION = re.compile(r"\d{1,6}(\.\d{1,6}){0,3}")
_PARTS: Final = 4

# A version as far as it is known: the lowest and the highest that it can be, ends included.
Range = tuple[tuple[float, ...], tuple[float, ...]]


def is_checked(name: str) -> bool:
    """Say whether the runtime looks at a variable of an image before it starts it."""
    return name.startswith(PREFIX) or name in {OFF, LEGACY}


def exactly(version: str) -> Range:
    """Return the range of a version that is known."""
    return _padded(version), _padded(version)


def within(version: str) -> Range:
    """Return the range of a version of which the first numbers are known: a driver's branch."""
    return _padded(version), _padded(version, math.inf)


def at_least(version: str) -> Range:
    """Return the range of a version that is this one or a later one."""
    return _padded(version), (math.inf,) * _PARTS


def runtime(
    requires: Mapping[str, str],
    *,
    cuda: Range | None,
    driver: Range | None,
    arch: str | None,
    brands: Sequence[str],
) -> Answer:
    """Say whether the runtime lets an image start on a host; unknown facts are None, or empty.

    `brands` are those that the GPU may report. The answer is of the first variable that
    says no, and names the condition that its first alternative fails by.
    """
    if requires.get(OFF, "") in TRUE:
        return Answer(says="yes", rule="runtime-off")
    facts = _Facts(cuda, driver, exactly(arch) if arch else None, tuple(brands))
    asked = {name: text for name, text in sorted(requires.items()) if _is_asked(name)}
    implied = not asked.get(CUDA) and bool(requires.get(LEGACY))
    if implied:
        found = _SEMANTIC.fullmatch(requires[LEGACY])
        if found is None:
            return Answer(says="unknown", rule="runtime-unread")
        asked[CUDA] = f"cuda>={found[1]}.{found[2] or 0}"
    answers = [
        facts.variable(text, implied=implied and name == CUDA) for name, text in asked.items()
    ]
    for says in ("no", "unknown"):
        for answer in answers:
            if answer.says == says:
                return answer
    if not asked:
        return Answer(says="yes", rule="runtime-none")
    told = "; ".join(asked.values())
    return Answer(says="yes", rule="runtime-met", compared=(("requires", told),))


def _is_asked(name: str) -> bool:
    return name.startswith(PREFIX) and not name.startswith(JETPACK)


class _Facts:
    """The host, as the runtime's conditions see it."""

    def __init__(
        self,
        cuda: Range | None,
        driver: Range | None,
        arch: Range | None,
        brands: tuple[str, ...],
    ) -> None:
        self._ranges = {"cuda": cuda, "driver": driver, "arch": arch}
        self._brands = brands

    def variable(self, text: str, *, implied: bool) -> Answer:
        """Return what a variable's alternatives come to: one that is met is enough."""
        compared: Numbers = (("requires", text),)
        if len(self._brands) > 1 and all(
            facts.variable(text, implied=implied).says == "yes" for facts in self._by_brand()
        ):
            return Answer(says="yes", rule="runtime-met", compared=compared)
        worst: tuple[str, str] | None = None
        unsure = False
        for alternative in text.split(" "):
            says, about, condition = self._alternative(alternative)
            if about == "unread":
                return Answer(says="unknown", rule="runtime-unread")
            if says == "yes":
                return Answer(says="yes", rule="runtime-met", compared=compared)
            if says is not None:
                unsure = unsure or says == "unknown"
                worst = worst or (about, condition)
        if worst is None:
            return Answer(says="yes", rule="runtime-met", compared=compared)
        about, condition = worst
        rule = "runtime-implied" if implied else f"runtime-{about}"
        least = condition.lower().removeprefix("cuda>=")
        asked = ("asks", least) if len(least) < len(condition) else ("other", condition)
        compared = (*compared, ("has", self._told(about)), asked)
        return Answer(says="unknown" if unsure else "no", rule=rule, compared=compared)

    def _by_brand(self) -> Iterator[_Facts]:
        """Yield the host as it is with each brand that it may report."""
        ranges = self._ranges
        for brand in self._brands:
            yield _Facts(ranges["cuda"], ranges["driver"], ranges["arch"], (brand,))

    def _alternative(self, text: str) -> tuple[Says | None, str, str]:
        """Return what conditions come to that all have to hold, what the worst is about, and it.

        None where there are no conditions.
        """
        found: list[tuple[Says, str, str]] = []
        for condition in filter(None, text.split(",")):
            match = _CONDITION.fullmatch(condition)
            if match is None:
                return "unknown", "unread", condition
            about, sign, value = match[1].lower(), match[2], match[3]
            if about == "brand":
                found.append((self._brand(sign, value.lower()), about, condition))
            elif about in self._ranges:
                if not _VERSION.fullmatch(value):
                    return "unknown", "unread", condition
                found.append((_compare(self._ranges[about], sign, value), about, condition))
            else:
                found.append(("unknown", "unread", condition))
        if not found:
            return None, "", ""
        for says in ("no", "unknown"):
            for answer in found:
                if answer[0] == says:
                    return answer
        return found[0]

    def _brand(self, sign: str, value: str) -> Says:
        if sign not in {"=", "!="} or not self._brands:
            return "unknown"
        if value not in self._brands:
            return "no" if sign == "=" else "yes"
        if len(self._brands) > 1:
            return "unknown"
        return "yes" if sign == "=" else "no"

    def _told(self, about: str) -> str:
        if about == "brand":
            return " or ".join(self._brands) or "not known"
        known = self._ranges[about]
        if known is None:
            return "not known"
        low, high = known
        kept = [int(part) for part, end in zip(low, high, strict=True) if part == end or part]
        while len(kept) > 1 and not kept[-1]:
            kept.pop()
        if about != "driver" and len(kept) == 1:
            kept.append(0)
        return ".".join(str(part) for part in kept)


def _padded(version: str, filler: float = 0) -> tuple[float, ...]:
    parts: tuple[float, ...] = numbers(version)
    return (*parts, *((filler,) * (_PARTS - len(parts))))[:_PARTS]


def _compare(known: Range | None, sign: str, value: str) -> Says:
    if known is None:
        return "unknown"
    low, high = known
    asked = _padded(value)
    if sign in {"=", "!="}:
        outside = asked < low or asked > high
        says: Says = "no" if outside else "yes" if low == high else "unknown"
        return says if sign == "=" else {"yes": "no", "no": "yes", "unknown": "unknown"}[says]  # type: ignore[return-value]
    always = {
        ">=": low >= asked,
        ">": low > asked,
        "<=": high <= asked,
        "<": high < asked,
    }[sign]
    never = {
        ">=": high < asked,
        ">": high <= asked,
        "<=": low > asked,
        "<": low >= asked,
    }[sign]
    return "yes" if always else "no" if never else "unknown"
