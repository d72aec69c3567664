"""The engine port against builds that fail or are stopped: what is told, and what is left."""

from __future__ import annotations

import multiprocessing
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from curator.engine import BuildxEngine
from curator.errors import BuildError, CancelledError, TemporaryError
from curator.oci import sha256
from tests.indexes import Index, serving
from tests.workshop import (
    SMALL,
    Workshop,
    eventually,
    fresh,
    processes,
    recipe_of,
    running,
    secrets_for,
)

if TYPE_CHECKING:
    from pathlib import Path

    from curator.oci import Reference
    from curator.recipe import Recipe


def test_a_failing_step_is_told_by_its_last_lines(workshop: Workshop) -> None:
    error = workshop.failure(running("echo first && echo the reason >&2 && exit 7"))
    assert type(error) is BuildError
    lines = str(error).splitlines()
    assert str(workshop.log) in lines[0]
    assert any("the reason" in line for line in lines)
    assert any("exit code: 7" in line for line in lines)
    assert "the reason" in workshop.log.read_text()


def test_a_long_failure_is_told_briefly(workshop: Workshop) -> None:
    noise = "i=0; while [ $i -lt 3000 ]; do echo $i xxxxxxxxxxxxxxxxxxxxxxxx; i=$((i+1)); done"
    error = workshop.failure(running(f"{noise}; echo the end; exit 1"))
    assert "the end" in str(error)
    assert len(str(error)) < 4000
    assert "2999 x" in workshop.log.read_text()


def test_a_dockerfile_that_is_none_is_a_build_error(workshop: Workshop) -> None:
    error = workshop.failure(replace(running("true"), dockerfile="FROM base\nRUNN true\n"))
    assert type(error) is BuildError
    assert "RUNN" in str(error)


def test_a_wheel_of_another_hash_is_a_build_error(workshop: Workshop) -> None:
    recipe = recipe_of(SMALL)
    wrong = SMALL.locked().line.partition("sha256:")[0] + "sha256:" + "0" * 64
    context = tuple(
        (name, f"{wrong}\n" if name.startswith("layers/") else text)
        for name, text in recipe.context
    )
    error = workshop.failure(replace(recipe, context=context))
    assert type(error) is BuildError
    assert "hash" in str(error).lower()


def test_a_base_that_is_not_there_is_a_build_error(workshop: Workshop) -> None:
    absent = workshop.base.with_digest(sha256(b"no such image"))
    assert type(replace(workshop, base=absent).failure(running("true"))) is BuildError


def test_a_registry_that_does_not_answer_is_temporary(workshop: Workshop) -> None:
    down = replace(workshop.base, registry="127.0.0.1:9", digest=sha256(b"never pulled"))
    error = replace(workshop, base=down).failure(running("true"))
    assert type(error) is TemporaryError


@pytest.mark.parametrize("status", [429, 502])
def test_an_index_that_fails_is_temporary(workshop: Workshop, status: int) -> None:
    wheel = fresh()
    with serving(Index((wheel,), status=status)) as index:
        secrets = secrets_for(index.address, workshop.directory)
        error = replace(workshop, secrets=secrets).failure(recipe_of(wheel))
    assert type(error) is TemporaryError, str(error)


def test_an_index_that_does_not_answer_is_temporary(workshop: Workshop) -> None:
    secrets = secrets_for("http://127.0.0.1:9/simple", workshop.directory)
    error = replace(workshop, secrets=secrets).failure(recipe_of(fresh()))
    assert type(error) is TemporaryError, str(error)


def test_an_index_without_the_wheel_is_a_build_error(workshop: Workshop) -> None:
    error = workshop.failure(recipe_of(fresh()))
    assert type(error) is BuildError
    assert "curator-fresh" in str(error)


def test_an_engine_that_does_not_answer_is_temporary(workshop: Workshop) -> None:
    address = replace(workshop.engine.address, host="unix:///nonexistent/docker.sock")
    engine = BuildxEngine(address=address)
    assert type(replace(workshop, engine=engine).failure(running("true"))) is TemporaryError
    with pytest.raises(TemporaryError):
        engine.platforms()


def test_a_failed_build_leaves_only_its_log(workshop: Workshop) -> None:
    workshop.failure(running("exit 1"))
    left = {path.name for path in workshop.directory.iterdir()} - {"layout"}
    assert left == {"logs", "secrets"}


# Stopping


@pytest.fixture
def sleeping() -> tuple[Recipe, str]:
    """A recipe that sleeps for an hour, and what its process is called."""
    seconds = f"3600.{time.time_ns()}"
    return running(f"sleep {seconds}"), f"sleep {seconds}"


def nothing_left(workshop: Workshop, marker: str) -> bool:
    return eventually(lambda: not processes(marker) and not processes(str(workshop.directory)))


def test_a_build_ends_at_its_deadline(workshop: Workshop, sleeping: tuple[Recipe, str]) -> None:
    recipe, marker = sleeping
    start = time.monotonic()
    error = workshop.failure(recipe, timeout_s=10)
    assert time.monotonic() - start < 25
    assert type(error) is BuildError
    assert "10 s" in str(error)
    assert str(workshop.log) in str(error)
    assert nothing_left(workshop, marker)


def test_a_cancelled_build_leaves_nothing(workshop: Workshop, sleeping: tuple[Recipe, str]) -> None:
    recipe, marker = sleeping
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(workshop.failure, recipe)
        assert eventually(lambda: processes(marker), 60)
        workshop.cancelled.set()
        start = time.monotonic()
        assert type(future.result()) is CancelledError
    assert time.monotonic() - start < 15
    assert nothing_left(workshop, marker)
    assert not list(workshop.directory.glob("context.*"))


def test_a_build_that_is_cancelled_before_it_begins_ends_at_once(workshop: Workshop) -> None:
    workshop.cancelled.set()
    assert type(workshop.failure(running("sleep 100"))) is CancelledError


def test_a_killed_parent_leaves_nothing(workshop: Workshop, sleeping: tuple[Recipe, str]) -> None:
    recipe, marker = sleeping
    arguments = (workshop.engine, recipe, workshop.base, workshop.directory)
    parent = multiprocessing.get_context("spawn").Process(target=build_alone, args=arguments)
    parent.start()
    assert eventually(lambda: processes(marker), 60)
    parent.kill()
    parent.join()
    assert nothing_left(workshop, marker)


def build_alone(engine: BuildxEngine, recipe: Recipe, base: Reference, directory: Path) -> None:
    """Build in a process that is going to be killed."""
    engine.build(
        recipe,
        base=base,
        layout=directory / "layout",
        log=directory / "build.log",
        secrets={},
        timeout_s=300,
        cancelled=threading.Event(),
    )
