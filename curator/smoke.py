"""The test of an image: a program of text that runs inside it, and what its answers mean.

- A probe's key is the hash of the program as it runs, expectations included; the nonce that marks
  a run's report is no part of it.
- Three outcomes: `not-run` is neither pass nor fail, and opens no gate that asks for a pass.
- Whether a GPU was given is decided by the host. An image that was given one and does not see it
  fails; one that was given none cannot pass.
- Only the marked report counts. A check that did not report has failed, whatever was printed.

The nonce keeps an image's prints from being taken for the report. It does not protect against an
image made to deceive: code that runs beside the harness can read its memory.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from enum import StrEnum
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Literal

from curator.errors import Diagnostic, InputError
from curator.oci import Digest, canonical_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from curator.lockfile import Lock
    from curator.matrix import Cell, Tree

KIND = "dev.curator.smoke-report.v1"
MAX_PROGRAM_BYTES = 120 * 1024
STDERR_TAIL = 4096
GPU_CHECK = "cuda_tensor"
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}

Result = Literal["pass", "fail", "not-run"]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A cell's test program; `key` (64 hex digits) is its identity."""

    program: str
    checks: tuple[str, ...]
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeRun:
    """What running a program in an image gave.

    `exit_code` is None when the deadline ended it; `failure` says why it could not even start, and
    is None when it did. Times are RFC 3339 UTC.
    """

    exit_code: int | None
    stdout: str
    stderr: str
    started: str
    ended: str
    failure: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SmokeReport:
    """What is known of one image after one run of one probe."""

    cell: str
    image: Digest
    recipe_key: str
    probe_key: str
    host: HostFacts
    checks: tuple[Check, ...]
    exit_code: int | None
    stderr_tail: str
    started: str
    ended: str

    @property
    def contents(self) -> Result:
        """Whether the image holds what its label says: all checks that need no GPU."""
        return _result(check for check in self.checks if check.name != GPU_CHECK)

    @property
    def gpu(self) -> Result:
        """Whether the image computed the right numbers on a GPU."""
        return _result(check for check in self.checks if check.name == GPU_CHECK)

    def got(self, check: str) -> dict[str, Any]:
        """Return what a check read out of the image; nothing if it did not."""
        found = next((item.got for item in self.checks if item.name == check), None)
        return found if isinstance(found, dict) else {}

    def to_json(self) -> dict[str, Any]:
        """Return the report as an evidence document."""
        return {
            "kind": KIND,
            "cell": self.cell,
            "image": self.image,
            "recipe": self.recipe_key,
            "probe": self.probe_key,
            "host": self.host.to_json(),
            "checks": [check.to_json() for check in self.checks],
            "verdict": {"contents": self.contents, "gpu": self.gpu},
            "exit": self.exit_code,
            "stderr": self.stderr_tail,
            "started": self.started,
            "ended": self.ended,
        }


def _result(checks: Iterable[Check]) -> Result:
    outcomes = {check.outcome for check in checks}
    if Outcome.FAIL in outcomes:
        return "fail"
    return "pass" if outcomes == {Outcome.PASS} else "not-run"


