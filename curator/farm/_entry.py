"""What the index is told of an image: facts out of its bytes, and what its test found."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from curator.compat import is_checked, numbers
from curator.coverage import coverage, image_of
from curator.facts import facts
from curator.index import Coverage, Driver, Entry, Sm, SmGap, Stack, Status, SuiteResult, entry_id
from curator.oci import canonical_json
from curator.plan import lock_digest
from curator.smoke import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from curator.farm._values import Destination
    from curator.matrix import Matrix
    from curator.oci import Digest, Reference
    from curator.plan import PlannedCell
    from curator.policy import Verdict
    from curator.smoke import Check, SmokeReport


# What products of matrices and every handle of cuDNN load.
_NEEDED: Final = re.compile(r"libcu(blas|dnn_(cnn|ops))[A-Za-z0-9._+-]{0,80}")
_RELEASE: Final = re.compile(r"[0-9]{1,4}(\.[0-9]{1,4}){1,3}")


def failed_checks(report: SmokeReport, verdict: Verdict) -> str:
    failed = [check for check in report.checks if check.outcome == "fail"]
    told = "; ".join(
        f"{check.name}: {check.detail} {_difference(check)}".strip() for check in failed
    )
    return told or "; ".join(verdict.reasons)


def _difference(check: Check) -> str:
    """Return what was expected and found, where an image holds other things than its label says."""
    if not isinstance(check.got, dict):
        return ""
    wrong = {name: want for name, want in check.expected.items() if check.got.get(name) != want}
    told = ", ".join(f"{name} is {check.got.get(name)}, not {want}" for name, want in wrong.items())
    return printable(told)


def entry_of(  # noqa: PLR0913 - what an entry is made from
    planned: PlannedCell,
    image: Reference,
    report: SmokeReport,
    evidence: Digest,
    *,
    matrix: Matrix,
    destination: Destination,
) -> Entry:
    """Return what the index will say of an image: facts out of its bytes, before any gate."""
    cell = planned.cell
    top = destination.registry.manifest(image)
    inner = image.with_digest(top.platform_digest(cell.platform))
    manifest = destination.registry.manifest(inner)
    cuda = matrix.cuda[cell.cuda]
    read = {**report.got("libraries"), **report.got("framework")}
    return Entry(
        id=entry_id(cell.id, planned.recipe.key),
        cell=cell.id,
        digest=top.digest,
        platform_digest=manifest.digest,
        repository=f"staging/{cell.framework}",
        platforms=(str(cell.platform),),
        size=sum(blob.size for blob in manifest.blobs),
        stack=Stack(
            framework=cell.framework,
            version=cell.version,
            cuda=cell.cuda,
            python=cell.python,
            cudnn=read.get("cudnn"),
            nccl=read.get("nccl"),
            glibc=report.got("python").get("glibc"),
            built=built_of(report),
        ),
        sm=_sm(report),
        requires=requirements(destination.registry.blob(inner, manifest.blobs[0])),
        forward=forward_of(report, cell.cuda),
        driver=Driver(min=cuda.driver_floor, rule=cuda.source),
        tests=_tests(report, evidence),
        base=f"{planned.recipe.base}@{planned.recipe.base_key}",
        recipe=planned.recipe.key,
        lock=lock_digest(matrix, cell),
        created=report.started,
        status=Status(state="unpublished", reason="not judged yet"),
    )


def requirements(config: bytes) -> dict[str, str]:
    """Return the variables of an image's configuration that the container runtime checks."""
    settings = json.loads(config).get("config") or {}
    variables = (text.partition("=") for text in settings.get("Env") or ())
    return {name: value for name, _, value in variables if is_checked(name)}


def built_of(report: SmokeReport) -> str | None:
    """Return the CUDA release that compiled the framework; None where it does not tell one."""
    told = str(report.got("framework").get("built", ""))
    return told if _RELEASE.fullmatch(told) else None


def forward_of(report: SmokeReport, cuda: str) -> str | None:
    """Return the CUDA release of a forward compatibility package, by the driver that it brings.

    One that is newer than the facts is of the image's own release: so NVIDIA makes its images.
    """
    version = str(report.got("libraries").get("forward", ""))
    if not version:
        return None
    known = facts().branches.get(int(version.partition(".")[0]))
    return known.cuda if known else cuda


def completed(entry: Entry, matrix: Matrix, *, probe: str, now: str) -> Entry:
    """Return an entry with what follows from all its tests: coverage, and verified drivers."""
    passed = (test.driver for test in entry.tests if (test.suite, test.verdict) == ("gpu", "pass"))
    drivers = sorted({driver for driver in passed if driver}, key=numbers)
    age = matrix.farm.evidence_days
    found = coverage(image_of(entry, probe), facts().gpus, now=now, max_age_days=age)
    return entry.model_copy(
        update={
            "driver": entry.driver.model_copy(update={"verified_on": tuple(drivers)}),
            "coverage": Coverage.model_validate_json(canonical_json(found.to_json())),
        }
    )


def _sm(report: SmokeReport) -> Sm | None:
    """Return the kernels that were read out of the framework's binaries.

    A framework without any compiles its kernels when they are used: then what its compiler can.
    """
    told = report.got("kernels")
    cubin, ptx = told.get("cubin", ()), told.get("ptx", ())
    if cubin or ptx:
        source = "fatbinaries of the framework's libraries"
        return Sm(cubin=tuple(cubin), ptx=tuple(ptx), source=source, gaps=_gaps(told) or None)
    if compiles := told.get("compiles", ()):
        source = f"targets of {told.get('jit')} in the image, which compiles kernels when used"
        return Sm(cubin=tuple(compiles), source=source)
    return None


def _gaps(told: Mapping[str, Any]) -> tuple[SmGap, ...]:
    """Return the libraries of a probe's gaps that a framework cannot do without.

    Others are for some of its functions alone, such as sparse products or many GPUs: they have code
    for fewer GPUs by design. Of several files with the same targets the first stands for all.
    """
    missing = {file for files in told.get("gaps", {}).values() for file in files}
    found: dict[tuple[tuple[str, ...], tuple[str, ...]], str] = {}
    for path in sorted(missing & told.get("libraries", {}).keys()):
        file, targets = path.rpartition("/")[2], told["libraries"][path]
        if _NEEDED.fullmatch(file):
            found.setdefault((tuple(targets["cubin"]), tuple(targets["ptx"])), file)
    return tuple(SmGap(file=file, cubin=cubin, ptx=ptx) for (cubin, ptx), file in found.items())


def _tests(report: SmokeReport, evidence: Digest) -> tuple[SuiteResult, ...]:
    """Return the report as the index lists it: one suite for the contents, one for the GPU."""
    gpu = report.tested_gpu
    return tuple(
        SuiteResult(
            suite=suite,
            verdict=verdict,
            evidence=evidence,
            at=report.ended,
            probe=report.probe_key,
            gpu=gpu.name if gpu else None,
            sm=gpu.sm if gpu else None,
            driver=report.host.driver,
            speed=_speed(report) if suite == "gpu" and verdict == "pass" else None,
        )
        for suite, verdict in (("contents", report.contents), ("gpu", report.gpu))
    )


def _speed(report: SmokeReport) -> dict[str, int] | None:
    """Return the measured rates; nothing where they were not measured."""
    told = report.got("speed").items()
    rates = {name: rate for name, rate in told if name.endswith(("_gflops", "_mb_s"))}
    return rates or None
