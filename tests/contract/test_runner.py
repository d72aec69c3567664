"""One contract for every runner: by digest, without network, bounded, leaving nothing behind."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from curator.errors import HostError
from curator.registry import HttpRegistry
from curator.runner import DockerRunner, Slots
from curator.runner._owner import Owner
from tests import bundles
from tests.runners import Subject, listed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from curator.oci import Digest
    from curator.ports import EngineAddress

GPUS = ("GPU-made-up-a", "GPU-made-up-b")
SEED = 20260
LABEL = "dev.curator.owner"


@pytest.fixture(scope="module")
def made(base_layout: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Digest]:
    layout = tmp_path_factory.mktemp("images") / "python"
    return layout, bundles.python_image(base_layout, layout)


@pytest.fixture(scope="module")
def engine_subject(
    engine_address: EngineAddress, registry_address: str, made: tuple[Path, Digest]
) -> Iterator[Subject]:
    layout, digest = made
    target = bundles.reference(digest, registry_address)
    HttpRegistry().push(layout, target.with_tag("one"))
    yield Subject(image=str(target), address=asdict(engine_address))
    # A killed run leaves the image that it had pulled.
    command = [*engine_address.command, "image", "rm", "--force", str(target)]
    subprocess.run(command, capture_output=True, check=False)


@pytest.fixture(scope="module", params=["docker", "crun", "runc"])
def subject(
    request: pytest.FixtureRequest,
    made: tuple[Path, Digest],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Subject]:
    if request.param == "docker":
        yield request.getfixturevalue("engine_subject")
        return
    programs: Path = request.getfixturevalue("programs")
    runc = programs / "engine" / "prefix" / "usr" / "sbin" / "runc"
    runtime = bundles.crun(programs) if request.param == "crun" else runc
    layout, digest = made
    yield Subject(
        image=str(bundles.reference(digest)),
        layout=str(layout),
        work=str(tmp_path_factory.mktemp("work")),
        runtime=str(runtime),
    )


def test_streams_and_status_come_back_and_nothing_stays(subject: Subject) -> None:
    program = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    run = subject.runner().run(subject.reference, program, gpus=0, timeout_s=60)
    assert (run.exit_code, run.stdout, run.stderr, run.failure) == (3, "out\n", "err\n", None)
    assert run.started <= run.ended
    assert run.gpus == ()
    assert subject.left() == []


@pytest.mark.parametrize("code", [1, 127])
def test_a_programs_own_failure_is_its_status(subject: Subject, code: int) -> None:
    program = f"import sys; print('cgroup pivot_root'); sys.exit({code})"
    run = subject.runner().run(subject.reference, program, gpus=0, timeout_s=60)
    assert (run.exit_code, run.stdout, run.failure) == (code, "cgroup pivot_root\n", None)


def test_a_signal_that_ends_the_program_shows(subject: Subject) -> None:
    program = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    program = f"import os\nif os.fork() == 0:\n    {program}\nos._exit(128 + os.wait()[1] % 128)"
    run = subject.runner().run(subject.reference, program, gpus=0, timeout_s=60)
    assert run.exit_code == 128 + signal.SIGSEGV


def test_the_images_user_environment_and_directory_hold(subject: Subject) -> None:
    program = (
        "import json, os; e = os.environ\n"
        "print(json.dumps([os.getuid(), os.getgid(), os.getcwd(), e['HOME'], e['GREETING'],"
        " e['PATH'], open('/etc/marker').read(), os.access('/srv/here', os.W_OK)]))"
    )
    run = subject.runner().run(subject.reference, program, gpus=0, timeout_s=60)
    told = json.loads(run.stdout)
    expected = [1000, 1000, "/srv/here", "/home/user", "hello you", "/usr/bin", "third", True]
    assert told == expected


def test_there_is_no_network_but_the_loopback(subject: Subject) -> None:
    program = (
        "import socket; s = socket.create_server(('127.0.0.1', 0))\n"
        "socket.create_connection(s.getsockname()).close()\n"
        "print([name for _, name in socket.if_nameindex()], socket.gethostbyname('localhost'))"
    )
    run = subject.runner().run(subject.reference, program, gpus=0, timeout_s=60)
    assert (run.stdout, run.stderr) == ("['lo'] 127.0.0.1\n", "")


def test_a_program_may_be_as_long_as_probes_are(subject: Subject) -> None:
    program = "#" + "x" * (120 * 1024 - 20) + "\nprint('ran')"
    run = subject.runner().run(subject.reference, program, gpus=0, timeout_s=60)
    assert (run.stdout, run.failure) == ("ran\n", None)


def test_a_deadline_ends_the_container(subject: Subject) -> None:
    start = time.monotonic()
    program = "import time; print('on', flush=True); time.sleep(300)"
    run = subject.runner().run(subject.reference, program, gpus=0, timeout_s=3)
    assert (run.exit_code, run.stdout, run.failure) == (None, "on\n", None)
    assert time.monotonic() - start < 60
    assert subject.left() == []


def test_a_run_can_be_stopped(subject: Subject) -> None:
    cancelled = threading.Event()
    threading.Timer(4, cancelled.set).start()
    program = "import time; time.sleep(300)"
    run = subject.runner(cancelled).run(subject.reference, program, gpus=0, timeout_s=300)
    assert run.failure == "the run was stopped"
    assert subject.left() == []


def test_an_image_that_is_not_there_could_not_start(subject: Subject) -> None:
    missing = bundles.reference("sha256:" + "0" * 64, subject.reference.registry)
    run = subject.runner().run(missing, "print(1)", gpus=0, timeout_s=60)
    assert run.exit_code is None
    assert run.failure is not None
    assert "0" * 64 in run.failure


def test_much_output_is_bounded_and_its_end_is_kept(subject: Subject) -> None:
    program = (
        "import sys\n"
        "for _ in range(100): print('x' * 999999)\n"
        "print('the end'); print('so it ends', file=sys.stderr)"
    )
    run = subject.runner().run(subject.reference, program, gpus=0, timeout_s=120)
    assert len(run.stdout) <= 1024 * 1024
    assert (run.exit_code, run.stdout[-9:], run.stderr) == (0, "\nthe end\n"[-9:], "so it ends\n")


def test_endless_output_does_not_fill_the_disk(subject: Subject) -> None:
    program = "import os\nwhile True: os.write(1, b'x' * 65535 + b'\\n')"
    done = threading.Event()
    largest = 0
    runner = subject.runner()

    def run() -> None:
        runner.run(subject.reference, program, gpus=0, timeout_s=8)
        done.set()

    thread = threading.Thread(target=run)
    thread.start()
    while not done.wait(0.5):
        largest = max(largest, log_bytes(subject))
    thread.join()
    assert largest < 64 * 1024 * 1024
    assert subject.left() == []


def log_bytes(subject: Subject) -> int:
    """How much disk the logs of a subject's containers take now."""
    if subject.address is None:
        return sum(path.stat().st_size for path in Path(subject.work).glob("run-*/log"))
    total = 0
    for identity in subject.left():
        found = subprocess.run(
            [
                *DockerRunner(subject_address(subject)).address.command,
                *("inspect", "--format", "{{.LogPath}}", identity),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        for path in Path(found.stdout.strip() or "/nonexistent/x").parent.glob("*.log*"):
            total += path.stat().st_size
    return total


def subject_address(subject: Subject) -> EngineAddress:
    runner = subject.runner()
    assert isinstance(runner, DockerRunner)
    return runner.address


def test_what_killed_runs_leave_is_swept_and_what_runs_is_not(
    subject: Subject, tmp_path: Path
) -> None:
    program = "import time; print('on', flush=True); time.sleep(8)"
    with subject.start(program, slots=tmp_path, gpus=()) as lives:
        killed = subject.start("import time; time.sleep(300)", slots=tmp_path, gpus=())
        deadline = time.monotonic() + 60
        while len(running(subject)) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(running(subject)) == 2
        killed.kill()
        killed.communicate()
        subject.runner().sweep()
        assert len(running(subject)) == 1
        told = json.loads(lives.communicate(timeout=60)[0])
    assert (told["exit_code"], told["stdout"]) == (0, "on\n")
    assert subject.left() == []


def running(subject: Subject) -> list[str]:
    """The containers whose program runs."""
    if subject.address is not None:
        return subject.containers()
    return [path.parent.name for path in Path(subject.work).glob("run-*/config.json")]


@pytest.mark.parametrize("subject", ["docker", "crun"], indirect=True)
def test_fifty_runs_with_random_kills_leave_no_container_and_no_slot(
    subject: Subject, tmp_path: Path
) -> None:
    chance = random.Random(SEED)  # noqa: S311 - instants, no secrets
    sweeper = subject.runner()
    ended = 0
    for _ in range(25):
        pair = [subject.start("print('done')", slots=tmp_path, gpus=GPUS) for _ in range(2)]
        began = time.monotonic()
        for process, wait_s in sorted(
            ((p, chance.choice((0.5, 1.0, 3.0)) * chance.random()) for p in pair),
            key=lambda item: item[1],
        ):
            time.sleep(max(0.0, began + wait_s - time.monotonic()))
            if chance.random() < 0.75:
                process.kill()
            if chance.random() < 0.3:
                sweeper.sweep()
        for process in pair:
            told, _ = process.communicate(timeout=120)
            if process.returncode == 0:
                ended += 1
                run = json.loads(told)
                assert (run["exit_code"], run["stdout"], run["failure"]) == (0, "done\n", None)
            else:
                assert process.returncode == -signal.SIGKILL
    assert 0 < ended < 50
    sweeper.sweep()
    assert subject.left() == []
    cancelled = threading.Event()
    cancelled.set()
    with Slots(tmp_path, GPUS).take(len(GPUS), cancelled) as free:
        assert set(free) == set(GPUS)


def test_more_gpus_than_there_are_is_the_hosts_lack(
    engine_subject: Subject, tmp_path: Path
) -> None:
    runner = DockerRunner(subject_address(engine_subject), slots=Slots(tmp_path, GPUS))
    with pytest.raises(HostError, match="3 GPUs were asked for"):
        runner.run(engine_subject.reference, "print(1)", gpus=3, timeout_s=60)


def test_a_gpu_that_the_engine_cannot_give_is_no_pass(
    engine_subject: Subject, tmp_path: Path
) -> None:
    address = subject_address(engine_subject)
    if address.kind == "system":
        pytest.fail("this test is for an engine without NVIDIA's runtime")
    runner = DockerRunner(address, slots=Slots(tmp_path, GPUS))
    run = runner.run(engine_subject.reference, "print(1)", gpus=2, timeout_s=60)
    assert run.failure is not None
    assert "could not select device driver" in run.failure
    assert run.gpus == GPUS
    assert engine_subject.left() == []


@pytest.mark.parametrize(
    ("machine", "until_s", "stays"),
    [("another", 3600, True), ("another", -1, False), ("", 3600, True), ("this", 3600, False)],
)
def test_only_what_nobody_waits_for_is_swept(
    engine_subject: Subject,
    machine: str,
    until_s: int,
    stays: bool,  # noqa: FBT001 - what is expected
) -> None:
    address = subject_address(engine_subject)
    labels = {
        "": str(os.getpid()),
        ".machine": Owner.current().machine if machine == "this" else machine,
        ".started": "1",  # another process had this one's id before
        ".until": str(int(time.time()) + until_s) if machine else "",
    }
    words = [word for name, text in labels.items() for word in ("--label", f"{LABEL}{name}={text}")]
    assert engine_subject.address is not None
    listed(engine_subject.address, "pull", "--quiet", engine_subject.image)
    (container,) = listed(engine_subject.address, "create", *words, engine_subject.image)
    try:
        DockerRunner(address).sweep()
        found = listed(engine_subject.address, "ps", "--all", "--quiet", "--no-trunc")
        assert (container in found) is stays
    finally:
        subprocess.run(
            [*address.command, "rm", "--force", container], capture_output=True, check=False
        )
        listed(engine_subject.address, "image", "rm", "--force", engine_subject.image)
