"""What the pages of images and frameworks show, ready to be written."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Final

from curator.index import minor_of
from curator.page._evidence import word_of
from curator.page._names import COMMAND, anchor, day, evidence_page, framework_page, image_page
from curator.resolve import PLATFORMS, Gpu, Host, Judge, latest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from curator.facts import Capability, Facts
    from curator.page._evidence import Word
    from curator.resolve import Catalogue, Image, Judgement, Label, Tested

_MEGA: Final = 1_000_000
_ARCHITECTURES: Final = {platform: name for name, platform in PLATFORMS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """An image in a list of images."""

    image: Image
    name: str
    link: str
    word: Word
    anchor: str | None = None

    @property
    def day(self) -> str:
        """The day that it was published."""
        return day(self.image.published)

    @property
    def size(self) -> str:
        """Its size in megabytes, or nothing where nobody measured it."""
        return megabytes(self.image.size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Minor:
    """The images of a framework's minor version."""

    name: str
    images: tuple[Listed, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Test:
    """A GPU test; `evidence` is the path of its report, `speed` what was measured in words."""

    test: Tested
    evidence: str | None
    speed: str

    @property
    def day(self) -> str:
        """The day of the test."""
        return day(self.test.at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """GPUs of a compute capability: which drivers the rules let run the image, or why none."""

    sm: str
    architecture: str
    says: str
    drivers: str
    loads: str


class View:
    """Looks at images for their pages; what images have in common is looked at once."""

    def __init__(self, known: Catalogue, images: Iterable[Image], facts: Facts) -> None:
        self._known, self._facts = known, facts
        self._machines: dict[Label, tuple[Machine, ...]] = {}
        self._judges: dict[tuple[str, str, int], Judge] = {}
        self._branches = tuple(branch.number for branch in facts.gpus.branches)
        self._cells: dict[str, list[Image]] = {}
        for image in images:
            self._cells.setdefault(image.cell, []).append(image)

    def listed(self, image: Image, *, anchor: str | None = None) -> Listed:
        """Return an image's line."""
        return Listed(
            image=image,
            name=image.name,
            link=image_page(image),
            word=word_of(image),
            anchor=anchor,
        )

    def minors(self, images: Sequence[Image]) -> tuple[Minor, ...]:
        """Return a framework's images by minor version, in the order of the catalogue."""
        return tuple(
            Minor(name=name, images=tuple(self._anchored(list(group))))
            for name, group in groupby(images, key=lambda image: minor_of(image.version))
        )

    def _anchored(self, images: Sequence[Image]) -> list[Listed]:
        seen: set[str] = set()
        found = []
        for image in images:
            here = anchor(image)
            found.append(self.listed(image, anchor=None if here in seen else here))
            seen.add(here)
        return found

    def others(self, image: Image) -> tuple[Listed, ...]:
        """Return all images of an image's cell, if there are others than it."""
        found = self._cells[image.cell]
        return tuple(map(self.listed, found)) if len(found) > 1 else ()

    def reference(self, image: Image) -> str:
        """Return what to pull."""
        return self._known.reference(image)

    def command(self, image: Image) -> str:
        """Return what runs it."""
        return f"{COMMAND} {self.reference(image)}"

    def replaced_by(self, image: Image) -> Listed | None:
        """Return what an image is replaced by, if that is in the index."""
        found = self._known.find(image.replaced_by) if image.replaced_by else None
        return self.listed(found) if found else None

    def back(self, image: Image) -> str:
        """Return the place of an image on its framework's page."""
        return f"{framework_page(image.framework)}#{anchor(image)}"

    def tests(self, image: Image) -> tuple[Test, ...]:
        """Return an image's GPU tests, the newest first; of the same kind of host the last."""
        found = sorted(latest(image.tests).values(), key=lambda test: test.age, reverse=True)
        return tuple(
            Test(test=test, evidence=evidence_page(test), speed=_speed(test)) for test in found
        )

    def machines(self, label: Label) -> tuple[Machine, ...]:
        """Return what the rules say of each compute capability that there are facts about."""
        if label not in self._machines:
            architecture = _ARCHITECTURES.get(label.platforms[0], "x86_64")
            self._machines[label] = tuple(
                self._machine(label, found, architecture) for found in self._facts.gpus.capabilities
            )
        return self._machines[label]

    def _judge(self, sm: str, architecture: str, branch: int) -> Judge:
        key = sm, architecture, branch
        if key not in self._judges:
            host = Host(driver=str(branch), gpus=(Gpu(sm=sm),), architecture=architecture)
            self._judges[key] = Judge(host, self._facts)
        return self._judges[key]

    def _machine(self, label: Label, about: Capability, architecture: str) -> Machine:
        found = {
            branch: self._judge(about.sm, architecture, branch).label(label)
            for branch in self._branches
        }
        good = [branch for branch, one in found.items() if one.says == "yes"]
        unsure = [one for one in found.values() if one.says == "unknown"]
        says, drivers = "no", ""
        if good:
            says, drivers = "yes", _range(good, self._branches[-1])
        elif unsure:
            says, drivers = "unknown", _reason(unsure[-1])
        else:
            drivers = _reason(self._fairest(about, found))
        return Machine(
            sm=about.sm,
            architecture=about.architecture,
            says=says,
            drivers=drivers,
            loads=_loads(found[good[0]]) if good else "",
        )

    @staticmethod
    def _fairest(about: Capability, found: dict[int, Judgement]) -> Judgement:
        """Return the judgement of the newest driver that knows the GPU."""
        branches = [branch for branch in found if about.has(branch)]
        return found[max(branches or found)]


def megabytes(size: int) -> str:
    """Return a size to read."""
    return f"{size / _MEGA:,.0f} MB" if size else ""


def _speed(test: Tested) -> str:
    return ", ".join(f"{name} {rate:,}" for name, rate in sorted(test.speed.items()))


def _range(branches: Sequence[int], newest: int) -> str:
    low, high = min(branches), max(branches)
    return f"driver {low} or later" if high == newest else f"driver {low} to {high}"


def _reason(judgement: Judgement) -> str:
    gates = [gate for gate in judgement.gates if gate.answer.says == judgement.says]
    return gates[-1].answer.text if gates else ""


def _loads(judgement: Judgement) -> str:
    return next((gate.answer.loads for gate in judgement.gates if gate.answer.loads), "") or ""
