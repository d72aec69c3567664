"""The private engine and registry: real daemons of real programs, in caches of the tests' own."""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from curator import provision
from curator.errors import HostError, TemporaryError
from curator.provision import _azurite
from curator.store import open_store
from tests import machines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from curator.ports import EngineAddress

DAEMONS = ["containerd", "docker-registry", "dockerd"]


@pytest.fixture(autouse=True)
def no_engine_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", machines.NOBODY)
    monkeypatch.delenv("CURATOR_BUILDER", raising=False)


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory that is short enough for sockets; nothing may run or be mounted there after."""
    path = Path(tempfile.mkdtemp(prefix="curator-test-"))
    yield path
    left = (sorted(machines.processes(path).values()), machines.mounts(path))
    machines.clear(path)
    assert left == ([], [])


@pytest.fixture
def own(directory: Path, programs: Path) -> Iterator[Path]:
    """A cache with programs, where nothing was started yet."""
    cache = directory / "cache"
    machines.lend_programs(programs, cache)
    yield cache
    provision.down(cache, purge=True)


def engine_of(status: provision.Status) -> EngineAddress:
    assert status.engine is not None
    return status.engine


def docker(engine: EngineAddress, *arguments: str, data: bytes | None = None) -> str:
    command = [*engine.command, *arguments]
    result = subprocess.run(command, input=data, capture_output=True, check=False)
    assert result.returncode == 0, result.stderr.decode()
    return result.stdout.decode().strip()


def daemons(cache: Path) -> dict[str, int]:
    """Return the one process of each daemon that belongs to a cache."""
    found = [(name, pid) for pid, name in machines.processes(cache).items() if name in DAEMONS]
    assert len(found) == len(dict(found)), found
    return dict(found)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def sleeper(engine: EngineAddress) -> str:
    """Start a container that sleeps, of an image that is this machine's `sleep`."""
    program = shutil.which("sleep")
    assert program is not None
    linked = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", dereference=True) as archive:
        for file in (program, *re.findall(r"(/\S+) \(", linked)):
            archive.add(file)
    docker(engine, "import", "-", "sleeper", data=buffer.getvalue())
    return docker(engine, "run", "--detach", "--network=none", "sleeper", program, "86400")


def test_two_at_once_from_nothing_get_the_same_engine_and_registry(directory: Path) -> None:
    cache = directory / "home" / "cache"
    calls = [machines.start("up", cache) for _ in range(2)]
    first, second = (machines.answer(process) for process in calls)
    assert (first.error, first.message) == (None, "")
    assert first == second
    assert sorted(daemons(cache)) == DAEMONS
    status = provision.status(cache)
    assert status.to_json() == first.value
    assert docker(engine_of(status), "version", "--format", "{{.Server.Version}}") >= "25"
    assert docker(engine_of(status), "buildx", "version")
    provision.down(cache, purge=True)
    assert not list(cache.glob("engine")) + list(cache.glob("registry"))


def test_status_starts_nothing(own: Path) -> None:
    status = provision.status(own)
    assert (status.engine, status.registry, daemons(own)) == (None, None, {})


def test_what_is_up_stays_as_it_is(own: Path) -> None:
    first, before = provision.up(own), daemons(own)
    assert (provision.up(own), daemons(own)) == (first, before)
    assert provision.status(own) == first


def test_down_ends_everything_and_up_finds_it_again(own: Path) -> None:
    first = provision.up(own)
    docker(engine_of(first), "import", "-", "kept", data=bytes(1024))
    stopped = provision.down(own)
    assert (stopped.engine, stopped.registry) == (None, None)
    assert (machines.processes(own), machines.mounts(own)) == ({}, [])
    assert provision.down(own) == stopped
    second = provision.up(own)
    assert second == first
    assert docker(engine_of(second), "image", "ls", "--quiet", "kept")


def test_the_registry_answers_and_another_gets_a_port_of_its_own(own: Path) -> None:
    address = provision.up(own).registry
    assert address is not None
    connection = http.client.HTTPConnection(address, timeout=5)
    connection.request("GET", "/v2/")
    assert connection.getresponse().status == 200
    connection.close()
    provision.down(own)
    host, _, port = address.partition(":")
    with socket.create_server((host, int(port))):
        assert provision.up(own).registry != address


