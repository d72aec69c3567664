"""What the pages of images and frameworks show, ready to be written."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from curator.index import minor_of
from curator.page._evidence import word_of
from curator.page._machines import Machines
from curator.page._names import COMMAND, anchor, day, evidence_file, framework_page, image_page
from curator.page._sizes import family, history, megabytes
from curator.resolve import latest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from curator.facts import Facts
    from curator.page._evidence import Word
    from curator.page._machines import Machine
    from curator.page._sizes import Size
    from curator.resolve import Catalogue, Image, Tested


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


class View:
    """Looks at images for their pages; what images have in common is looked at once."""

    def __init__(self, known: Catalogue, images: Iterable[Image], facts: Facts) -> None:
        self._known = known
        self._machines = Machines(facts)
        self._cells: dict[str, list[Image]] = {}
        self._families: dict[tuple[str, str, str], list[Image]] = {}
        for image in images:
            self._cells.setdefault(image.cell, []).append(image)
            self._families.setdefault(family(image), []).append(image)

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

    def sizes(self, image: Image) -> tuple[Size, ...]:
        """Return how its size came about."""
        return history(image, self._families[family(image)])

    def contents(self, image: Image) -> str | None:
        """Return the path of the report that read what is in it."""
        return evidence_file(image.contents)

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
            Test(test=test, evidence=evidence_file(test.evidence), speed=_speed(test))
            for test in found
        )

    def machines(self, image: Image) -> tuple[Machine, ...]:
        """Return where an image runs, by compute capability."""
        return self._machines.of(image)


def _speed(test: Tested) -> str:
    return ", ".join(f"{name} {rate:,}" for name, rate in sorted(test.speed.items()))
