"""What a framework's releases were built for, whether or not an image of them exists.

- A version that is named in part stands for all that begin so. Where releases of it differ, those
  that have everything that is asked are told, each with its range; all of them where none has.
- A third number of CUDA is a release of the same two: images and documents name those.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from curator.compat import begins

if TYPE_CHECKING:
    from collections.abc import Iterator

    from curator.compat import Says
    from curator.facts import Build, Facts
    from curator.resolve._values import Image

_COMBINATION: Final = re.compile(
    r"(?P<framework>[a-z][a-z0-9-]*?)(?:(?:-|:|==|@)(?P<version>\d[\w.]*))?"
    r"(?:[-+ ]?cu(?:da)?[- ]?(?P<cuda>\d[\d.]*))?(?:-py(?P<python>\d[\d.]*))?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Combination:
    """A framework's release, and the CUDA and Python it is asked for; a cell's id is one."""

    framework: str
    version: str | None = None
    cuda: str | None = None
    python: str | None = None

    @classmethod
    def parse(cls, text: str) -> Combination | None:
        """Read `tensorflow-1.8-cuda9.2`, `pytorch==2.9.1`, `jax`; None for anything else."""
        match = _COMBINATION.fullmatch(text.strip().lower())
        if match is None:
            return None
        found = match.groupdict()
        try:
            for name in ("version", "cuda", "python"):
                Version(found[name] or "0")
        except InvalidVersion:
            return None
        cuda = found["cuda"]
        if cuda and "." not in cuda and len(cuda) > 2:  # noqa: PLR2004 - cu128 is 12.8
            cuda = f"{cuda[:-1]}.{cuda[-1]}"
        return cls(**{**found, "cuda": cuda})

    def has(self, other: Combination) -> bool:
        """Whether another is one of these: versions are whole ones or beginnings of them."""
        asked = (self.version, self.cuda and release_of(self.cuda), self.python)
        whole = (other.version, other.cuda, other.python)
        return other.framework == self.framework and all(
            wish is None or (version is not None and begins(version, wish))
            for wish, version in zip(asked, whole, strict=True)
        )

    def names(self, image: Image) -> bool:
        """Whether an image is one of these."""
        cuda = image.label.cuda
        own = {"framework": image.framework, "version": image.version, "python": image.python}
        return self.has(Combination(**own, cuda=cuda))


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One sentence about a combination, and the document that it is from."""

    says: Says
    text: str
    source: str

    def to_json(self) -> dict[str, Any]:
        """Return the claim for machines."""
        return {"says": self.says, "text": self.text, "source": self.source}


def claims(asked: Combination, facts: Facts) -> tuple[Claim, ...]:
    """Return what is documented of a combination; nothing where no fact is about it."""
    builds = [build for build in facts.builds if build.framework == asked.framework]
    if asked.version is not None:
        builds = [build for build in builds if _has_some(build.versions, asked.version)]
    told = [tuple(_of(build, asked)) for build in builds]
    fitting = [found for found in told if all(claim.says == "yes" for claim in found)]
    return tuple(claim for found in fitting or told for claim in found)


def release_of(cuda: str) -> str:
    """Return the release that a CUDA version is of: its first two numbers."""
    return ".".join(cuda.split(".")[:2])


def _has_some(versions: str, beginning: str) -> bool:
    """Say whether a range has versions that begin so.

    >>> _has_some(">=2.7,<2.8", "2"), _has_some(">=2.7,<2.8", "2.8"), _has_some(">=1.13,<2.1", "2")
    (True, False, True)
    """
    first = _end(versions, ">=")
    is_first_in = first is not None and begins(first, beginning)
    return is_first_in or Version(beginning) in SpecifierSet(versions)


def _end(versions: str, operator: str) -> str | None:
    return next((s.version for s in SpecifierSet(versions) if s.operator == operator), None)


def _name(build: Build, version: str | None) -> str:
    """Name the releases of a build that are asked for: one range of them, if it is not all."""
    if version is None:
        return f"{build.framework} {build.versions}"
    ends = [(operator, _end(build.versions, operator)) for operator in (">=", "<")]
    cut = ",".join(f"{operator}{end}" for operator, end in ends if _is_inside(end, version))
    return f"{build.framework} {version} ({cut})" if cut else f"{build.framework} {version}"


def _is_inside(end: str | None, beginning: str) -> bool:
    """Say whether some versions that begin so are before the end of a range, and some are not."""
    return end is not None and begins(end, beginning) and Version(end) != Version(beginning)


def _of(build: Build, asked: Combination) -> Iterator[Claim]:
    name = _name(build, asked.version)
    yield _of_cuda(name, build, asked.cuda)
    if asked.python and build.python:
        says: Says = "yes" if _has_some(build.python, asked.python) else "no"
        yield _claim(says, f"{name} is built for Python {build.python}", build)


def _of_cuda(name: str, build: Build, cuda: str | None) -> Claim:
    """Say whether a build is for a CUDA release, or which ones it is for."""
    found = [one for one in build.cuda if cuda is None or begins(one, release_of(cuda))]
    cudnn = f" and cuDNN {build.cudnn}" if build.cudnn else ""
    note = f": {build.note}" if build.note else ""
    built = " or ".join(
        f"{one} (experimental)" if one in build.experimental else one for one in found or build.cuda
    )
    text = f"{name} was built for CUDA {built}{cudnn}"
    if found:
        return _claim("yes", f"{text}{note}", build)
    if build.loads and Version(cuda or "0") in SpecifierSet(build.loads):
        loads = f"loads on CUDA {cuda}, whose libraries have the same names ({build.loads})"
        return _claim("yes", f"{text} and {loads}", build)
    return _claim("no", f"{text} and not for CUDA {cuda}{note}", build)


def _claim(says: Says, text: str, build: Build) -> Claim:
    return Claim(says=says, text=text, source=f"{build.source}, read {build.read}")