class Probes:
    """A farm's probes, each with the harness they share."""

    def __init__(self, tree: Tree) -> None:
        self._harness = files("curator").joinpath("harness.py").read_text(encoding="utf-8")
        self._tree = tree
        self._checked: set[str] = set()

    def assemble(self, cell: Cell, lock: Lock) -> Probe:
        """Return a cell's probe: harness, the framework's checks, and what its label promises.

        Raises:
            InputError: the framework's probe is missing, no Python, or too long to travel.
        """
        file = f"dockerfiles/{cell.framework}/probe.py"
        text = self._text(file)
        expected = expectations(cell, lock)
        program = (
            f"{self._harness}\n{text}\nEXPECT.update({json.dumps(expected, sort_keys=True)})\n"
        )
        if len(program.encode()) > MAX_PROGRAM_BYTES:
            message = f"{len(program)} bytes with the harness, more than {MAX_PROGRAM_BYTES}"
            raise InputError(Diagnostic(code="probe", message=message, file=file))
        checks = ("python", "libraries", "framework", GPU_CHECK)
        key = hashlib.sha256(program.encode()).hexdigest()
        return Probe(program=program, checks=checks, key=key)

    def _text(self, file: str) -> str:
        """Return a probe's text, having found once that it is Python."""
        text = self._tree.get(file, "")
        if file not in self._checked:
            try:
                compile(text, file, "exec")
            except (SyntaxError, ValueError) as error:
                finding = Diagnostic(
                    code="probe",
                    message=f"no Python: {getattr(error, 'msg', error)}",
                    file=file,
                    line=getattr(error, "lineno", 1),
                    column=getattr(error, "offset", 1),
                )
                raise InputError(finding) from error
            self._checked.add(file)
        return text


def expectations(cell: Cell, lock: Lock) -> dict[str, dict[str, str]]:
    """Return what each check has to find in the image: its label and its lock, as data."""
    return {
        "python": {
            "python": cell.python,
            "machine": MACHINES.get(cell.platform.architecture, cell.platform.architecture),
            **{wheel.name: wheel.version for wheel in lock.wheels},
        },
        "framework": {"version": cell.version, "cuda": cell.cuda},
        GPU_CHECK: {"device": "cuda"},
    }


def run_program(probe: Probe, nonce: str, gpus: int) -> str:
    """Return the text of one run; the nonce marks its report."""
    return f"{probe.program}\nmain({nonce!r}, CHECKS, EXPECT, {gpus})\n"


def judge(  # noqa: PLR0913 - what a report is about, each by name
    probe: Probe,
    run: ProbeRun,
    *,
    nonce: str,
    cell: str,
    image: Digest,
    recipe_key: str,
    host: HostFacts,
) -> SmokeReport:
    """Return the report of a run; what the run did not report is a failure of its check."""
    told = _told(run.stdout, nonce)
    checks = tuple(_check(name, told.get(name), run) for name in probe.checks)
    return SmokeReport(
        cell=cell,
        image=image,
        recipe_key=recipe_key,
        probe_key=probe.key,
        host=host,
        checks=checks,
        exit_code=run.exit_code,
        stderr_tail=printable(run.stderr[-STDERR_TAIL:]),
        started=run.started,
        ended=run.ended,
    )


def _told(stdout: str, nonce: str) -> dict[str, dict[str, Any]]:
    """Return the marked report's checks by name; nothing unless there is exactly one report."""
    marked = [line for line in stdout.splitlines() if line.startswith(nonce + " ")]
    if len(marked) != 1:
        return {}
    try:
        checks = json.loads(marked[0].removeprefix(nonce + " "))["checks"]
        canonical_json(checks)
        return {str(check["name"]): check for check in checks}
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}


def _check(name: str, told: dict[str, Any] | None, run: ProbeRun) -> Check:
    if told is None:
        how = "the deadline" if run.exit_code is None else f"exit status {run.exit_code}"
        if name == GPU_CHECK and run.failure:
            return _unreported(name, Outcome.NOT_RUN, run.failure)
        return _unreported(name, Outcome.FAIL, f"not reported: the probe ended with {how}")
    try:
        return Check(
            name=name,
            outcome=Outcome(told["outcome"]),
            expected=dict(told["expected"]),
            got=told["got"],
            detail=printable(str(told["detail"])),
            ms=int(told["ms"]),
        )
    except (KeyError, ValueError, TypeError) as error:
        return _unreported(name, Outcome.FAIL, f"not a report: {error!r}")


def _unreported(name: str, outcome: Outcome, detail: str) -> Check:
    return Check(name=name, outcome=outcome, expected={}, got=None, detail=detail, ms=0)


def printable(text: str) -> str:
    """Return text without control characters, for documents and terminals."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)
