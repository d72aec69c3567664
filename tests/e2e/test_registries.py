"""Registries that are down, refuse, or are full: a clear word, and nothing half-published."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from curator.index import read_index
from curator.oci import Reference
from curator.provision import _processes
from curator.registry import HttpRegistry
from curator.store import DirectoryStore
from tests.e2e.conftest import CELLS, Farm
from tests.faults import Fault, FaultProxy, Request, answer, disk_full

if TYPE_CHECKING:
    from subprocess import CompletedProcess

ONE = CELLS[0]


def through(farm: Farm, proxy: FaultProxy) -> Farm:
    """Return the farm as it is behind a proxy."""
    registry = farm.registry.replace(farm.registry.split("/")[0], proxy.address)
    return replace(
        farm, registry=registry, environment={**farm.environment, "CURATOR_REGISTRY": registry}
    )


def assert_nothing_published(farm: Farm, result: CompletedProcess[str]) -> None:
    assert "Traceback" not in result.stderr
    assert read_index(DirectoryStore(farm.store)).entries == ()
    tags = HttpRegistry().tags(Reference.parse(f"{farm.registry}/candidate/tiny"))
    assert tags == ()


@pytest.mark.parametrize(
    ("fault", "code", "told"),
    [
        (answer(401), 1, "docker login"),
        (answer(403), 1, "docker login"),
        (answer(429, retry_after="1"), 75, "429"),
        (answer(500), 75, "500"),
    ],
    ids=["401", "403", "429", "500"],
)
def test_a_registry_that_refuses(farm: Farm, fault: Fault, code: int, told: str) -> None:
    with FaultProxy(farm.registry.split("/")[0], lambda _: fault) as proxy:
        result = through(farm, proxy).curator("run", ONE)
    assert result.returncode == code
    assert told in result.stdout
    assert_nothing_published(farm, result)


def test_a_registry_that_is_down(farm: Farm) -> None:
    address = f"127.0.0.1:{_processes.free_port()}"
    result = farm.curator("run", ONE, CURATOR_REGISTRY=f"{address}/t")
    assert result.returncode == 75
    assert f"no answer from {address}" in result.stdout
    assert_nothing_published(farm, result)


def test_a_full_disk_while_pushing(farm: Farm) -> None:
    def plan(request: Request) -> Fault | None:
        return disk_full() if request.method in {"POST", "PATCH", "PUT"} else None

    with FaultProxy(farm.registry.split("/")[0], plan) as proxy:
        result = through(farm, proxy).curator("run", ONE)
    assert result.returncode == 75
    assert "500" in result.stdout
    assert_nothing_published(farm, result)


def test_a_promotion_that_fails_is_finished_by_the_next_run(farm: Farm) -> None:
    def plan(request: Request) -> Fault | None:
        promotes = request.method == "PUT" and "/candidate/tiny/manifests/" in request.path
        return answer(503) if promotes else None

    with FaultProxy(farm.registry.split("/")[0], plan) as proxy:
        result = through(farm, proxy).curator("run", ONE)
    assert result.returncode == 75
    assert_nothing_published(farm, result)
    (cell,) = farm.json("run", ONE)["cells"]
    assert (cell["outcome"], cell["built"]) == ("published", False)
