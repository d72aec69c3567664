"""What is known of a framework, a release or a combination: images, documents, and the farm."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from curator.errors import HostError, InputError
from curator.resolve import Combination, claims

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from curator.cli._console import Console
    from curator.facts import Build, Facts
    from curator.resolve import Catalogue, Claim

MOST_NAMED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class _Farm:
    """What the farm that we stand in makes of a name: its cells, or why there are none."""

    cells: tuple[str, ...] = ()
    rejected: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, console: Console, name: str) -> _Farm:
        """Read the farm, if there is one; a whole id goes before what begins so."""
        try:
            _, loaded = console.load()
        except (InputError, HostError):
            return cls()
        reasons = {found.id: (found.because, found.source) for found in loaded.rejected}
        if name in reasons:
            return cls(rejected=(reasons[name],))
        cells = [cell.id for cell in loaded.cells]
        own = [cell for cell in cells if cell == name] or _beginning(cells, name)
        if own:
            return cls(cells=tuple(own))
        because = dict.fromkeys(reasons[cell] for cell in _beginning(reasons, name))
        return cls(rejected=tuple(because)[:1])


def _beginning(ids: Iterable[str], name: str) -> list[str]:
    return [cell for cell in ids if cell.startswith(f"{name}-")]


def about(
    console: Console, name: str, catalogue: Catalogue | None, known: Facts
) -> tuple[list[str], dict[str, Any]] | None:
    """Return what is known of a combination, as lines and for machines; None if nothing is."""
    plain = name.removesuffix("-arm64")
    offered = [image for image in (catalogue.images if catalogue else ()) if image.is_offered]
    frameworks = {build.framework for build in known.builds} | {i.framework for i in offered}
    asked = _asked(plain, frameworks)
    if asked is None:
        return None
    builds = [build for build in known.builds if build.framework == asked.framework]
    documented, farm = claims(asked, known), _Farm.of(console, name)
    others = [image for image in offered if image.framework == asked.framework]
    # A cell's id ends with its architecture where that is not amd64.
    able = [one for one in others if plain == name or "linux/arm64" in one.label.platforms]
    images = [image.name for image in able if asked.names(image)]
    if not (builds or farm.cells or farm.rejected or others):
        return None
    silent = "" if documented or not builds else _silent(asked, builds)
    head = f"{_counted(images)} of this published" if catalogue else "no index was read"
    lines = [
        f"{name}: {head}",
        *(_history(builds) if asked == Combination(framework=asked.framework) else ()),
        *_documented(documented, silent, asked),
        *_of_farm(farm, is_published=bool(images)),
        *_listed(asked.framework, images, [image.name for image in others]),
    ]
    return lines, {
        "combination": name,
        "claims": [claim.to_json() for claim in documented],
        "undocumented": silent or None,
        "rejected": [{"because": because, "source": source} for because, source in farm.rejected],
        "buildable": list(farm.cells),
        "published": images if catalogue else None,
    }


def _asked(name: str, frameworks: Iterable[str]) -> Combination | None:
    """Read a combination; a framework may have CUDA in its name, as numba-cuda has."""
    text = name.strip().lower()
    own = [one for one in frameworks if re.match(rf"{re.escape(one)}(?![a-z0-9])", text)]
    if not own:
        return Combination.parse(text)
    framework = max(own, key=len)
    asked = Combination.parse(f"x{text[len(framework) :]}")
    return asked and replace(asked, framework=framework)


def _counted(images: Sequence[str]) -> str:
    if not images:
        return "no image"
    return f"{len(images)} images" if len(images) > 1 else "1 image"


def _listed(framework: str, images: Sequence[str], others: Sequence[str]) -> Iterator[str]:
    if images or others:
        told = "published" if images else f"published of {framework}"
        yield f"  {told}: {', '.join(list(dict.fromkeys(images or others))[:MOST_NAMED])}"


def _of_farm(farm: _Farm, *, is_published: bool) -> Iterator[str]:
    for because, source in farm.rejected:
        yield f"  no: {because}"
        yield f"      {source}"
    if farm.cells and not is_published:
        cells = ", ".join(farm.cells[:MOST_NAMED])
        more = len(farm.cells) - MOST_NAMED
        yield f"  built by this farm, not published: {cells}{f' and {more} more' * (more > 0)}"


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
