"""What the index is told of an image: facts out of its bytes, and what its test found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from curator.index import Driver, Entry, Stack, Status, SuiteResult, entry_id
from curator.plan import lock_digest

if TYPE_CHECKING:
    from curator.farm._values import Ports
    from curator.matrix import Matrix
    from curator.oci import Digest, Reference
    from curator.plan import PlannedCell
    from curator.policy import Verdict
    from curator.smoke import Check, SmokeReport


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
    return ", ".join(f"{name} is {check.got.get(name)}, not {want}" for name, want in wrong.items())


def entry_of(  # noqa: PLR0913 - what an entry is made from
    planned: PlannedCell,
    image: Reference,
    report: SmokeReport,
    evidence: Digest,
    *,
    matrix: Matrix,
    ports: Ports,
) -> Entry:
    """Return what the index will say of an image: facts out of its bytes, before any gate."""
    cell = planned.cell
    top = ports.registry.manifest(image)
    inner = image.with_digest(top.platform_digest(cell.platform))
    manifest = ports.registry.manifest(inner)
    cuda = matrix.cuda[cell.cuda]
    framework = report.got("framework")
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
            cudnn=framework.get("cudnn"),
            nccl=framework.get("nccl"),
            glibc=report.got("python").get("glibc"),
        ),
        driver=Driver(min=cuda.driver_floor, rule=cuda.source),
        tests=_tests(report, evidence),
        base=f"{planned.recipe.base}@{planned.recipe.base_key}",
        recipe=planned.recipe.key,
        lock=lock_digest(matrix, cell),
        created=report.started,
        status=Status(state="unpublished", reason="not judged yet"),
    )


def _tests(report: SmokeReport, evidence: Digest) -> tuple[SuiteResult, ...]:
    """Return the report as the index lists it: one suite for the contents, one for the GPU."""
    gpu = report.host.gpus[0] if report.host.gpus else None
    host = {"gpu": gpu.name, "sm": gpu.sm, "driver": report.host.driver} if gpu else {}
    suites = (("contents", report.contents), ("gpu", report.gpu))
    return tuple(
        SuiteResult(
            suite=suite,
            verdict=verdict,
            evidence=evidence,
            at=report.ended,
            probe=report.probe_key,
            **host,
        )
        for suite, verdict in suites
    )
