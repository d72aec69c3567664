"""The store port: one suite for every store there is."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from curator.errors import (
    ConflictError,
    CuratorError,
    HostError,
    InputError,
    RefusedError,
    TemporaryError,
)
from curator.oci import hex_of, sha256
from curator.store import DirectoryStore, open_store
from tests.azurite import fresh

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from curator.ports import Store

SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture(params=["directory", "azurite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Each store in turn, empty."""
    if request.param == "directory":
        return DirectoryStore(tmp_path / "deep" / "store")
    azurite = request.getfixturevalue("azurite")
    return open_store(azurite.location(f"{fresh()}/deep/store"), azurite.environ)


def count_up(root: Path, times: int) -> None:
    store = DirectoryStore(root)
    for _ in range(times):
        add_one(store)


def add_one(store: Store) -> None:
    """Add one to the counter, whoever else does."""
    while True:
        blob = store.read("v1/count")
        number = int(blob.data) if blob else 0
        try:
            store.replace("v1/count", str(number + 1).encode(), blob.etag if blob else None)
        except ConflictError:
            continue
        return


def test_what_is_not_there_is_none(store: Store) -> None:
    assert store.read("v1/head.json") is None
    assert store.list("v1/") == ()


def test_added_is_read_back(store: Store) -> None:
    store.add("v1/gen/1.json", b"one")
    blob = store.read("v1/gen/1.json")
    assert blob is not None
    assert blob.data == b"one"


def test_added_again_with_the_same_bytes_is_fine(store: Store) -> None:
    store.add("v1/x", b"same")
    first = store.read("v1/x")
    store.add("v1/x", b"same")
    assert store.read("v1/x") == first
    assert first is not None
    assert first.data == b"same"
    assert store.list("") == ("v1/x",)


def test_added_with_other_bytes_is_a_conflict(store: Store) -> None:
    store.add("v1/x", b"first")
    with pytest.raises(ConflictError):
        store.add("v1/x", b"second")
    blob = store.read("v1/x")
    assert blob is not None
    assert blob.data == b"first"


def test_replaced_only_while_it_is_the_expected_one(store: Store) -> None:
    first = store.replace("v1/head", b"1", None)
    with pytest.raises(ConflictError):
        store.replace("v1/head", b"2", None)
    second = store.replace("v1/head", b"2", first)
    with pytest.raises(ConflictError):
        store.replace("v1/head", b"3", first)
    blob = store.read("v1/head")
    assert blob is not None
    assert (blob.data, blob.etag) == (b"2", second)


def test_what_is_not_there_cannot_be_replaced_as_if_it_were(store: Store) -> None:
    with pytest.raises(ConflictError):
        store.replace("v1/head", b"2", sha256(b"1"))
    assert store.read("v1/head") is None


def test_empty_and_large_documents(store: Store) -> None:
    large = os.urandom(1 << 20) * 8
    store.add("v1/empty", b"")
    store.add("v1/large", large)
    found = [store.read("v1/empty"), store.read("v1/large")]
    assert [blob.data for blob in found if blob] == [b"", large]


def test_listed_by_prefix_in_order(store: Store) -> None:
    for path in ("v1/gen/2", "v1/gen/10", "v1/shard/a", "v1/genesis"):
        store.add(path, path.encode())
    assert store.list("v1/gen/") == ("v1/gen/10", "v1/gen/2")
    assert store.list("v1/gen") == ("v1/gen/10", "v1/gen/2", "v1/genesis")
    assert store.list("v1/gen/1") == ("v1/gen/10",)
    assert len(store.list("")) == 4
    assert store.list("v2/") == ()


@pytest.mark.parametrize(
    "path",
    ["", "/etc/passwd", "../x", "v1/../x", "v1/./x", "v1//x", "v1/", ".hidden", "v1/.x", "a\0b",
     "a\nb", "v1\\x", "v1/é"],
)  # fmt: skip
def test_only_plain_relative_paths(store: Store, path: str) -> None:
    with pytest.raises(InputError):
        store.read(path)
    with pytest.raises(InputError):
        store.add(path, b"")
    with pytest.raises(InputError):
        store.replace(path, b"", None)


@pytest.mark.parametrize("prefix", ["/", "../", "v1/../", ".", "v1//"])
def test_only_plain_relative_prefixes(store: Store, prefix: str) -> None:
    with pytest.raises(InputError):
        store.list(prefix)


