"""From what a program printed to a report: nothing passes that was not reported as passed."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from curator.oci import canonical_json
from curator.smoke._values import GPU_CHECK, GPU_CHECKS, Check, Outcome, SmokeReport, printable

if TYPE_CHECKING:
    from curator.smoke._program import Probe
    from curator.smoke._values import HostFacts, ProbeRun, Subject

STDERR_TAIL = 4096


def judge(
    probe: Probe, run: ProbeRun, *, nonce: str, subject: Subject, host: HostFacts
) -> SmokeReport:
    """Return the report of a run; what the run did not report is a failure of its check."""
    # A report counts only from a program that came to its end: who prints another one and then
    # kills the harness does not.
    told = _told(run.stdout, nonce) if run.exit_code == 0 else {}
    checks = [_check(name, told.get(name), run) for name in probe.checks]
    if run.flooded:
        detail = "printed more than is kept: a program that floods its host is no good image"
        checks.append(_unreported("output", Outcome.FAIL, detail))
    return SmokeReport(
        subject=subject,
        probe_key=probe.key,
        host=host,
        given=run.gpus,
        checks=tuple(_on_a_given_gpu(check, run, host) for check in checks),
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
    if run.failure:
        return _unreported(name, Outcome.NOT_RUN, run.failure)
    if told is None:
        how = "the deadline" if run.exit_code is None else f"exit status {run.exit_code}"
        return _unreported(name, Outcome.FAIL, f"not reported: the probe ended with {how}")
    try:
        check = Check.from_json(told)
    except (KeyError, ValueError, TypeError) as error:
        return _unreported(name, Outcome.FAIL, f"not a report: {error!r}")
    if check.outcome is Outcome.NOT_RUN and (run.gpus or name not in GPU_CHECKS):
        return _unreported(name, Outcome.FAIL, f"not run, though it could be: {check.detail}")
    return check


def _unreported(name: str, outcome: Outcome, detail: str) -> Check:
    told = printable(detail)
    return Check(name=name, outcome=outcome, expected={}, got=None, detail=told, ms=0)


def _on_a_given_gpu(check: Check, run: ProbeRun, host: HostFacts) -> Check:
    """Refuse a pass that names another GPU or driver than the host has and the run was given."""
    if check.name != GPU_CHECK or check.outcome is not Outcome.PASS:
        return check
    told = check.got if isinstance(check.got, dict) else {}
    gpu = told.get("gpu")
    given = {gpu.uuid: gpu for gpu in host.gpus if gpu.uuid in run.gpus or not run.gpus}
    uuid = gpu.get("uuid") if isinstance(gpu, dict) else None
    known = given.get(uuid) if isinstance(uuid, str) else None
    if known is None:
        detail = f"computed on {gpu!r}, which is no GPU that this run was given"
    elif (gpu or {}).get("sm") != known.sm:
        detail = f"computed on a GPU of capability {(gpu or {}).get('sm')}, not {known.sm}"
    elif told.get("driver") != host.driver:
        detail = f"computed by driver {told.get('driver')!r}, not {host.driver!r}"
    else:
        return check
    return replace(check, outcome=Outcome.FAIL, detail=printable(detail[:500]))
