"""What is asked, of what, and what is answered."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from curator.compat import Gap, standing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from curator.compat import Answer, Says, Stale
    from curator.index import State

Kind = Literal["datacenter", "workstation", "geforce", "titan", "embedded"]
Confidence = Literal["tested", "tested-sm", "rule"]
# What runs an image, before its reference: its Python, for somebody who types. Frameworks share
# more memory than a container has.
RUN: Final = ("docker", "run", "--rm", "-it", "--gpus", "all", "--shm-size", "8g")
OFFERED: Final[frozenset[State]] = frozenset({"active", "candidate", "deprecated"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU of a host, as far as it is known: `sm` is its compute capability such as `9.0`."""

    name: str | None = None
    sm: str | None = None
    kind: Kind | None = None

    def __str__(self) -> str:
        if self.sm is None:
            return self.name or "a GPU"
        return f"{self.name} (sm_{self.sm.replace('.', '')})" if self.name else f"sm {self.sm}"

    def to_json(self) -> dict[str, Any]:
        """Return what is known."""
        found = {"name": self.name, "sm": self.sm, "kind": self.kind}
        return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A machine that an image is to run on, as far as it is known.

    `driver` is NVIDIA's driver version, whole (`535.104.05`) or its branch alone (`535`), which
    stands for the newest of the branch; `architecture` is what `uname -m` says; `docker` is the
    engine's version.
    """

    driver: str | None = None
    gpus: tuple[Gpu, ...] = ()
    architecture: str = "x86_64"
    docker: str | None = None

    @property
    def branch(self) -> int | None:
        """The driver's branch, its first number."""
        return int(self.driver.partition(".")[0]) if self.driver else None

    def to_json(self) -> dict[str, Any]:
        """Return the host for machines."""
        return {
            "driver": self.driver,
            "gpus": [gpu.to_json() for gpu in self.gpus],
            "architecture": self.architecture,
            **({"docker": self.docker} if self.docker else {}),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Host:
        """Read what `to_json` wrote."""
        return cls(
            driver=value.get("driver"),
            gpus=tuple(
                Gpu(name=gpu.get("name"), sm=gpu.get("sm"), kind=gpu.get("kind"))
                for gpu in value.get("gpus", ())
            ),
            architecture=value.get("architecture", "x86_64"),
            docker=value.get("docker"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """What the rules look at in an image; many images share one.

    `cubin` is None where nobody read which kernels there are. `requires` are the variables that
    the container runtime looks at (`NVIDIA_REQUIRE_*`, `NVIDIA_DISABLE_REQUIRE`, `CUDA_VERSION`),
    None where nobody read them. `forward` is the CUDA release of a forward compatibility package
    in the image, and `glibc` its C library. `built` is the CUDA release that compiled the
    framework, where it tells: its kernels can be older than `cuda`, the libraries beside them.
    `gaps` are libraries that the framework needs and that have code for fewer GPUs.
    """

    cuda: str
    floor: str
    platforms: tuple[str, ...] = ("linux/amd64",)
    cubin: tuple[str, ...] | None = None
    ptx: tuple[str, ...] = ()
    requires: Mapping[str, str] | None = field(default=None, hash=False)
    forward: str | None = None
    glibc: str | None = None
    built: str | None = None
    gaps: tuple[Gap, ...] = ()

    @property
    def ptx_cuda(self) -> str:
        """The CUDA release that wrote the framework's PTX."""
        return self.built or self.cuda

    def to_json(self) -> dict[str, Any]:
        """Return the label; what is not known is left out."""
        found = {
            "cuda": self.cuda,
            "floor": self.floor,
            "platforms": list(self.platforms),
            "cubin": None if self.cubin is None else list(self.cubin),
            "ptx": list(self.ptx),
            "requires": None if self.requires is None else dict(self.requires),
            "forward": self.forward,
            "glibc": self.glibc,
            "built": self.built,
            "gaps": [asdict(gap) for gap in self.gaps] or None,
        }
        return {name: value for name, value in found.items() if value is not None}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Label:
        """Read what `to_json` wrote; other fields are left alone."""
        cubin = value.get("cubin")
        return cls(
            cuda=value["cuda"],
            floor=value["floor"],
            platforms=tuple(value.get("platforms", ("linux/amd64",))),
            cubin=None if cubin is None else tuple(cubin),
            ptx=tuple(value.get("ptx", ())),
            requires=value.get("requires"),
            forward=value.get("forward"),
            glibc=value.get("glibc"),
            built=value.get("built"),
            gaps=tuple(
                Gap(file=gap["file"], cubin=tuple(gap["cubin"]), ptx=tuple(gap.get("ptx", ())))
                for gap in value.get("gaps", ())
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tested:
    """One GPU test of an image: where, when, what came out, and which speeds were measured.

    `stale` says why it is not enough any more: by the index's own time, probe and age limit.
    """

    sm: str
    driver: str
    verdict: Literal["pass", "fail"]
    at: str
    gpu: str | None = None
    evidence: str | None = None
    stale: Stale | None = None
    speed: Mapping[str, int] = field(default_factory=dict, hash=False)

    @property
    def passed(self) -> bool:
        """Whether the image computed the right numbers."""
        return self.verdict == "pass"

    @property
    def branch(self) -> int:
        """The driver's branch."""
        return int(self.driver.partition(".")[0])

    @property
    def age(self) -> str:
        """Its time as text that sorts by age (`curator.index.instant`)."""
        return self.at.rstrip("Z")

    def to_json(self) -> dict[str, Any]:
        """Return the test; what is not known is left out."""
        found = {
            "sm": self.sm,
            "driver": self.driver,
            "verdict": self.verdict,
            "at": self.at,
            "gpu": self.gpu,
            "evidence": self.evidence,
            "stale": self.stale,
            "speed": dict(self.speed) or None,
        }
        return {name: value for name, value in found.items() if value is not None}


def runs(tests: Iterable[Tested]) -> dict[tuple[str, int], tuple[Tested, ...]]:
    """Return the tests that stand of each compute capability and driver branch, newest first."""
    pairs: defaultdict[tuple[str, int], list[Tested]] = defaultdict(list)
    for test in tests:
        pairs[test.sm, test.branch].append(test)
    return {pair: standing(found) for pair, found in pairs.items()}


def latest(tests: Iterable[Tested]) -> dict[tuple[str, int], Tested]:
    """Return the test that counts of each compute capability and driver branch: the newest."""
    return {pair: found[0] for pair, found in runs(tests).items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One published or withdrawn image of the index, as the resolver sees it.

    `contents` is the digest of the report that read what is in it.
    """

    id: str
    cell: str
    framework: str
    version: str
    python: str
    repository: str
    digest: str
    label: Label
    size: int = 0
    tags: tuple[str, ...] = ()
    moving: tuple[str, ...] = ()
    channel: str | None = None
    state: str = "active"
    reason: str = ""
    replaced_by: str | None = None
    published: str | None = None
    cudnn: str | None = None
    contents: str | None = None
    tests: tuple[Tested, ...] = ()

    @property
    def name(self) -> str:
        """What people call it: its most telling moving tag, else its immutable one, else its id."""
        tag = next(iter(self.moving or self.tags), None)
        return f"{self.repository}:{tag}" if tag else self.id

    @property
    def is_offered(self) -> bool:
        """Whether it is published and nothing says not to pull it."""
        return bool(self.tags) and self.state in OFFERED


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What somebody wants. Versions are beginnings (`2.9`) or specifiers (`>=2.6,<2.9`)."""

    framework: str | None = None
    version: str | None = None
    cuda: str | None = None
    python: str | None = None
    channel: str | None = None
    prefer: Literal["newest", "fastest"] = "newest"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What one gate says; `gpu` is the place of the GPU that it is about, where it is about one."""

    gate: Literal["G0", "G1", "G2", "G3", "E"]
    answer: Answer
    gpu: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the gate and its answer."""
        about = {} if self.gpu is None else {"gpu": self.gpu}
        return {"gate": self.gate, **about, **self.answer.to_json()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Whether an image runs on a host, how sure that is, and each gate's answer in order."""

    says: Says
    gates: tuple[Gate, ...]
    confidence: Confidence | None = None
    test: Tested | None = None

    @property
    def first(self) -> Gate | None:
        """The first gate that said no, else the first that does not know."""
        for says in ("no", "unknown"):
            for gate in self.gates:
                if gate.answer.says == says:
                    return gate
        return None

    def to_json(self) -> dict[str, Any]:
        """Return the judgement for machines."""
        return {
            "says": self.says,
            "confidence": self.confidence,
            "gates": [gate.to_json() for gate in self.gates],
            **({"test": self.test.to_json()} if self.test else {}),
        }
