"""The docker runner on a real engine: by digest, bounded, and leaving nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from curator.registry import HttpRegistry
from curator.runner import DockerRunner

if TYPE_CHECKING:
    from pathlib import Path

    from curator.oci import Reference
    from curator.ports import EngineAddress
    from curator.settings import Place


@pytest.fixture
def image(place: Place, base_layout: Path) -> Reference:
    """The base by its digest: it has python3."""
    target = place.repository("base").with_tag("one")
    return target.with_digest(HttpRegistry().push(base_layout, target))


@pytest.fixture
def runner(engine_address: EngineAddress) -> DockerRunner:
    return DockerRunner(engine_address)


def listed(address: EngineAddress, *arguments: str) -> list[str]:
    command = [*address.command, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def containers(address: EngineAddress, owner: int | None = None) -> list[str]:
    """The containers of a process: of this one, unless another is named."""
    label = f"label=dev.curator.owner={owner or os.getpid()}"
    return listed(address, "ps", "--all", "--quiet", "--filter", label)


def test_streams_and_status_come_back_and_nothing_stays(
    runner: DockerRunner, image: Reference, engine_address: EngineAddress
) -> None:
    program = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    run = runner.run(image, program, gpus=0, timeout_s=60)
    assert (run.exit_code, run.stdout, run.stderr, run.failure) == (3, "out\n", "err\n", None)
    assert run.started <= run.ended
    assert containers(engine_address) == []
    assert str(image) not in listed(
        engine_address, "images", "--digests", "--format", "{{.Repository}}@{{.Digest}}"
    )


def test_there_is_no_network(runner: DockerRunner, image: Reference) -> None:
    program = "import socket; print([name for _, name in socket.if_nameindex()])"
    assert runner.run(image, program, gpus=0, timeout_s=60).stdout == "['lo']\n"


def test_a_deadline_ends_the_container(
    runner: DockerRunner, image: Reference, engine_address: EngineAddress
) -> None:
    start = time.monotonic()
    run = runner.run(
        image, "import time; print('on', flush=True); time.sleep(300)", gpus=0, timeout_s=3
    )
    assert (run.exit_code, run.stdout) == (None, "on\n")
    assert time.monotonic() - start < 60
    assert containers(engine_address) == []


def test_a_run_can_be_stopped(engine_address: EngineAddress, image: Reference) -> None:
    cancelled = threading.Event()
    threading.Timer(3, cancelled.set).start()
    runner = DockerRunner(engine_address, cancelled)
    run = runner.run(image, "import time; time.sleep(300)", gpus=0, timeout_s=300)
    assert run.failure == "the run was stopped"
    assert containers(engine_address) == []


def test_an_image_that_is_not_there_could_not_start(runner: DockerRunner, image: Reference) -> None:
    missing = image.with_digest(type(image.digest)("sha256:" + "0" * 64))  # type: ignore[misc]
    run = runner.run(missing, "print(1)", gpus=0, timeout_s=60)
    assert run.exit_code is None
    assert run.failure is not None
    assert "pulling" in run.failure


def test_output_is_bounded_and_its_end_is_kept(runner: DockerRunner, image: Reference) -> None:
    program = "for _ in range(20000): print('x' * 999)\nprint('the end')"
    run = runner.run(image, program, gpus=0, timeout_s=120)
    assert len(run.stdout) <= 1024 * 1024
    assert run.stdout.endswith("the end\n")


def test_a_gpu_that_the_engine_cannot_give_is_no_pass(
    runner: DockerRunner, image: Reference, engine_address: EngineAddress
) -> None:
    if engine_address.kind == "system":
        pytest.fail("this test is for an engine without NVIDIA's runtime")
    run = runner.run(image, "print(1)", gpus=1, timeout_s=60)
    assert run.failure is not None
    assert containers(engine_address) == []


KILLED = """
import sys
from curator.oci import Reference
from curator.ports import EngineAddress
from curator.runner import DockerRunner
docker, host, config, image = sys.argv[1:]
address = EngineAddress(docker=docker, kind="embedded", host=host or None, config=config or None)
DockerRunner(address).run(
    Reference.parse(image), "import time; time.sleep(300)", gpus=0, timeout_s=300
)
"""


def test_what_killed_runs_leave_is_swept(
    runner: DockerRunner, image: Reference, engine_address: EngineAddress
) -> None:
    address = engine_address
    words = [address.docker, address.host or "", address.config or "", str(image)]
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", KILLED, *words])
        deadline = time.monotonic() + 60
        while not containers(address, process.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert containers(address, process.pid)
        runner.sweep()
        assert containers(address, process.pid) == []
