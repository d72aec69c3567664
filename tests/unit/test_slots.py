"""GPU slots: across processes and threads, all or none, and free again when their owner dies."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from curator.errors import CancelledError, HostError
from curator.runner import Slots

if TYPE_CHECKING:
    from pathlib import Path

GPUS = ("GPU-a", "GPU-b", "GPU-c")
NEVER = threading.Event()

HOLDER = """
import sys, threading, time
from pathlib import Path
from curator.runner import Slots
directory, count, *gpus = sys.argv[1:]
with Slots(Path(directory), gpus).take(int(count), threading.Event()) as taken:
    print(*taken, flush=True)
    sys.stdin.read()
"""


def holder(directory: Path, count: int, gpus: tuple[str, ...] = GPUS) -> subprocess.Popen[str]:
    """Start a process that takes GPUs, and keeps them until its stdin closes."""
    command = [sys.executable, "-c", HOLDER, str(directory), str(count), *gpus]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def told(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdout is not None
    return process.stdout.readline().split()


def free(directory: Path, gpus: tuple[str, ...] = GPUS) -> bool:
    """Whether all GPUs can be taken at once, now."""
    cancelled = threading.Event()
    cancelled.set()
    try:
        with Slots(directory, gpus).take(len(gpus), cancelled):
            return True
    except CancelledError:
        return False


def test_different_gpus_are_given_and_come_back(tmp_path: Path) -> None:
    slots = Slots(tmp_path, GPUS)
    with slots.take(2, NEVER) as some:
        assert len(set(some)) == 2
        with slots.take(1, NEVER) as other:
            assert {*some, *other} == set(GPUS)
            assert not free(tmp_path)
    assert free(tmp_path)


def test_none_are_given_to_whoever_asks_for_none(tmp_path: Path) -> None:
    with Slots(tmp_path / "absent", ()).take(0, NEVER) as taken:
        assert taken == ()
    assert not (tmp_path / "absent").exists()


def test_more_than_there_are_is_the_hosts_lack(tmp_path: Path) -> None:
    with (
        pytest.raises(HostError, match="4 GPUs were asked for, and this runner has 3"),
        Slots(tmp_path, GPUS).take(4, NEVER),
    ):
        pass


@pytest.mark.parametrize("gpus", [("../a",), ("",), ("a b",), ("turn",), ("GPU-a", "GPU-a")])
def test_what_names_no_gpu_is_refused(tmp_path: Path, gpus: tuple[str, ...]) -> None:
    with pytest.raises(HostError):
        Slots(tmp_path, gpus)


def test_waiting_can_be_stopped(tmp_path: Path) -> None:
    cancelled = threading.Event()
    with Slots(tmp_path, GPUS).take(3, NEVER):
        threading.Timer(0.3, cancelled.set).start()
        with pytest.raises(CancelledError), Slots(tmp_path, GPUS).take(1, cancelled):
            pass
    assert free(tmp_path)


def test_an_error_inside_gives_them_back(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Slots(tmp_path, GPUS).take(3, NEVER):
        raise ZeroDivisionError
    assert free(tmp_path)


def test_a_gpu_has_room_for_several_only_if_told_so(tmp_path: Path) -> None:
    slots = Slots(tmp_path, GPUS[:2], per_gpu=2)
    with slots.take(1, NEVER) as first, slots.take(1, NEVER) as second:
        assert first != second
        with slots.take(2, NEVER) as both:
            assert set(both) == set(GPUS[:2])
            cancelled = threading.Event()
            cancelled.set()
            with pytest.raises(CancelledError), slots.take(1, cancelled):
                pass


def test_processes_keep_apart_and_a_killed_one_frees_its_own(tmp_path: Path) -> None:
    with holder(tmp_path, 2) as first, holder(tmp_path, 1) as second:
        mine, other = told(first), told(second)
        assert sorted([*mine, *other]) == list(GPUS)
        with holder(tmp_path, 2) as waiting:
            time.sleep(0.5)
            first.send_signal(signal.SIGKILL)
            assert told(waiting) == mine
            second.send_signal(signal.SIGKILL)
            waiting.send_signal(signal.SIGKILL)
    assert free(tmp_path)


def test_one_killed_while_it_waits_stops_nobody(tmp_path: Path) -> None:
    with holder(tmp_path, 3) as first:
        assert told(first)
        with holder(tmp_path, 2) as waiting, holder(tmp_path, 2) as later:
            time.sleep(1)
            waiting.send_signal(signal.SIGKILL)
            first.send_signal(signal.SIGKILL)
            assert len(told(later)) == 2
            later.send_signal(signal.SIGKILL)
    assert free(tmp_path)


def test_many_that_want_several_all_get_them_and_never_share(tmp_path: Path) -> None:
    slots, lock = Slots(tmp_path, GPUS), threading.Lock()
    users = dict.fromkeys(GPUS, 0)

    def use(number: int) -> int:
        with slots.take(1 + number % 3, NEVER) as taken:
            with lock:
                for gpu in taken:
                    users[gpu] += 1
                assert max(users.values()) == 1
            time.sleep(0.01)
            with lock:
                for gpu in taken:
                    users[gpu] -= 1
            return len(taken)

    with ThreadPoolExecutor(12) as pool:
        assert sorted(pool.map(use, range(36))) == sorted(1 + n % 3 for n in range(36))
    assert free(tmp_path)


def test_many_small_wishes_do_not_starve_a_large_one(tmp_path: Path) -> None:
    slots, done = Slots(tmp_path, GPUS), threading.Event()

    def small() -> None:
        while not done.is_set():
            with slots.take(1, NEVER):
                time.sleep(0.05)

    with ThreadPoolExecutor(6) as pool:
        for _ in range(6):
            pool.submit(small)
        try:
            with slots.take(3, threading.Event()) as taken:
                assert len(taken) == 3
        finally:
            done.set()


def test_slots_of_some_gpus_are_slots_of_all(tmp_path: Path) -> None:
    every = Slots(tmp_path, GPUS)
    last = every.only(GPUS[-1:])
    with last.take(1, NEVER) as taken:
        assert taken == (GPUS[-1],)
        with every.take(len(GPUS) - 1, NEVER) as others:
            assert set(others) == set(GPUS[:-1])
        with pytest.raises(HostError):
            last.take(2, NEVER).__enter__()
