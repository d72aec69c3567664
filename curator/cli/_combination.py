"""What is known of a framework, a release or a combination: images, documents, and the farm."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from curator.cli._pull import described
from curator.errors import HostError, InputError
from curator.resolve import PLATFORMS, Combination, Judge, claims, why

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from curator.cli._console import Console
    from curator.facts import Build, Facts
    from curator.matrix import Cell, Rejected
    from curator.resolve import Catalogue, Claim, Host, Image, Judgement

MOST_NAMED = 5
AMD64, ARM64 = (PLATFORMS[machine] for machine in ("x86_64", "aarch64"))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Farm:
    """Cells of the farm that we stand in, and what is rejected there; nothing outside of one."""

    cells: tuple[Cell, ...] = ()
    rejected: tuple[Rejected, ...] = ()

    @classmethod
    def here(cls, console: Console) -> _Farm:
        """Read the farm, if there is one."""
        try:
            _, loaded = console.load()
        except (InputError, HostError):
            return cls()
        return cls(cells=loaded.cells, rejected=loaded.rejected)

    @property
    def all(self) -> tuple[Cell | Rejected, ...]:
        """Every combination that it has a word of."""
        return (*self.cells, *self.rejected)

    def of(self, asked: Combination, platform: str | None) -> _Farm:
        """Return what is asked for, on any platform or one; rejections only where no cell is.

        An id without a platform is that of linux/amd64: cells elsewhere are no answer to why there
        is none of it.
        """
        own = platform or AMD64
        cells = tuple(cell for cell in self.cells if asked.has(_of(cell)))
        if any(str(cell.platform) == own for cell in cells):
            rejected: tuple[Rejected, ...] = ()
        else:
            found = (item for item in self.rejected if str(item.platform) == own)
            rejected = tuple(item for item in found if asked.has(_of(item)))
        here = tuple(cell for cell in cells if platform in {None, str(cell.platform)})
        return _Farm(cells=here, rejected=rejected)


def _of(item: Cell | Rejected) -> Combination:
    return Combination(
        framework=item.framework, version=item.version, cuda=item.cuda, python=item.python
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """What is known of a combination; `images` is None where no index was read.

    `others` are images and `elsewhere` cells of its framework.
    """

    asked: Combination
    builds: Sequence[Build]
    documented: Sequence[Claim]
    farm: _Farm
    elsewhere: Sequence[Cell]
    images: Sequence[Image] | None
    others: Sequence[Image]
    host: Host | None
    judged: Sequence[tuple[Image, Judgement]]

    def lines(self, name: str) -> Iterator[str]:
        """Yield it for people."""
        asked, farm, has_index = self.asked, self.farm, self.images is not None
        yield f"{name}: {_counted(self.images)}"
        if asked == Combination(framework=asked.framework):
            yield from _history(self.builds)
        yield from _documented(self.documented, self.silent, asked)
        yield from _rejected(farm.rejected)
        if not self.images:
            yield from _buildable(farm.cells, is_index_read=has_index)
        if not (self.images or farm.cells or farm.rejected):
            yield from _elsewhere(self.elsewhere, asked.framework)
        yield from _listed(asked.framework, self.images or (), self.others)
        if self.host is not None:
            yield from _on(self.host, self.judged)

    @property
    def silent(self) -> str:
        """That nothing is documented of it, though there is of its framework; else nothing."""
        return "" if self.documented or not self.builds else _silent(self.asked, self.builds)

    def to_json(self, name: str) -> dict[str, Any]:
        """Return it for machines."""
        reasons = _reasons(self.farm.rejected)
        return {
            "combination": name,
            "claims": [claim.to_json() for claim in self.documented],
            "undocumented": self.silent or None,
            "rejected": [{"because": because, "source": source} for because, source in reasons],
            "buildable": [cell.id for cell in self.farm.cells],
            "published": None if self.images is None else [image.name for image in self.images],
            "host": self.host.to_json() if self.host else None,
            "judged": [{"id": image.id, **found.to_json()} for image, found in self.judged],
        }


def about(
    console: Console, name: str, catalogue: Catalogue | None, known: Facts, host: Host | None
) -> tuple[list[str], dict[str, Any]] | None:
    """Return what is known of a combination, as lines and for machines; None if nothing is.

    With a host, that is also whether each of its images runs there.
    """
    # A cell's id ends with its architecture where that is not amd64.
    text = name.strip().lower()
    plain = text.removesuffix("-arm64")
    platform = None if plain == text else ARM64
    offered = [image for image in (catalogue.images if catalogue else ()) if image.is_offered]
    farm = _Farm.here(console)
    asked = _asked(plain, {item.framework for item in (*known.builds, *offered, *farm.all)})
    if asked is None:
        return None
    others = [image for image in offered if image.framework == asked.framework]
    able = [one for one in others if platform is None or platform in one.label.platforms]
    images = [image for image in able if asked.names(image)]
    judge = Judge(host, known) if host else None
    found = _Known(
        asked=asked,
        builds=[build for build in known.builds if build.framework == asked.framework],
        documented=claims(asked, known),
        farm=farm.of(asked, platform),
        elsewhere=[cell for cell in farm.cells if cell.framework == asked.framework],
        images=images if catalogue else None,
        others=others,
        host=host,
        judged=[(image, judge(image.label, image.tests)) for image in images] if judge else (),
    )
    return list(found.lines(name)), found.to_json(name)


def _asked(name: str, frameworks: Iterable[str]) -> Combination | None:
    """Read a combination of a known framework; one may have CUDA in its name, as numba-cuda."""
    own = [one for one in frameworks if re.match(rf"{re.escape(one)}(?![a-z0-9])", name)]
    if not own:
        return None
    framework = max(own, key=len)
    asked = Combination.parse(f"x{name[len(framework) :]}")
    return asked and replace(asked, framework=framework)


def _counted(images: Sequence[Image] | None) -> str:
    if images is None:
        return "no index was read"
    count = len(images) or "no"
    return f"{count} image{'s' * (len(images) > 1)} of this published"


def _listed(framework: str, images: Sequence[Image], others: Sequence[Image]) -> Iterator[str]:
    if images or others:
        told = "published" if images else f"published of {framework}"
        names = dict.fromkeys(image.name for image in images or others)
        yield f"  {told}: {', '.join(list(names)[:MOST_NAMED])}"


def _on(host: Host, judged: Sequence[tuple[Image, Judgement]]) -> Iterator[str]:
    """Yield whether images run on a host, or that nothing is judged where none is."""
    if not judged:
        yield f"  no image of this to be judged on {described(host)}"
        return
    yield f"  on {described(host)}:"
    for image, judgement in judged[:MOST_NAMED]:
        yield f"    {judgement.says}: {image.name}: {why(judgement)}"


def _reasons(rejected: Iterable[Rejected]) -> list[tuple[str, str]]:
    """Return why, and who says so, each once."""
    return list(dict.fromkeys((item.because, item.source) for item in rejected))


def _rejected(rejected: Sequence[Rejected]) -> Iterator[str]:
    reasons = _reasons(rejected)
    for because, source in reasons[:MOST_NAMED]:
        yield f"  no: {because}"
        yield f"      {source}"
    if len(reasons) > MOST_NAMED:
        yield f"  and {len(reasons) - MOST_NAMED} more reasons: curator matrix --rejected"


def _buildable(cells: Sequence[Cell], *, is_index_read: bool) -> Iterator[str]:
    if cells:
        has = f"{len(cells)} cells" if len(cells) > 1 else "a cell"
        unpublished = ", not published" if is_index_read else ""
        yield f"  this farm has {has} for it{unpublished}: {_named(cells)}"


def _elsewhere(cells: Sequence[Cell], framework: str) -> Iterator[str]:
    if cells:
        yield f"  this farm has no cell for it, but of {framework}: {_named(cells)}"


def _named(cells: Sequence[Cell]) -> str:
    named = ", ".join(cell.id for cell in cells[:MOST_NAMED])
    more = len(cells) - MOST_NAMED
    return f"{named} and {more} more" if more > 0 else named


def _documented(documented: Sequence[Claim], silent: str, asked: Combination) -> Iterator[str]:
    """Yield what is documented of a release or combination; each source once."""
    if silent:
        yield f"  unknown: {silent}"
    if asked == Combination(framework=asked.framework):
        return
    for source, of_source in groupby(documented, key=lambda claim: claim.source):
        yield from (f"  {claim.says}: {claim.text}" for claim in of_source)
        yield f"      {source}"


def _history(builds: Sequence[Build]) -> Iterator[str]:
    """Yield which CUDA each release of a framework was built for, newest first."""
    ordered = sorted(builds, key=_first, reverse=True)
    newest = [max(map(Version, build.cuda)) for build in ordered]
    is_later = all(later >= earlier for later, earlier in pairwise(newest))
    if len(set(newest)) > 1 and is_later:
        yield (
            f"  Later releases are built for later CUDA: {_release(ordered[0])}, and the earliest "
            f"that is documented here, {_release(ordered[-1])}."
        )
    for source, of_source in groupby(ordered, key=lambda build: (build.source, build.read)):
        for build in of_source:
            loads = f"; loads on CUDA {build.loads}" if build.loads else ""
            yield f"  {_release(build)}{loads}{f'; {build.note}' if build.note else ''}"
        yield f"      {source[0]}, read {source[1]}"
    if ordered:
        yield f"  before {_first(ordered[-1])}: nothing is documented here"


def _release(build: Build) -> str:
    names = [
        f"{cuda} (experimental)" if cuda in build.experimental else cuda for cuda in build.cuda
    ]
    cudnn = f" and cuDNN {build.cudnn}" if build.cudnn else ""
    return f"{build.versions} for CUDA {' or '.join(names)}{cudnn}"


def _silent(asked: Combination, builds: Sequence[Build]) -> str:
    """Say that nothing is documented of a release, and of which releases something is."""
    ends = dict.fromkeys(pick(builds, key=_first).versions for pick in (min, max))
    what = f"{asked.framework} {asked.version}"
    return f"nothing is documented here of {what}, but of {' up to '.join(ends)}"


def _first(build: Build) -> Version:
    """Return the first release that a row is about."""
    found = [
        Version(part.version) for part in SpecifierSet(build.versions) if part.operator == ">="
    ]
    return min(found, default=Version("0"))
