"""The test of one image on this host, and who is to blame where it fails."""

from __future__ import annotations

import secrets as randomness
from typing import TYPE_CHECKING, Any

from curator.compat import numbers
from curator.errors import ProbeFaultError, TemporaryError
from curator.farm._bases import ensure_base
from curator.smoke import GPU_CHECK, HostFacts, Probes, Subject, judge, run_program

if TYPE_CHECKING:
    from collections.abc import Callable

    from curator.farm._values import Ports
    from curator.matrix import Matrix
    from curator.oci import Reference
    from curator.plan import PlannedCell
    from curator.ports import Runner
    from curator.smoke import Probe, SmokeReport

HOST_TIMEOUT_S = 120

KnownGood = tuple["Probe", "Reference"]


def smoke_cell(planned: PlannedCell, image: Reference, matrix: Matrix, ports: Ports) -> SmokeReport:
    """Test a cell's image by its digest, on a GPU if this host has one that can run it.

    Raises:
        ProbeFaultError: the probe passes with every GPU hidden.
        TemporaryError: the image could not be pulled or started.
    """

    def known_good() -> KnownGood:
        """Return the base and the driver's own probe: an image with nothing in it to be wrong."""
        name, platform = planned.recipe.base, planned.recipe.platform
        lock = matrix.base_locks[name, str(platform)]
        return Probes({}).bare(), ensure_base(matrix.bases[name], platform, lock, ports)

    assert image.digest is not None  # noqa: S101 - images are tested by digest
    gpus, no_gpu = _suitable(planned, matrix, ports.host)
    report = tested(
        planned.probe,
        image,
        Subject(image=image.digest, cell=planned.cell.id, recipe_key=planned.recipe.key),
        runner=ports.runner.on(gpus),
        host=ports.host,
        timeout_s=matrix.farm.smoke_timeout_s,
        no_gpu=no_gpu,
        known_good=known_good,
    )
    if report.contents == "not-run":
        raise TemporaryError(f"the probe could not start: {report.checks[0].detail}")
    return report


def _suitable(planned: PlannedCell, matrix: Matrix, host: HostFacts) -> tuple[tuple[str, ...], str]:
    """Return the GPUs that say something about an image; if there are none, why."""
    if not host.gpus:
        return (), "this host has no GPU"
    cell, floor = planned.cell, matrix.cuda[planned.cell.cuda].driver_floor
    if host.driver and numbers(host.driver) < numbers(floor):
        return (), f"driver {host.driver} is older than {floor}, which CUDA {cell.cuda} needs"
    lowest = numbers(cell.sm_min or "0")
    found = tuple(gpu.uuid for gpu in host.gpus if numbers(gpu.sm) >= lowest)
    if not found:
        names = ", ".join(sorted({f"{gpu.name} ({gpu.sm})" for gpu in host.gpus}))
        return (), f"the image has kernels from {cell.sm_min} on, this host has {names}"
    return found, ""


def tested(  # noqa: PLR0913 - what a test is made of, each by name
    probe: Probe,
    image: Reference,
    subject: Subject,
    *,
    runner: Runner,
    host: HostFacts,
    timeout_s: int,
    no_gpu: str,
    known_good: Callable[[], KnownGood | None],
) -> SmokeReport:
    """Run a probe in an image; where the GPU check fails, ask a known-good image before blaming.

    Raises:
        ProbeFaultError: the probe passes with every GPU hidden.
        TemporaryError: the GPU check fails, and the known-good image could not be asked.
    """
    report = _once(probe, image, subject, runner, host, timeout_s, no_gpu)
    if report.fault:
        raise ProbeFaultError(f"{image}: {report.fault}")
    if report.gpu != "fail" or (good := known_good()) is None:
        return report
    other, reference = good
    assert reference.digest is not None  # noqa: S101 - a known-good image has a digest
    same = runner.on(report.given) if report.given else runner
    control = _once(other, reference, Subject(image=reference.digest), same, host, timeout_s, "")
    if control.gpu == "pass":
        return report
    detail = next(check.detail for check in control.checks if check.name == GPU_CHECK)
    if control.gpu == "not-run":
        raise TemporaryError(f"{image} fails, and {reference} could not be asked: {detail}")
    return report.blaming(f"{reference} fails here as well: {detail}")


def _once(  # noqa: PLR0913, PLR0917 - as `tested`
    probe: Probe,
    image: Reference,
    subject: Subject,
    runner: Runner,
    host: HostFacts,
    timeout_s: int,
    no_gpu: str,
) -> SmokeReport:
    nonce = randomness.token_hex(16)
    program = run_program(probe, nonce, no_gpu=no_gpu)
    result = runner.run(image, program, gpus=0 if no_gpu else 1, timeout_s=timeout_s)
    return judge(probe, result, nonce=nonce, subject=subject, host=host)


def remote_host(runner: Runner, image: Reference) -> HostFacts:
    """Return the facts of the host behind a runner: its driver is asked inside a container there.

    Raises:
        TemporaryError: the image could not be started there at all.
    """
    assert image.digest is not None  # noqa: S101 - images are run by digest
    probe, subject, nonce = Probes({}).host(), Subject(image=image.digest), randomness.token_hex(16)
    nobody = HostFacts(gpus=(), driver=None, kernel="", architecture="")
    told: dict[str, Any] = {}
    why = ""
    for gpus in (1, 0):
        run = runner.run(image, run_program(probe, nonce), gpus=gpus, timeout_s=HOST_TIMEOUT_S)
        why = why or run.failure or ""
        told = judge(probe, run, nonce=nonce, subject=subject, host=nobody).got("host")
        if told:
            break
    if not told:
        raise TemporaryError(f"the host behind {image} does not tell what it is: {why}")
    return HostFacts.from_json(told)