def test_a_port_that_somebody_has_is_no_registry(own: Path, programs: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(HostError, match="address already in use"):
            provision.start_registry(own / "registry", programs / "engine" / "tools", port=port)


def test_an_engine_that_was_killed_is_started_again(own: Path) -> None:
    first, before = provision.up(own), daemons(own)
    container = sleeper(engine_of(first))
    kill(before["dockerd"])
    assert provision.status(own).engine is None
    assert provision.up(own) == first
    assert daemons(own)["dockerd"] != before["dockerd"]
    assert daemons(own)["docker-registry"] == before["docker-registry"]
    state = ["inspect", "--format", "{{.State.Running}}", container]
    assert docker(engine_of(first), *state) == "false"


def test_down_ends_the_containers_of_an_engine_that_was_killed(own: Path) -> None:
    status = provision.up(own)
    sleeper(engine_of(status))
    kill(daemons(own)["dockerd"])
    provision.down(own, purge=True)
    assert machines.processes(own) == {}


def test_up_can_be_killed_at_any_time(own: Path) -> None:
    for after_s in (0.3, 0.5, 0.7, 0.9, 1.2, 1.6):
        process = machines.start("up", own)
        time.sleep(after_s)
        process.kill()
        process.communicate()
    status = provision.up(own)
    assert docker(engine_of(status), "info", "--format", "{{.ServerVersion}}")
    provision.down(own)
    assert machines.processes(own) == {}


def state_files(cache: Path) -> dict[Path, dict[str, int]]:
    """Return what is written down about processes below a cache."""
    found = {path: json.loads(path.read_text()) for path in cache.glob("*/*.json")}
    return {path: state for path, state in found.items() if "pid" in state}


def test_a_process_that_has_the_id_of_an_old_daemon_is_left_alone(own: Path) -> None:
    provision.up(own)
    states = state_files(own)
    provision.down(own)
    with subprocess.Popen(["sleep", "60"]) as other:
        for path, state in states.items():
            path.write_text(json.dumps(state | {"pid": other.pid}))
        assert provision.status(own).registry is None
        provision.down(own)
        assert other.poll() is None
        other.kill()


@pytest.mark.parametrize("text", [None, '{"pid":'], ids=["lost", "half written"])
def test_daemons_are_found_whatever_became_of_what_was_written_down(
    own: Path, text: str | None
) -> None:
    first = provision.up(own)
    for path in state_files(own):
        path.unlink()
        if text is not None:
            path.write_text(text)
    assert provision.up(own) == first
    assert len(daemons(own)) == 3
    provision.down(own)
    assert machines.processes(own) == {}


def test_what_a_killed_download_left_is_replaced(directory: Path, programs: Path) -> None:
    cache = directory / "cache"
    machines.lend_programs(programs, cache)
    (cache / "engine" / "tools").unlink()
    half = cache / "apt" / "trixie" / "debs" / "docker-registry_0.1_amd64.deb"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"!<arch>\nhalf of a pack")
    (cache / "engine" / "tools.partial").mkdir()
    try:
        assert provision.up(cache).registry is not None
    finally:
        provision.down(cache, purge=True)


def test_an_engine_that_cannot_start_is_told_with_its_last_words(own: Path) -> None:
    (own / "engine" / "data").write_text("no directory")
    with pytest.raises(HostError, match=r"(?s)did not start, see .*dockerd\.log.*points to a file"):
        provision.up(own)
    assert machines.processes(own) == {}


@pytest.mark.parametrize("name", ["plain", "with a space", "link"])
def test_purge_unmounts_before_it_removes(directory: Path, name: str) -> None:
    cache = directory / name
    if name == "link":
        (directory / "real").mkdir()
        cache.symlink_to(directory / "real")
    kept, mounted = directory / "kept", cache / "engine" / "data" / "mounted"
    for folder in (kept, mounted):
        folder.mkdir(parents=True)
    (kept / "file").write_text("of somebody else")
    subprocess.run(["mount", "--bind", kept, mounted], check=True)
    provision.down(cache, purge=True)
    assert (kept / "file").exists()
    assert machines.mounts(directory) == []
    assert not (cache / "engine").exists()


