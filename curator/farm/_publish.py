"""From a report to an entry of the index, and what was recorded on another machine likewise."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from curator import policy
from curator.errors import IntegrityError, RefusedError, TemporaryError
from curator.farm._entry import completed, entry_of, failed_checks
from curator.farm._values import CellResult, Outcome
from curator.oci import sha256
from curator.publish import Change, Committed, Rejected, Target, publish

if TYPE_CHECKING:
    from curator.errors import CuratorError
    from curator.farm._values import Destination
    from curator.index import Entry
    from curator.matrix import Matrix
    from curator.oci import Reference
    from curator.plan import PlannedCell
    from curator.smoke import SmokeReport


def publish_cell(
    planned: PlannedCell,
    image: Reference,
    report: SmokeReport,
    matrix: Matrix,
    destination: Destination,
) -> CellResult:
    """Take an image through the gates and into the index, with its evidence.

    What no gate lets through goes into the index too, unpublished, with the reason.
    """
    now = destination.now()

    def complete(entry: Entry) -> Entry:
        return completed(entry, matrix, probe=planned.probe.key, now=now)

    entry = policy.admitted(
        entry_of(
            planned, image, report, sha256(report.data), matrix=matrix, destination=destination
        )
    )
    verdict = policy.gates(entry.tests)
    answer = publish(
        (Change(entry=entry, source=image, evidence=(report.data,), complete=complete),),
        target_of(destination, now),
        expect=destination.expect,
    )
    if isinstance(answer, Rejected):
        raise answer.failures[0].error if answer.failures else RefusedError(answer.reason)
    if answer.failures:
        raise answer.failures[0].error
    if answer.unfinished is not None:
        _tell(answer.unfinished)
    # What was committed may differ, for better or worse: tests on other hosts count as well.
    entry = answer.entries[0]
    refused = "" if entry.status.state != "unpublished" else entry.status.reason
    if verdict.channel is None:
        refused = failed_checks(report, verdict)
    return CellResult(
        cell=planned.cell.id,
        outcome=Outcome.REFUSED if refused else Outcome.PUBLISHED,
        cause=refused,
        reference=str(destination.place.repository(entry.repository).with_digest(entry.digest)),
        tags=entry.tags,
        channel=entry.channel,
        size_bytes=entry.size,
        generation=answer.gen,
        publish=answer.publish if isinstance(answer, Committed) else None,
    )


def _tell(unfinished: CuratorError) -> NoReturn:
    """Say what a publish could not do after its commit, and whether trying again may help."""
    if unfinished.retryable:
        raise TemporaryError(f"published, but its tags lag behind: {unfinished}") from unfinished
    raise RefusedError(
        f"published, but not all tags can be brought up: {unfinished} (`curator audit` says more)"
    ) from unfinished


def target_of(destination: Destination, now: str) -> Target:
    """Return where a run publishes, at a time."""
    return Target(
        store=destination.store,
        registry=destination.registry,
        place=destination.place,
        now=now,
        signer=destination.signer,
    )


def publish_recorded(
    planned: PlannedCell,
    report: SmokeReport,
    matrix: Matrix,
    destination: Destination,
) -> CellResult:
    """Publish a cell's image with a report that another machine made of it.

    The report counts for exactly the bytes, recipe and probe that it names: those have to be what
    the farm has now, and the image has to be in the registry.

    Raises:
        RefusedError: the report is of another image, recipe or probe, or of a probe at fault.
        IntegrityError: the registry does not have the image.
    """
    cell, subject = planned.cell.id, report.subject
    if report.fault:
        raise RefusedError(f"{cell}: the report's probe is at fault: {report.fault}")
    if subject.recipe_key != planned.recipe.key:
        raise RefusedError(f"{cell}: the report is of another recipe than the farm's: build first")
    if report.probe_key != planned.probe.key:
        raise RefusedError(f"{cell}: the report is of another probe than the farm's: test again")
    image = _where(planned, report, destination)
    return publish_cell(planned, image, report, matrix, destination)


def _where(planned: PlannedCell, report: SmokeReport, destination: Destination) -> Reference:
    """Return where the registry has the reported image: published before, or in staging."""
    digest, framework = report.subject.image, planned.cell.framework
    known = planned.previous
    published = known.repository if known and known.digest == digest else None
    for repository in filter(None, (published, f"staging/{framework}")):
        reference = destination.place.repository(repository).with_digest(digest)
        if destination.registry.resolve(reference):
            return reference
    raise IntegrityError(f"{planned.cell.id}: {destination.place} does not have {digest}")