def test_one_of_many_threads_creates(store: Store) -> None:
    def create(number: int) -> bool:
        try:
            store.add("v1/race", str(number).encode())
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(create, range(64)))
    blob = store.read("v1/race")
    assert blob is not None
    assert won.count(True) == 1
    assert won[int(blob.data)]


def test_no_replacement_of_many_threads_is_lost(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: add_one(store), range(40)))
    blob = store.read("v1/count")
    assert blob is not None
    assert blob.data == b"40"


# What follows is about the directory alone.


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def directory(root: Path) -> DirectoryStore:
    return DirectoryStore(root)


def test_processes_lose_no_replacement(directory: DirectoryStore, root: Path) -> None:
    processes = [SPAWN.Process(target=count_up, args=(root, 25)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    blob = directory.read("v1/count")
    assert blob is not None
    assert blob.data == b"100"


def test_reading_creates_nothing(directory: DirectoryStore, root: Path) -> None:
    directory.read("v1/x")
    directory.list("")
    assert not root.exists()


def test_leftovers_of_killed_writers_are_not_listed_and_go_when_old(
    directory: DirectoryStore, root: Path
) -> None:
    directory.add("v1/gen/1", b"1")
    old, young = root / "v1/gen/.writing-1-a", root / "v1/gen/.writing-2-b"
    for leftover in (old, young):
        leftover.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    assert directory.list("") == ("v1/gen/1",)
    DirectoryStore(root).add("v1/gen/2", b"2")
    assert (old.exists(), young.exists()) == (False, True)


def test_links_lead_nowhere(directory: DirectoryStore, root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    directory.add("v1/x", b"x")
    (root / "v1/way-out").symlink_to(outside)
    (root / "v1/link").symlink_to(outside / "secret")
    for path in ("v1/way-out/secret", "v1/link"):
        with pytest.raises(RefusedError, match="holds no links"):
            directory.read(path)
        with pytest.raises(RefusedError):
            directory.add(path, b"overwritten")
        with pytest.raises(RefusedError):
            directory.replace(path, b"overwritten", None)
    assert directory.list("") == ("v1/x",)
    assert (outside / "secret").read_text() == "secret"
    assert [path.name for path in outside.iterdir()] == ["secret"]


def test_the_root_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    DirectoryStore(tmp_path / "link").add("v1/x", b"x")
    assert (tmp_path / "real/v1/x").read_bytes() == b"x"


def test_a_file_in_place_of_a_directory(directory: DirectoryStore, root: Path) -> None:
    root.mkdir()
    (root / "v1").write_text("no directory")
    with pytest.raises(RefusedError):
        directory.add("v1/x", b"x")


def test_a_root_that_is_a_file(root: Path) -> None:
    root.write_text("a file")
    with pytest.raises(CuratorError):
        DirectoryStore(root).add("v1/x", b"x")
    with pytest.raises(CuratorError):
        DirectoryStore(root).read("v1/x")


def test_a_document_is_no_pipe(directory: DirectoryStore, root: Path) -> None:
    (root / "v1").mkdir(parents=True)
    os.mkfifo(root / "v1/pipe")
    assert directory.list("") == ()
    blob = directory.read("v1/pipe")
    assert blob is None or blob.data == b""


def test_a_store_locked_by_a_dead_process_is_free(directory: DirectoryStore, root: Path) -> None:
    directory.replace("v1/x", b"1", None)
    program = (
        "import fcntl,os,sys,time;"
        f"f=os.open({str(root / '.lock')!r},os.O_RDWR);fcntl.flock(f,fcntl.LOCK_EX);"
        "print('locked',flush=True);time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        threading.Timer(0.2, holder.kill).start()
        directory.replace("v1/x", b"2", sha256(b"1"))
    blob = directory.read("v1/x")
    assert blob is not None
    assert blob.data == b"2"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system")
    mount = tmp_path / "small"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mount)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("this machine does not let us mount a tmpfs")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


def test_a_full_disk_is_temporary_and_leaves_nothing(small_disk: Path) -> None:
    store = DirectoryStore(small_disk / "store")
    store.replace("v1/head", b"1", None)
    with pytest.raises(TemporaryError, match="make room") as caught:
        store.add("v1/large", os.urandom(4 << 20))
    with pytest.raises(TemporaryError):
        store.replace("v1/head", os.urandom(4 << 20), sha256(b"1"))
    assert caught.value.exit_code == 75
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOSPC
    blob = store.read("v1/head")
    assert blob is not None
    assert blob.data == b"1"
    assert store.list("") == ("v1/head",)
    assert [path.name for path in (small_disk / "store/v1").iterdir()] == ["head"]
    store.add("v1/small", b"fits again")


def test_a_directory_that_may_not_be_written_says_so(small_disk: Path) -> None:
    store = DirectoryStore(small_disk / "store")
    store.add("v1/x", b"x")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(HostError, match="choose another store"):
        store.add("v1/y", b"y")
    with pytest.raises(HostError, match="choose another store"):
        store.replace("v1/head", b"y", None)
    assert store.read("v1/x") is not None


def write_for_ever(root: Path) -> None:
    store = DirectoryStore(root)
    blob = store.read("v1/head")
    etag = blob.etag if blob else None
    for number in range(1_000_000):
        data = f"{os.getpid()} {number} ".encode() * 5000
        store.add(f"v1/doc/{hex_of(sha256(data))}", data)
        etag = store.replace("v1/head", data, etag)


def test_killed_writers_leave_whole_documents_only(directory: DirectoryStore, root: Path) -> None:
    for number in range(8):
        process = SPAWN.Process(target=write_for_ever, args=(root,))
        process.start()
        while not directory.list("v1/doc/") and process.is_alive():
            time.sleep(0.01)
        time.sleep(0.25 + 0.013 * number)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    paths = directory.list("v1/doc/")
    assert paths
    for path in paths:
        blob = directory.read(path)
        assert blob is not None
        assert path == f"v1/doc/{hex_of(sha256(blob.data))}"
    head = directory.read("v1/head")
    assert head is not None
    assert f"v1/doc/{hex_of(sha256(head.data))}" in paths


def test_the_lock_is_a_file_lock(directory: DirectoryStore, root: Path) -> None:
    directory.replace("v1/x", b"1", None)
    with (root / ".lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = threading.Thread(target=directory.replace, args=("v1/x", b"2", sha256(b"1")))
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
    waiting.join()
    blob = directory.read("v1/x")
    assert blob is not None
    assert blob.data == b"2"


def test_a_turn_is_one_writers_at_a_time(directory: DirectoryStore, root: Path) -> None:
    directory.add("v1/x", b"x")
    inside: list[int] = []

    def take(number: int) -> None:
        with DirectoryStore(root).turn("commit"):
            inside.append(number)
            time.sleep(0.01)
            assert inside[-1] == number

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(take, range(16)))
    assert sorted(inside) == list(range(16))


def test_whoever_waited_for_a_turn_long_enough_goes_on(
    directory: DirectoryStore, root: Path
) -> None:
    directory.add("v1/x", b"x")
    with directory.turn("commit"), DirectoryStore(root, turn_s=0.1).turn("commit"):
        directory.add("v1/y", b"y")
    with directory.turn("commit"), directory.turn("finish"):
        assert directory.list("v1/") == ("v1/x", "v1/y")


def test_who_cannot_have_a_turn_goes_on(directory: DirectoryStore, root: Path) -> None:
    directory.add("v1/x", b"x")
    (root / ".lock-commit").symlink_to("nowhere")
    (root / ".lock-finish").mkdir()
    for name in ("commit", "finish"):
        with directory.turn(name):
            directory.add(f"v1/{name}", b"done")
        with pytest.raises(FileNotFoundError), directory.turn(name):
            raise FileNotFoundError
    assert directory.list("v1/") == ("v1/commit", "v1/finish", "v1/x")


def test_the_first_write_syncs_each_directory_that_it_makes(tmp_path: Path) -> None:
    """Seen from outside: which directories a process opens to sync them."""
    program = (
        "import pathlib, sys\n"
        "from curator.store import DirectoryStore\n"
        "opened = set()\n"
        "def hook(event, arguments):\n"
        "    if event == 'open':\n"
        "        opened.add(str(arguments[0]))\n"
        "sys.addaudithook(hook)\n"
        "DirectoryStore(pathlib.Path(sys.argv[1])).add('v1/x', b'x')\n"
        "print(*sorted(opened), sep='\\n')\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "a/b/store")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = set(done.stdout.splitlines())
    assert {str(tmp_path / name) for name in ("", "a", "a/b")} <= found
