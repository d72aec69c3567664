"""The run: each planned cell goes through build, smoke and publish, several at once.

- A cell's failure is a `CellResult`; an exception out of `run` is the farm's own.
- Each step asks first whether it was done: a staging tag under the recipe key means built, an
  entry with the probe key means tested, so a run that was killed is finished by the next one.
- Each cell is published as soon as it is tested: what is done stays done.
- Nothing here waits without looking at `cancelled`, and nothing is left running behind it.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from curator.errors import (
    CancelledError,
    CuratorError,
    IntegrityError,
    ProbeFaultError,
    RefusedError,
    TemporaryError,
)
from curator.farm._bases import BaseMovedError, directory, ensure_base, sweep
from curator.farm._publish import publish_cell, publish_recorded, target_of
from curator.farm._smoke import remote_host, smoke_cell, tested
from curator.farm._values import CellResult, Destination, Event, Outcome, Ports, failed
from curator.index import read_tip
from curator.plan import Action
from curator.publish import recover, require_writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from curator.matrix import Matrix
    from curator.oci import Digest, Reference
    from curator.plan import Plan, PlannedCell
    from curator.settings import Place

__all__ = [
    "BaseMovedError",
    "CellResult",
    "Destination",
    "Event",
    "Outcome",
    "Ports",
    "ensure_base",
    "failed",
    "publish_recorded",
    "remote_host",
    "run",
    "staging_reference",
    "sweep",
    "target_of",
    "tested",
]

log = logging.getLogger(__name__)

RETRY_DELAYS_S = (2.0, 10.0)


@dataclass(slots=True)
class _Run:
    """What the threads of one run share."""

    matrix: Matrix
    ports: Ports
    observe: Callable[[Event], None]
    cancelled: threading.Event
    base_locks: dict[str, threading.Lock] = field(default_factory=dict)
    guard: threading.Lock = field(default_factory=threading.Lock)
    publishing: threading.Lock = field(default_factory=threading.Lock)

    def base_lock(self, name: str) -> threading.Lock:
        with self.guard:
            return self.base_locks.setdefault(name, threading.Lock())


def run(  # noqa: PLR0913 - the run's inputs, each by name
    plan: Plan,
    matrix: Matrix,
    ports: Ports,
    *,
    jobs: int,
    fail_fast: bool,
    cancelled: threading.Event,
    observe: Callable[[Event], None],
) -> tuple[CellResult, ...]:
    """Do a plan's work, `jobs` cells at once, and return each cell's result in the plan's order.

    Raises:
        CuratorError: nothing could be published, so no cell was begun.
    """
    _recover(ports)
    shared = _Run(matrix=matrix, ports=ports, observe=observe, cancelled=cancelled)
    results: dict[str, CellResult] = {}
    with ThreadPoolExecutor(max_workers=jobs, thread_name_prefix="cell") as pool:
        pending: set[Future[CellResult]] = {
            pool.submit(_cell, planned, shared) for planned in plan.work
        }
        while pending:
            # A bounded wait lets the main thread take signals.
            done, pending = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
            for future in done:
                result = future.result()
                results[result.cell] = result
                if fail_fast and result.outcome in {Outcome.FAILED, Outcome.REFUSED}:
                    cancelled.set()
    return tuple(results[planned.cell.id] for planned in plan.work)


def _recover(ports: Ports) -> None:
    """Finish what killed publishers left; a tag that never can be keeps no cell from its work.

    Raises:
        MixedError: the store's configuration is lost.
        RefusedError: the index is signed, and the keys are not here: nothing could be published.
    """
    target = target_of(ports, ports.now())
    require_writer(target, read_tip(ports.store))
    try:
        recover(target)
    except RefusedError as error:
        log.warning("%s (`curator audit` says more)", error)


def _cell(planned: PlannedCell, shared: _Run) -> CellResult:
    """Take one cell all the way; whatever goes wrong with it is in the result."""
    cell = planned.cell.id
    log_path = shared.ports.logs / f"{cell}.log"
    clock = _Stages(cell=cell, observe=shared.observe, cancelled=shared.cancelled)
    try:
        result = _steps(planned, shared, clock, log_path)
    except CancelledError:
        result = CellResult(cell=cell, outcome=Outcome.CANCELLED, cause="stopped before its end")
    except ProbeFaultError as error:
        # What such a probe says of the other cells is worth as little.
        shared.cancelled.set()
        result = CellResult(cell=cell, outcome=Outcome.FAILED, cause=str(error))
    except CuratorError as error:
        result = failed(cell, error)
    except Exception as error:  # a fault of ours must not hide the other cells' results
        log.exception("cell %s", cell)
        result = CellResult(cell=cell, outcome=Outcome.FAILED, cause=f"internal: {error!r}")
    shared.observe(Event(cell=cell, stage=result.outcome.value, detail=result.cause))
    found = log_path if log_path.exists() else None
    return replace(result, log=found, stages_ms=clock.spent_ms)


@dataclass(slots=True)
class _Stages:
    """Announces and times the stages of one cell, and stops between them when asked to."""

    cell: str
    observe: Callable[[Event], None]
    cancelled: threading.Event
    spent_ms: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str, detail: str = "") -> Iterator[None]:
        if self.cancelled.is_set():
            raise CancelledError("stopped before its end")
        self.observe(Event(cell=self.cell, stage=name, detail=detail))
        start = time.monotonic()
        try:
            yield
        finally:
            self.spent_ms[name] = round((time.monotonic() - start) * 1000)


def _steps(planned: PlannedCell, shared: _Run, clock: _Stages, log_path: Path) -> CellResult:
    built = False
    staged = _staged(planned, shared.ports)
    if staged is None:
        staged = _build(planned, shared, clock, log_path)
        built = True
    with clock.stage("smoke", staged.digest or ""):
        report = smoke_cell(planned, staged, shared.matrix, shared.ports)
    if shared.cancelled.is_set():
        raise CancelledError("stopped before its end")
    with clock.stage("publish"), shared.publishing:
        result = publish_cell(planned, staged, report, shared.matrix, shared.ports)
    return replace(result, built=built)


def _staged(planned: PlannedCell, ports: Ports) -> Reference | None:
    """Return the image of exactly this recipe, if there is one: published before, or staged."""
    entry = planned.previous
    if planned.action is Action.SMOKE and entry is not None:
        published = ports.place.repository(entry.repository).with_digest(entry.digest)
        if ports.registry.resolve(published):
            return published
    target = staging_reference(planned, ports.place)
    found = ports.registry.resolve(target)
    return target.with_digest(found.digest) if found else None


def staging_reference(planned: PlannedCell, place: Place) -> Reference:
    """Return the name under which a recipe's image waits for its test: the recipe's key."""
    recipe = planned.recipe
    return place.repository(f"staging/{recipe.framework}").with_tag(recipe.key)


def _build(planned: PlannedCell, shared: _Run, clock: _Stages, log_path: Path) -> Reference:
    ports, recipe = shared.ports, planned.recipe
    base = _base(planned, shared, clock)
    target = staging_reference(planned, ports.place)
    wheels = shared.matrix.locks[planned.cell.id].wheels
    size = sum(wheel.size_bytes for wheel in wheels)
    with directory(ports.work, planned.cell.id, wheels_bytes=size) as folder:
        layout = folder / "layout"

        def attempt() -> Digest:
            shutil.rmtree(layout, ignore_errors=True)
            return ports.engine.build(
                recipe,
                base=base,
                layout=layout,
                log=log_path,
                secrets=ports.secrets,
                timeout_s=shared.matrix.farm.build_timeout_s,
                cancelled=shared.cancelled,
            )

        with clock.stage("build"):
            digest = _with_retries(attempt, shared.cancelled)
        with clock.stage("push", str(target)):
            pushed = ports.registry.push(layout, target)
    if pushed != digest:
        raise IntegrityError(f"{target}: built {digest}, but the registry holds {pushed}")
    return target.with_digest(pushed)


def _with_retries(attempt: Callable[[], Digest], cancelled: threading.Event) -> Digest:
    """Call again what failed for a passing reason, a bounded number of times."""
    for delay_s in RETRY_DELAYS_S:
        try:
            return attempt()
        except TemporaryError as error:
            log.warning("trying again in %s s: %s", delay_s, error)
            if cancelled.wait(delay_s):
                raise CancelledError("stopped") from error
    return attempt()


def _base(planned: PlannedCell, shared: _Run, clock: _Stages) -> Reference:
    """Return the base's image, making it first if the registry has none."""
    name = planned.recipe.base
    platform = planned.recipe.platform
    with shared.base_lock(f"{name}/{platform}"), clock.stage("base", name):
        return ensure_base(
            shared.matrix.bases[name],
            platform,
            shared.matrix.base_locks[name, str(platform)],
            shared.ports,
        )
