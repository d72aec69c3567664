"""The grid framework x CUDA: a row for each minor version, a word and a sign in each cell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.version import Version

from curator.index import minor_of
from curator.page._evidence import NOT_BUILT, WORDS, YANKED, Word, best
from curator.page._names import anchor, framework_page, image_page

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from curator.resolve import Image


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What there is of a framework's minor version for one CUDA release; `link` is where."""

    cuda: str
    word: Word
    link: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A minor version of a framework; `is_first` is the framework's newest."""

    framework: str
    minor: str
    is_first: bool
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """The grid, the newest CUDA first; `legend` are the words that it has."""

    cudas: tuple[str, ...]
    rows: tuple[Row, ...]
    legend: tuple[Word, ...]


def grid(images: Iterable[Image]) -> Grid:
    """Return the grid of a catalogue's images, which are sorted."""
    places: dict[tuple[str, str], dict[str, list[Image]]] = {}
    for image in images:
        if image.is_offered or image.state in {"yanked", "quarantined"}:
            row = places.setdefault((image.framework, minor_of(image.version)), {})
            row.setdefault(image.label.cuda, []).append(image)
    cudas = sorted({cuda for row in places.values() for cuda in row}, key=Version, reverse=True)
    keys = sorted(places, key=lambda key: Version(key[1]), reverse=True)
    keys.sort(key=lambda key: key[0])
    rows = [
        Row(
            framework=framework,
            minor=minor,
            is_first=not place or keys[place - 1][0] != framework,
            cells=_cells(cudas, places[framework, minor]),
        )
        for place, (framework, minor) in enumerate(keys)
    ]
    used = {cell.word.css for row in rows for cell in row.cells}
    legend = tuple(word for word in WORDS if word.css in used)
    return Grid(cudas=tuple(cudas), rows=tuple(rows), legend=legend)


def _cells(cudas: Sequence[str], images: Mapping[str, list[Image]]) -> tuple[Cell, ...]:
    return tuple(_cell(cuda, images.get(cuda, [])) for cuda in cudas)


def _cell(cuda: str, images: list[Image]) -> Cell:
    word, image = best(images)
    if image is None:
        return Cell(cuda=cuda, word=NOT_BUILT)
    shown = [one for one in images if one.is_offered or word is YANKED]
    link = image_page(image)
    if len(shown) > 1:
        link = f"{framework_page(image.framework)}#{anchor(image)}"
    return Cell(cuda=cuda, word=word, link=link)
