"""What a test is about and what came of it, as values that can be written as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from curator.errors import InputError, IntegrityError
from curator.oci import Digest, canonical_json, parse_digest

if TYPE_CHECKING:
    from collections.abc import Iterable

KIND = "dev.curator.smoke-report.v1"
CONTROL = "control"
GPU_CHECK = "cuda_tensor"
# `speed` is recorded and opens or closes nothing.
GPU_CHECKS = (GPU_CHECK, "speed")

# Facts are lists and objects of text and numbers; what is nested without end cannot be written.
MAX_LEVELS = 32

# What reading a value that is no report raises.
NO_REPORT = (ValueError, KeyError, TypeError, AttributeError, RecursionError, InputError)

Result = Literal["pass", "fail", "not-run", "bad-host"]
T = TypeVar("T")


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
            name=_text(value["name"]),
            outcome=Outcome(value["outcome"]),
            expected=_shallow(_typed(value["expected"], dict)),
            got=_shallow(value["got"]),
            detail=_text(value["detail"]),
            ms=_typed(value["ms"], int),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A GPU of a host: `sm` is its compute capability such as `9.0`, memory in bytes.

    Memory is 0 where the driver does not tell it, as of a GPU that shares the host's.
    """

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
                    name=_text(gpu["name"]),
                    uuid=_text(gpu["uuid"]),
                    sm=_text(gpu["sm"]),
                    memory_bytes=_typed(gpu["memory"], int),
                )
                for gpu in value["gpus"]
            ),
            driver=None if value["driver"] is None else _text(value["driver"]),
            kernel=_text(value["kernel"]),
            architecture=_text(value["architecture"]),
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
        names = (uuid, *self.given) if isinstance(uuid, str) else self.given
        named = (known[name] for name in names if name in known)
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
        """Read the bytes of a document (`data`), made on this machine or another.

        Raises:
            IntegrityError: they are none, or its verdict is not what its checks say.
        """
        try:
            value = json.loads(data)
            written = canonical_json(value)
            report = cls._from_json(value)
        except NO_REPORT as error:
            raise IntegrityError(f"{name}: no smoke report of ours ({error!r})") from error
        if report.data != written:
            raise IntegrityError(f"{name}: the report does not say what its checks say")
        if written != data:
            raise IntegrityError(f"{name}: not the bytes that were recorded: it was written anew")
        return report

    @classmethod
    def _from_json(cls, value: dict[str, Any]) -> SmokeReport:
        cell, recipe, code = value["cell"], value["recipe"], value["exit"]
        checks = tuple(Check.from_json(check) for check in value["checks"])
        if len({check.name for check in checks}) < len(checks):
            raise ValueError("a check is told twice")
        return cls(
            subject=Subject(
                image=parse_digest(_text(value["image"])),
                cell=None if cell is None else _text(cell),
                recipe_key=None if recipe is None else _text(recipe),
            ),
            probe_key=_text(value["probe"]),
            host=HostFacts.from_json(value["host"]),
            checks=checks,
            exit_code=None if code is None else _typed(code, int),
            stderr_tail=_text(value["stderr"]),
            started=_text(value["started"]),
            ended=_text(value["ended"]),
            given=tuple(_text(uuid) for uuid in value.get("given", ())),
            bad_host=_text(value["bad_host"]),
        )


def _result(checks: Iterable[Check]) -> Result:
    outcomes = {check.outcome for check in checks}
    if Outcome.FAIL in outcomes:
        return "fail"
    return "pass" if outcomes == {Outcome.PASS} else "not-run"


def _typed(value: object, kind: type[T]) -> T:
    """Return a value that is of this type; JSON's true is no number."""
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{type(value).__name__} in place of {kind.__name__}")
    return value


def _text(value: object) -> str:
    return printable(_typed(value, str))


def _shallow(value: T, levels: int = MAX_LEVELS) -> T:
    """Return a JSON value that can be written again wherever it is put."""
    if not levels:
        raise ValueError("nested too deep")
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for item in items:
        _shallow(item, levels - 1)
    return value


def printable(text: str) -> str:
    """Return text without control characters, for documents and terminals."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)