@pytest.mark.parametrize("name", ["with a space", "long" * 30])
def test_a_cache_may_have_any_name(directory: Path, programs: Path, name: str) -> None:
    cache = directory / name
    machines.lend_programs(programs, cache)
    try:
        engine = engine_of(provision.up(cache))
        assert docker(engine, "info", "--format", "{{.ServerVersion}}")
        socket_file = Path((engine.host or "").removeprefix("unix://"))
        assert socket_file.is_socket()
    finally:
        provision.down(cache, purge=True)
    assert not socket_file.parent.exists()


def test_an_engine_of_the_system_is_used_and_left_alone(
    own: Path, directory: Path, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    systems = directory / "system"
    machines.lend_programs(programs, systems)
    try:
        private = engine_of(provision.up(systems))
        assert private.host is not None
        assert private.config is not None
        monkeypatch.setenv("DOCKER_HOST", private.host)
        monkeypatch.setenv("DOCKER_CONFIG", private.config)
        path = f"{Path(private.docker).parent}:{os.environ['PATH']}"
        monkeypatch.setenv("PATH", path)
        status = provision.up(own)
        assert engine_of(status).kind == "system"
        assert engine_of(status).command == (private.docker,)
        assert sorted(daemons(own)) == ["docker-registry"]
        assert engine_of(provision.down(own)).kind == "system"
        assert docker(private, "info", "--format", "{{.ServerVersion}}")
    finally:
        provision.down(systems, purge=True)


def client(directory: Path, *, driver: str, buildx: int) -> str:
    """Put a client on a path of its own that answers as Docker of other configurations does."""
    info = {"ServerVersion": "28.0.0", "DriverStatus": [["driver-type", driver]]}
    program = directory / "bin" / "docker"
    program.parent.mkdir()
    lines = [f"#!{sys.executable}", "import sys", "if 'buildx' in sys.argv:"]
    program.write_text(
        "\n".join([*lines, f"    sys.exit({buildx})", f"print({json.dumps(info)!r})"])
    )
    program.chmod(0o755)
    return f"{program.parent}:{os.environ['PATH']}"


CONTAINERD = "io.containerd.snapshotter.v1"


@pytest.mark.parametrize(
    ("driver", "buildx", "told"),
    [
        (CONTAINERD, 1, "install docker-buildx-plugin"),
        ("overlay2", 0, "CURATOR_BUILDER=curator"),
    ],
)
def test_an_engine_that_cannot_build_is_refused_with_what_to_do(
    directory: Path, driver: str, buildx: int, told: str
) -> None:
    path = client(directory, driver=driver, buildx=buildx)
    answer = machines.call("up", directory / "cache", environment={"PATH": path})
    assert (answer.error, told in answer.message) == ("HostError", True), answer
    assert machines.processes(directory) == {}


def test_a_builder_makes_up_for_the_engines_image_store(
    own: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", client(directory, driver="overlay2", buildx=0))
    monkeypatch.setenv("CURATOR_BUILDER", "farm")
    assert engine_of(provision.status(own)).builder == "farm"


def test_down_stops_what_is_ours_whatever_the_system_has(
    own: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provision.up(own)
    with monkeypatch.context() as changed:
        changed.setenv("PATH", client(directory, driver="overlay2", buildx=1))
        provision.down(own)
    assert machines.processes(own) == {}


BRIDGE = "mount -t tmpfs none /sys/class/net && mkdir /sys/class/net/docker0"


@pytest.mark.parametrize(
    ("on", "user", "told"),
    [
        ((), 65534, "run as root"),
        (("setarch", "i686"), 0, "no private engine for i686"),
        (machines.changed(BRIDGE), 0, "docker0"),
    ],
    ids=["not root", "32 bits", "another engine's bridge"],
)
def test_a_machine_that_cannot_have_an_engine_is_told_so(
    directory: Path, on: tuple[str, ...], user: int, told: str
) -> None:
    directory.chmod(0o777)
    answer = machines.call("up", directory / "cache", on=on, user=user)
    assert (answer.error, told in answer.message) == ("HostError", True), answer
    assert machines.processes(directory) == {}


def test_a_machine_without_apt_is_told_so(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(directory))
    with pytest.raises(HostError, match=r"apt-get and dpkg not found.*install Docker"):
        provision.up(directory / "cache")


def test_the_machine_forwards_no_packets_that_it_did_not_before(own: Path) -> None:
    on = machines.changed(f"echo 0 > {machines.FORWARDING}", own="mount,net")
    answer = machines.call("forwarding", own, on=on)
    assert answer.value == {"before": "0", "with": "0"}


@pytest.fixture
def azurites(cache: Path) -> Path:
    """Azurite's program, which npm fetched once."""
    return _azurite.install(cache / "azurite")


def curator(cache: Path, *arguments: str) -> str:
    """Return what a verb of the engine prints."""
    program = Path(sys.executable).with_name("curator")
    environ = {**os.environ, "CURATOR_CACHE": str(cache)}
    command = [str(program), "engine", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environ).stdout


def test_an_azurite_is_started_shown_and_stopped_with_the_engine(own: Path, azurites: Path) -> None:
    (own / "azurite").mkdir()
    (own / "azurite" / azurites.name).symlink_to(azurites)
    assert json.loads(curator(own, "status", "--json"))["data"]["azurite"] is None
    found = json.loads(curator(own, "up", "--azurite", "--json"))["data"]["azurite"]
    location = found.pop("--store")
    assert location == "azure:curator"
    open_store(location, found).add("v1/x", b"kept")
    assert found["AZURE_STORAGE_CONNECTION_STRING"] in curator(own, "status")
    assert provision.up(own, azurite=True).to_json()["azurite"] == found | {"--store": location}
    assert json.loads(curator(own, "down", "--json"))["data"]["azurite"] is None
    assert machines.processes(own) == {}
    assert provision.start_azurite(own) == found["AZURE_STORAGE_CONNECTION_STRING"]
    blob = open_store(location, found).read("v1/x")
    assert blob is not None
    assert blob.data == b"kept"
    provision.down(own, purge=True)
    assert not (own / "azurite").exists()


def npm(directory: Path, script: str) -> str:
    """Put an npm of our own on a path."""
    program = directory / "bin" / "npm"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return f"{program.parent}:{os.environ['PATH']}"


@pytest.mark.parametrize(
    ("script", "told"),
    [("echo 'E404 no such package' >&2; exit 1", "E404 no such package"), ("exit 0", "3.35.0")],
)
def test_an_azurite_that_npm_does_not_get_is_not_taken_for_one(
    directory: Path, monkeypatch: pytest.MonkeyPatch, script: str, told: str
) -> None:
    monkeypatch.setenv("PATH", npm(directory, script))
    with pytest.raises(TemporaryError, match=told):
        provision.start_azurite(directory / "cache")
    assert not (directory / "cache" / "azurite" / _azurite.VERSION).exists()


def test_half_an_azurite_that_a_killed_npm_left_is_replaced(
    directory: Path, azurites: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = directory / "cache"
    half = cache / "azurite" / f"{_azurite.VERSION}.partial" / "node_modules"
    half.mkdir(parents=True)
    monkeypatch.setenv("PATH", npm(directory, f"ln -s '{azurites}/node_modules' ."))
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        (cache / "azurite" / "port").write_text(str(port))
        connection = provision.start_azurite(cache)
    assert f":{port}/" not in connection
    assert provision.start_azurite(cache) == connection
    provision.stop_azurite(cache / "azurite")
    assert machines.processes(directory) == {}


def test_a_machine_without_node_is_told_what_to_install(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(directory))
    with pytest.raises(HostError, match="install nodejs and npm"):
        provision.start_azurite(directory / "cache")
