"""An entry of the index, and what every document is made of.

- A document is canonical JSON: UTF-8, sorted keys, no floats, RFC 3339 UTC times, sizes in bytes.
- Fields that this version does not know are kept (pydantic's `model_extra`) and written again.
- An absent optional field is left out, never written as null.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from curator.compat import Gap
from curator.oci import Digest, canonical_json

if TYPE_CHECKING:
    from collections.abc import Mapping

SPEC: Final = 1
ENTRY_VERSION: Final = 1
SHORT_KEY: Final = 12

_MINOR = re.compile(r"\d+(\.\d+)?")

Sha256 = Annotated[Digest, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
Key = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Time = Annotated[
    str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?Z$")
]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._+-]{0,199}$")]
# PEP 440 in its normal form, so that every stored version can be compared.
Version = Annotated[
    str,
    Field(
        pattern=r"^[0-9]+(\.[0-9]+)*((a|b|rc)[0-9]+)?(\.post[0-9]+)?(\.dev[0-9]+)?"
        r"(\+[a-z0-9]+(\.[a-z0-9]+)*)?$",
        max_length=64,
    ),
]
Repository = Annotated[
    str,
    Field(pattern=r"^[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*$", max_length=200),
]
Tag = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$")]
Size = Annotated[int, Field(ge=0, lt=2**53)]
Number = Annotated[int, Field(ge=1, lt=10**18)]

Channel = Literal["stable", "candidate"]
Outcome = Literal["pass", "fail", "not-run", "bad-host"]
State = Literal[
    "candidate", "active", "deprecated", "yanked", "quarantined", "unpublished", "expired"
]


class Model(BaseModel):
    """A frozen value that keeps the fields it does not know."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    @property
    def extra(self) -> Mapping[str, Any]:
        """The fields that a newer or another writer added."""
        return self.model_extra or {}

    @model_serializer(mode="wrap")
    def _without_absent(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        data: dict[str, Any] = handler(self)
        extra = self.model_extra or {}
        return {name: value for name, value in data.items() if value is not None or name in extra}

    def to_json(self) -> dict[str, Any]:
        """Return the value as documents hold it."""
        return self.model_dump(mode="json")

    @property
    def data(self) -> bytes:
        """The bytes of this document: what is hashed and stored."""
        return canonical_json(self.to_json())


class Stack(Model):
    """The versions inside an image, as they were read there.

    `built` is the CUDA release that compiled the framework, where the framework tells it.
    """

    framework: Name
    version: Version
    cuda: Version
    python: Version
    cudnn: Version | None = None
    nccl: Version | None = None
    glibc: Version | None = None
    built: Version | None = None


class SmGap(Model):
    """A library that the framework needs, with code for fewer compute capabilities than it has."""

    file: Annotated[str, Field(pattern=r"^[A-Za-z0-9._+-]{1,100}$")]
    cubin: tuple[str, ...]
    ptx: tuple[str, ...] = ()


class Sm(Model):
    """The compute capabilities an image ships kernels for, such as `9.0`, and how that is known."""

    cubin: tuple[str, ...]
    ptx: tuple[str, ...] = ()
    source: str
    gaps: tuple[SmGap, ...] | None = None


class Driver(Model):
    """The lowest driver an image runs on, with the rule that says so."""

    min: Version
    rule: str
    verified_on: tuple[str, ...] = ()


class SuiteResult(Model):
    """One suite's outcome on one host; `evidence` is the digest of the stored report.

    `speed` is what was measured beside it, by name: 10**9 operations a second of a matrix product
    (`matmul_<type>_gflops`), 10**6 bytes a second of a copy (`copy_mb_s`). It decides nothing.
    """

    suite: str
    verdict: Outcome
    evidence: Sha256
    at: Time
    probe: Key
    gpu: str | None = None
    sm: str | None = None
    driver: str | None = None
    speed: dict[str, Size] | None = None

    @property
    def host(self) -> tuple[str, str | None, str | None]:
        """What a later test has to share with this one to replace it."""
        return self.suite, self.sm, self.driver


class CoverageTest(Model):
    """A test that a coverage rests on; `stale` says why it is not enough any more."""

    evidence: Sha256
    sm: str
    driver: str
    at: Time
    stale: Literal["probe", "age", "time"] | None = None


class CoverageGroup(Model):
    """Every pair of these compute capabilities and ranges of driver branches, ends included."""

    answer: Literal["tested", "inferred", "untested", "bad"]
    sm: tuple[str, ...] = Field(min_length=1)
    drivers: tuple[tuple[int, int], ...] = Field(min_length=1)
    rules: tuple[str, ...] | None = None
    tests: tuple[CoverageTest, ...] | None = None


class Coverage(Model):
    """Where an image was tested, follows to run, or does not; `curator.coverage` defines it."""

    probe: Key
    max_age_days: Size
    groups: tuple[CoverageGroup, ...]


class Status(Model):
    """Where an entry stands, since when, and why."""

    state: State
    reason: str = ""
    by: str = ""
    at: Time | None = None
    replaced_by: str | None = None


class Entry(Model):
    """One image, with everything a reader decides on.

    `digest` is what is pulled; `platform_digest` names the part that a rebuild reproduces.
    `repository` is relative to the registry's place, so that a mirrored index stays true.
    `published` is when the index took the entry; it is None only before.
    `tags` holds the immutable tag alone: the moving ones belong to the whole set.
    `requires` are the variables in the image's configuration that NVIDIA's container runtime
    checks before a start: `NVIDIA_REQUIRE_*`, `NVIDIA_DISABLE_REQUIRE` and `CUDA_VERSION`.
    `forward` is the CUDA release of the forward compatibility package in the image, if it has one.
    """

    v: Literal[1] = ENTRY_VERSION
    id: Name
    cell: Name
    digest: Sha256
    platform_digest: Sha256
    repository: Repository
    platforms: tuple[Annotated[str, Field(pattern=r"^[a-z0-9]+/[a-z0-9]+$")], ...] = Field(
        min_length=1
    )
    size: Size
    stack: Stack
    driver: Driver
    tests: tuple[SuiteResult, ...]
    base: str
    recipe: Key
    lock: Sha256
    created: Time
    status: Status
    channel: Channel | None = None
    tags: tuple[Tag, ...] = ()
    sm: Sm | None = None
    coverage: Coverage | None = None
    requires: dict[str, str] | None = None
    forward: Version | None = None
    published: Time | None = None

    @model_validator(mode="after")
    def _is_named_by_its_recipe(self) -> Self:
        if self.id != entry_id(self.cell, self.recipe):
            raise ValueError(f"id {self.id} is not {entry_id(self.cell, self.recipe)}")
        return self

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """The libraries with code for fewer GPUs than the framework, as the rules take them."""
        told = self.sm.gaps if self.sm else None
        return tuple(Gap(file=gap.file, cubin=gap.cubin, ptx=gap.ptx) for gap in told or ())

    @property
    def is_current(self) -> bool:
        """Whether the farm still answers for this image; what expired has to be built again."""
        return self.status.state != "expired"

    @property
    def is_published(self) -> bool:
        """Whether the image stands under its immutable tag, and nothing says not to pull it."""
        return bool(self.tags) and self.status.state in {"candidate", "active", "deprecated"}

    @property
    def shard(self) -> str:
        """The key of the shard that holds this entry: `framework/minor/cuda`."""
        return f"{group_of(self.stack.framework, self.stack.version)}/{self.stack.cuda}"


def entry_id(cell: str, recipe: str) -> str:
    """Return the name of a cell's image built from a recipe key."""
    return f"{cell}-{recipe[:SHORT_KEY]}"


def minor_of(version: str) -> str:
    """Return `major.minor` of a version: `2.9.1` -> `2.9`, `2.10rc1` -> `2.10`."""
    match = _MINOR.match(version)
    return match[0] if match else version


def instant(time: str | None) -> str:
    """Return a time as text that sorts by age; no time at all is the oldest."""
    # Without its Z, a time with a fraction sorts after the same second without one.
    return (time or "").rstrip("Z")


def group_of(framework: str, version: str) -> str:
    """Return the part of the index within which moving tags are decided: `framework/minor`."""
    return f"{framework}/{minor_of(version)}"
