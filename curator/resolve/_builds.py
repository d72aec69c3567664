"""What a framework's releases were built for, whether or not an image of them exists."""

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

    def names(self, image: Image) -> bool:
        """Whether an image is one of these: versions are whole ones or beginnings of them."""
        asked = (self.version, self.cuda, self.python)
        has = (image.version, image.label.cuda, image.python)
        return image.framework == self.framework and all(
            wish is None or begins(version, wish) for wish, version in zip(asked, has, strict=True)
        )


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
        version = Version(asked.version)
        builds = [build for build in builds if version in SpecifierSet(build.versions)]
    return tuple(claim for build in builds for claim in _of(build, asked))


def _of(build: Build, asked: Combination) -> Iterator[Claim]:
    name = f"{build.framework} {asked.version or build.versions}"
    built = " or ".join(_named(cuda, build) for cuda in build.cuda)
    cudnn = f" and cuDNN {build.cudnn}" if build.cudnn else ""
    note = f": {build.note}" if build.note else ""
    if asked.cuda is None:
        yield _claim("yes", f"{name} was built for CUDA {built}{cudnn}{note}", build)
    elif _is_one_of(asked.cuda, build.cuda):
        yield _claim(
            "yes", f"{name} was built for CUDA {_named(asked.cuda, build)}{cudnn}{note}", build
        )
    elif build.loads and Version(asked.cuda) in SpecifierSet(build.loads):
        text = f"{name} was built for CUDA {built}{cudnn} and loads on CUDA {asked.cuda}"
        yield _claim("yes", f"{text}, whose libraries have the same names ({build.loads})", build)
    elif len(asked.cuda.split(".")) < 2 and any(c.startswith(f"{asked.cuda}.") for c in build.cuda):  # noqa: PLR2004
        yield _claim("yes", f"{name} was built for CUDA {built}{cudnn}{note}", build)
    else:
        text = f"{name} was built for CUDA {built}{cudnn} and not for CUDA {asked.cuda}{note}"
        yield _claim("no", text, build)
    if asked.python and build.python:
        fits = Version(asked.python) in SpecifierSet(build.python)
        text = f"{name} is built for Python {build.python}"
        yield _claim("yes" if fits else "no", text, build)


def _named(cuda: str, build: Build) -> str:
    is_experimental = ".".join(cuda.split(".")[:2]) in build.experimental
    return f"{cuda} (experimental)" if is_experimental else cuda


def _is_one_of(cuda: str, built: tuple[str, ...]) -> bool:
    return ".".join(cuda.split(".")[:2]) in built


def _claim(says: Says, text: str, build: Build) -> Claim:
    return Claim(says=says, text=text, source=f"{build.source}, read {build.read}")
