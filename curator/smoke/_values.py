"""What a test is about and what came of it, as values that can be written as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

from curator.errors import IntegrityError
from curator.oci import Digest, canonical_json

if TYPE_CHECKING:
    from collections.abc import Iterable

KIND = "dev.curator.smoke-report.v1"
CONTROL = "control"
GPU_CHECK = "cuda_tensor"
# `speed` is recorded and opens or closes nothing.
GPU_CHECKS = (GPU_CHECK, "speed")

Result = Literal["pass", "fail", "not-run", "bad-host"]


class Outcome(StrEnum):
    """What one check found."""

    PASS = "pass"  # noqa: S105 - no password
    FAIL = "fail"
    NOT_RUN = "not-run"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check's outcome: what was expected, what the image answered, in whole milliseconds."""

    name: str
    outcome: Outcome
    expected: dict[str, Any]
    got: Any
    detail: str
    ms: int

    def to_json(self) -> dict[str, Any]:
        """Return the check as the report holds it."""
        return {
            "name": self.name,
            "outcome": self.outcome.value,
            "expected": self.expected,
            "got": self.got,
            "detail": self.detail,
            "ms": self.ms,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Check:
        """Read a check.

        Raises:
            KeyError, TypeError, ValueError: it is none.
        """
        return cls(
            name=str(value["name"]),
            outcome=Outcome(value["outcome"]),
            expected=dict(value["expected"]),
            got=value["got"],
            detail=printable(str(value["detail"])),
            ms=int(value["ms"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A GPU of a host: `sm` is its compute capability such as `9.0`, memory in bytes."""

    name: str
    uuid: str
    sm: str
    memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """The machine a probe ran on; `driver` is NVIDIA's driver version, if there is one."""

    gpus: tuple[Gpu, ...]
    driver: str | None
    kernel: str
    architecture: str

    def to_json(self) -> dict[str, Any]:
        """Return the facts as the report holds them."""
        return {
            "gpus": [
                {"name": g.name, "uuid": g.uuid, "sm": g.sm, "memory": g.memory_bytes}
                for g in self.gpus
            ],
            "driver": self.driver,
            "kernel": self.kernel,
            "architecture": self.architecture,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> HostFacts:
        """Read a host's facts.

        Raises:
            KeyError, TypeError, ValueError: they are none.
        """
        return cls(
            gpus=tuple(
                Gpu(
                    name=str(gpu["name"]),
                    uuid=str(gpu["uuid"]),
                    sm=str(gpu["sm"]),
                    memory_bytes=int(gpu["memory"]),
                )
                for gpu in value["gpus"]
            ),
            driver=None if value["driver"] is None else str(value["driver"]),
            kernel=str(value["kernel"]),
            architecture=str(value["architecture"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is tested: an image, and the cell and recipe key it stands for, if it is ours."""

    image: Digest
    cell: str | None = None
    recipe_key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeRun:
    """What running a program in an image gave.

    `exit_code` is None when the deadline ended it; `failure` says why it could not even start, and
    is None when it did. `gpus` are the UUIDs of the GPUs it was given. Of what was printed only the
    ends are here; `flooded` says that there was more. Times are RFC 3339 UTC.
    """

    exit_code: int | None
    stdout: str
    stderr: str
    started: str
    ended: str
    failure: str | None = None
    gpus: tuple[str, ...] = ()
    flooded: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SmokeReport:
    """What is known of one image after one run of one probe.

    `given` are the UUIDs of the GPUs that the run was given; `bad_host` says why a failure on them
    is the host's and not the image's.
    """

    subject: Subject
    probe_key: str
    host: HostFacts
    checks: tuple[Check, ...]
    exit_code: int | None
    stderr_tail: str
    started: str
    ended: str
    given: tuple[str, ...] = ()
    bad_host: str = ""

    @property
    def contents(self) -> Result:
        """Whether the image holds what its label says: all checks that need no GPU."""
        return _result(check for check in self.checks if check.name not in GPU_CHECKS)

    @property
    def gpu(self) -> Result:
        """Whether the image computed the right numbers on a GPU."""
        found = _result(check for check in self.checks if check.name == GPU_CHECK)
        return "bad-host" if found == "fail" and self.bad_host else found

    @property
    def verdict(self) -> Result:
        """The worst of both: an image passes only where everything was run and passed."""
        found: set[Result] = {self.contents, self.gpu}
        order: tuple[Result, ...] = ("fail", "bad-host", "not-run", "pass")
        return next(result for result in order if result in found)

    @property
    def fault(self) -> str:
        """Why the probe itself cannot be trusted; empty if it can."""
        control = next((check for check in self.checks if check.name == CONTROL), None)
        return control.detail if control and "passed" in self.got(CONTROL) else ""

    @property
    def tested_gpu(self) -> Gpu | None:
        """The GPU that computed, as the driver named it inside the image; else the one given."""
        told = self.got(GPU_CHECK).get("gpu")
        uuid = told.get("uuid") if isinstance(told, dict) else None
        known = {gpu.uuid: gpu for gpu in self.host.gpus}
        named = (known[name] for name in (uuid, *self.given) if name in known)
        return next(named, self.host.gpus[0] if self.host.gpus else None)

    def got(self, check: str) -> dict[str, Any]:
        """Return what a check read out of the image; nothing if it did not."""
        found = next((item.got for item in self.checks if item.name == check), None)
        return found if isinstance(found, dict) else {}

    def blaming(self, host: str) -> SmokeReport:
        """Return the same report with the host found at fault."""
        return replace(self, bad_host=host)

    def to_json(self) -> dict[str, Any]:
        """Return the report as an evidence document."""
        return {
            "kind": KIND,
            "cell": self.subject.cell,
            "image": self.subject.image,
            "recipe": self.subject.recipe_key,
            "probe": self.probe_key,
            "host": self.host.to_json(),
            **({"given": list(self.given)} if self.given else {}),
            "checks": [check.to_json() for check in self.checks],
            "verdict": {"contents": self.contents, "gpu": self.gpu},
            "bad_host": self.bad_host,
            "exit": self.exit_code,
            "stderr": self.stderr_tail,
            "started": self.started,
            "ended": self.ended,
        }

    @property
    def data(self) -> bytes:
        """The bytes of the document: what is hashed and stored."""
        return canonical_json(self.to_json())

    @classmethod
    def parse(cls, data: bytes, name: str) -> SmokeReport:
        """Read a document that `to_json` made, on this machine or another.

        Raises:
            IntegrityError: it is none, or its verdict is not what its checks say.
        """
        try:
            value = json.loads(data)
            report = cls._from_json(value)
            same = canonical_json(value) == report.data
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise IntegrityError(f"{name}: no smoke report of ours ({error!r})") from error
        if not same:
            raise IntegrityError(f"{name}: the report does not say what its checks say")
        return report

    @classmethod
    def _from_json(cls, value: dict[str, Any]) -> SmokeReport:
        return cls(
            subject=Subject(
                image=Digest(value["image"]), cell=value["cell"], recipe_key=value["recipe"]
            ),
            probe_key=str(value["probe"]),
            host=HostFacts.from_json(value["host"]),
            checks=tuple(Check.from_json(check) for check in value["checks"]),
            exit_code=value["exit"],
            stderr_tail=str(value["stderr"]),
            started=str(value["started"]),
            ended=str(value["ended"]),
            given=tuple(str(uuid) for uuid in value.get("given", ())),
            bad_host=str(value["bad_host"]),
        )


def _result(checks: Iterable[Check]) -> Result:
    outcomes = {check.outcome for check in checks}
    if Outcome.FAIL in outcomes:
        return "fail"
    return "pass" if outcomes == {Outcome.PASS} else "not-run"


def printable(text: str) -> str:
    """Return text without control characters, for documents and terminals."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)
