"""The shapes of documents that are written by other parts, for the published schemas alone."""

from __future__ import annotations

from typing import Any, Literal

from curator.index._documents import LaterEntry  # noqa: TC001 - pydantic reads it
from curator.index._model import SPEC, Entry, Key, Model, Number, Outcome, Sha256, Size, Time


class ReportGpu(Model):
    """A GPU as its driver tells it; `memory` in bytes."""

    name: str
    uuid: str
    sm: str
    memory: Size


class ReportHost(Model):
    """The machine that a test ran on."""

    gpus: tuple[ReportGpu, ...]
    driver: str | None
    kernel: str
    architecture: str


class ReportCheck(Model):
    """One question and its answer; `ms` is how long it took, in milliseconds."""

    name: str
    outcome: Literal["pass", "fail", "not-run"]
    expected: dict[str, Any]
    got: Any
    detail: str
    ms: Size


class ReportVerdict(Model):
    """What the checks of each half come to."""

    contents: Outcome
    gpu: Outcome


class Report(Model):
    """A smoke report: what one test of one image on one machine found. Kept as evidence."""

    kind: Literal["dev.curator.smoke-report.v1"]
    cell: str | None
    image: Sha256
    recipe: str | None
    probe: Key
    host: ReportHost
    given: tuple[str, ...] = ()
    checks: tuple[ReportCheck, ...]
    verdict: ReportVerdict
    bad_host: str
    exit: int | None
    stderr: str
    started: Time
    ended: Time


class FrameworkFile(Model):
    """The entries and moving tags of one framework; None where they are too many for one file."""

    spec: Literal[1] = SPEC
    store: str
    registry: str
    framework: str
    tags: dict[str, Sha256] | None
    entries: tuple[Entry | LaterEntry, ...] | None


class WholeFile(Model):
    """Everything in one file; None where it is too much for one."""

    spec: Literal[1] = SPEC
    store: str
    registry: str
    generation: Number
    sha256: Sha256
    at: Time
    tags: dict[str, Sha256] | None
    entries: tuple[Entry | LaterEntry, ...] | None
