"""What `curator doctor` says of machines that are set up, and of those that lack one thing each."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from curator.cli._ports import now
from curator.doctor import Finding, Look, checks
from tests import machines
from tests.contract import test_runner_gpus
from tests.faults import FaultProxy, answer
from tests.publishing import Farm
from tests.tokens import TokenProxy

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from curator.ports import EngineAddress

pytestmark = pytest.mark.xdist_group("engine")
cdi_engine = test_runner_gpus.cdi_engine

ROOT = machines.ROOT
VERB = "from curator.cli import main; main()"
NOBODY = "unix:///nonexistent/docker.sock"
ANSWERS = """#!/bin/sh
case "$*" in
*version*json*) echo '{{"Server": {{"Version": "{version}"}}}}';;
*info*) echo '{info}';;
*) exit 0;;
esac
"""


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine with an environment of its own, and what its doctor says of it."""

    environment: dict[str, str] = field(default_factory=dict)
    folder: Path = ROOT

    def doctor(self, *arguments: str, code: int | None = None, **more: str) -> dict[str, Any]:
        """Return what the verb says, check by check."""
        done = self.run("--json", "doctor", *arguments, **more)
        document = json.loads(done.stdout)
        found = {item["name"]: item for item in document["data"]["checks"]}
        fails = [name for name, item in found.items() if item["state"] == "fail"]
        assert done.returncode == (1 if fails else 0), done.stderr
        assert document["status"] == ("findings" if fails else "ok")
        assert code is None or done.returncode == code, found
        for name, item in found.items():
            assert item["text"], name
            assert item["fix"] or item["state"] in {"ok", "skip"}, name
            assert not (item["fix"] and item["state"] == "ok"), name
        return found

    def run(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run the command line."""
        return subprocess.run(
            [sys.executable, "-c", VERB, *arguments],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            env={**self.environment, **more},
        )

    def install(self, name: str, script: str) -> None:
        """Put a program before all others on its PATH."""
        folder = Path(self.environment["PATH"].partition(":")[0])
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)


@pytest.fixture
def bare(tmp_path: Path) -> Machine:
    """A machine with nothing of docker, a registry or a GPU on it, outside a farm."""
    programs, home = tmp_path / "bin", tmp_path / "home"
    programs.mkdir()
    home.mkdir()
    environment = {
        "PATH": str(programs),
        "HOME": str(home),
        "CURATOR_CACHE": str(tmp_path / "cache"),
        "PYTHONPATH": str(ROOT),
    }
    return Machine(environment=environment, folder=home)


@pytest.fixture
def client(bare: Machine, programs: Path) -> Machine:
    """The same with docker's own client, and buildx."""
    prefix = programs / "engine" / "prefix"
    plugin = prefix / "usr/libexec/docker/cli-plugins/docker-buildx"
    plugins = Path(bare.environment["HOME"]) / ".docker" / "cli-plugins"
    plugins.mkdir(parents=True)
    (plugins / "docker-buildx").symlink_to(plugin)
    (Path(bare.environment["PATH"]) / "docker").symlink_to(prefix / "usr/bin/docker")
    return bare


@pytest.fixture
def working(client: Machine, engine_address: EngineAddress) -> Machine:
    """The same with an engine that answers."""
    if engine_address.host is None:
        pytest.skip("this machine's engine is its own; these tests are for an engine by address")
    client.environment["DOCKER_HOST"] = engine_address.host
    return client


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with NVIDIA's management library, made of software."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("a C compiler makes the driver of these tests: install gcc or clang")
    folder = tmp_path_factory.mktemp("driver")
    source = ROOT / "tests/data/gpu/nvml.c"
    made = folder / "libnvidia-ml.so.1"
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", made, source], check=True)
    return folder


def with_gpus(machine: Machine, library: Path, *gpus: str) -> Machine:
    machine.environment.update(LD_LIBRARY_PATH=str(library), NVML_GPUS=";".join(gpus))
    return machine


# Docker


def test_a_machine_with_nothing(bare: Machine) -> None:
    found = bare.doctor(code=1)
    assert {name: item["state"] for name, item in found.items()} == {
        "docker": "fail",
        "buildx": "skip",
        "driver": "skip",
        "container toolkit": "skip",
        "GPU in a container": "skip",
        "cache's disk": found["cache's disk"]["state"],
        "shared memory": found["shared memory"]["state"],
        "registry": "skip",
        "store": "skip",
    }
    assert found["docker"]["text"] == "there is no docker program on PATH"
    assert "docs.docker.com/engine/install" in found["docker"]["fix"]


def test_an_engine_that_answers(working: Machine) -> None:
    found = working.doctor()
    assert found["docker"]["state"] == "ok"
    assert found["docker"]["text"].startswith("the engine answers: Docker 2")
    assert found["buildx"]["state"] == "ok"
    assert "exports OCI layouts" in found["buildx"]["text"]
    assert " free at /" in found["docker's disk"]["text"]


def test_the_private_engine_of_the_cache_is_found(
    bare: Machine, engine_address: EngineAddress, cache: Path
) -> None:
    if engine_address.kind != "embedded":
        pytest.skip("this machine's engine is its own")
    found = bare.doctor(CURATOR_CACHE=str(cache))
    assert found["docker"]["text"].startswith("the private engine answers: Docker 2")
    assert found["docker"]["state"] == "ok"
    assert found["registry"]["state"] in {"ok", "skip"}


def test_an_engine_that_is_not_there(client: Machine) -> None:
    found = client.doctor(DOCKER_HOST=NOBODY, code=1)
    assert found["docker"]["text"].startswith(f"Cannot connect to the Docker daemon at {NOBODY}")
    assert found["docker"]["fix"] == f"start the engine at {NOBODY}, or: unset DOCKER_HOST"
    assert found["buildx"]["text"] == "not looked at: no docker engine answers"
    silent = client.doctor(DOCKER_CONTEXT="far", code=1)
    assert silent["docker"]["fix"] == "docker context use default"


def test_a_dead_engine_beside_the_private_one(
    client: Machine, engine_address: EngineAddress, cache: Path
) -> None:
    if engine_address.kind != "embedded":
        pytest.skip("this machine's engine is its own")
    found = client.doctor(DOCKER_HOST=NOBODY, CURATOR_CACHE=str(cache))
    assert found["docker"]["state"] == "warn"
    assert (
        f"the system's does not: Cannot connect to the Docker daemon at {NOBODY}"
        in (found["docker"]["text"])
    )


def test_an_engine_that_lets_only_others_in(client: Machine, tmp_path: Path) -> None:
    if os.geteuid() or not (setpriv := shutil.which("setpriv")):
        pytest.skip("only root can give a socket away, and setpriv its rights")
    docker = Path(client.environment["PATH"]) / "docker"
    docker.rename(tmp_path / "docker")
    place = tmp_path / "engine.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(place))
        listening.listen()
        os.chown(place, 65534, 65534)
        place.chmod(0o600)
        rightless = f"{setpriv} --bounding-set=-all --inh-caps=-all {tmp_path}/docker"
        client.install("docker", f'#!/bin/sh\nexec {rightless} "$@"\n')
        found = client.doctor(DOCKER_HOST=f"unix://{place}", code=1)
    assert "permission denied" in found["docker"]["text"]
    assert found["docker"]["fix"].startswith('sudo usermod -aG docker "$USER"')


def test_an_engine_that_hangs(bare: Machine) -> None:
    bare.install("docker", "#!/bin/sh\nexec /bin/sleep 60\n")
    found = bare.doctor(code=1)
    assert found["docker"]["text"] == "no answer in 10 s"
    assert found["docker"]["fix"] == "sudo systemctl restart docker"


@pytest.mark.parametrize(
    ("version", "state", "says"),
    [
        ("20.10.7", "warn", "keeps images with glibc 2.34 or later from starting threads"),
        ("24.0.7", "warn", "building takes 25 or later"),
        ("28.2.2", "ok", "the engine answers: Docker 28.2.2"),
    ],
)
def test_an_engine_s_age(bare: Machine, version: str, state: str, says: str) -> None:
    bare.install("docker", ANSWERS.format(version=version, info="{}"))
    found = bare.doctor()["docker"] if state == "ok" else bare.doctor(code=1)["docker"]
    assert (found["state"], says in found["text"]) == (state, True)


def test_what_builds(working: Machine) -> None:
    (Path(working.environment["HOME"]) / ".docker/cli-plugins/docker-buildx").unlink()
    if any(Path("/usr").glob("l*/docker/cli-plugins/docker-buildx")):
        pytest.skip("this machine's docker has a buildx")
    found = working.doctor(code=1)["buildx"]
    assert found["state"] == "fail"
    assert "docker-buildx-plugin" in found["fix"]


def test_a_builder_that_is_named_and_not_there(working: Machine) -> None:
    found = working.doctor(CURATOR_BUILDER="mine", code=1)["buildx"]
    assert "CURATOR_BUILDER names mine" in found["text"]
    assert "docker buildx create --name mine " in found["fix"]


def test_an_image_store_that_exports_nothing(bare: Machine) -> None:
    info = '{"DriverStatus": [["Backing Filesystem", "extfs"]]}'
    bare.install("docker", ANSWERS.format(version="28.2.2", info=info))
    found = bare.doctor(code=1)["buildx"]
    assert "exports no OCI layouts" in found["text"]
    assert "containerd-snapshotter" in found["fix"]


# GPUs


def test_a_gpu_without_a_driver(tmp_path: Path, bare: Machine) -> None:
    device = tmp_path / "root/sys/bus/pci/devices/0000:01:00.0"
    device.mkdir(parents=True)
    (device / "vendor").write_text("0x10de\n")
    (device / "class").write_text("0x030200\n")
    found = looked(bare, root=tmp_path / "root")
    assert found["driver"].state == "fail"
    assert "no driver that works" in found["driver"].text
    (device / "vendor").write_text("0x1002\n")
    assert looked(bare, root=tmp_path / "root")["driver"].state == "skip"
    (tmp_path / "root/dev").mkdir()
    (tmp_path / "root/dev/dxg").touch()
    assert "wsl --update" in looked(bare, root=tmp_path / "root")["driver"].fix


def looked(machine: Machine, **options: Any) -> Mapping[str, Finding]:
    """Return what the checks say, in this process."""
    cache = Path(machine.environment["CURATOR_CACHE"])
    look = Look(environ=machine.environment, cache=cache, **options)
    return {finding.name: finding for finding in checks(look)}


@pytest.mark.parametrize(
    ("more", "state", "says"),
    [
        ({}, "ok", "driver 580.95.05: H200 (sm_90), GeForce RTX 4090 (sm_89)"),
        ({"NVML_GPUS": ""}, "fail", "driver 580.95.05 sees no GPU"),
        ({"NVML_LOST": "0"}, "fail", "GPU 0 does not answer; others: GeForce RTX 4090 (sm_89)"),
        ({"NVML_FAULT": "9"}, "fail", "the NVIDIA driver is installed but fails"),
        ({"NVML_FAULT": "18"}, "fail", "version mismatch"),
        ({"CURATOR_OVERRIDE_GPU": "T4"}, "ok", "H200"),
    ],
)
def test_drivers(bare: Machine, library: Path, more: dict[str, str], state: str, says: str) -> None:
    with_gpus(bare, library, "NVIDIA H200/9.0", "NVIDIA GeForce RTX 4090/8.9")
    found = bare.doctor(code=1, **more)["driver"]
    assert (found["state"], says in found["text"]) == (state, True), found
    assert ("reboot" in found["fix"]) == bool(more.keys() & {"NVML_FAULT", "NVML_LOST"})


def test_an_engine_without_the_toolkit_says_so_itself(working: Machine, library: Path) -> None:
    found = with_gpus(working, library, "NVIDIA H200/9.0").doctor(code=1)
    assert found["container toolkit"]["state"] == "fail"
    tried = found["GPU in a container"]
    assert 'could not select device driver "" with capabilities: [[gpu]]' in tried["text"]
    assert "nvidia-container-toolkit" in tried["fix"]
    assert left(working) == []


def left(machine: Machine) -> list[str]:
    """Return the containers and images that were tried and are still there."""
    shown = []
    for command in (("ps", "--all"), ("image", "ls")):
        done = subprocess.run(
            ["docker", *command],
            capture_output=True,
            text=True,
            check=True,
            env=machine.environment,
        )
        shown += [line for line in done.stdout.splitlines() if "curator-doctor" in line]
    return shown


PROGRAM = """#include <stdio.h>
int main(int count, char **words) {
    for (int i = 0; i < %d && count > 1 && words[1][1] == 'L'; i++)
        printf("GPU %%d: NVIDIA H200 (UUID: GPU-%%d)\\n", i, i);
    return 0;
}
"""


@pytest.fixture
def specified(
    client: Machine,
    cdi_engine: EngineAddress,
    library: Path,
    tmp_path: Path,
) -> Iterator[Machine]:
    """A machine with a GPU, whose engine gives containers one by CDI, and an `nvidia-smi`."""
    assert cdi_engine.host is not None
    client.environment["DOCKER_HOST"] = cdi_engine.host
    info = subprocess.run(
        ["docker", "info", "--format", "{{json .CDISpecDirs}}"],
        capture_output=True,
        text=True,
        check=True,
        env=client.environment,
    )
    source, program = tmp_path / "smi.c", tmp_path / "nvidia-smi"
    source.write_text(PROGRAM % 1)
    subprocess.run(["cc", "-o", program, source], check=True)
    options = ["ro", "nosuid", "nodev", "bind"]
    mount = {"hostPath": str(program), "containerPath": "/usr/bin/nvidia-smi", "options": options}
    specification = {
        "cdiVersion": "0.6.0",
        "kind": "nvidia.com/gpu",
        "devices": [{"name": "all", "containerEdits": {"mounts": [mount]}}],
    }
    file = Path(json.loads(info.stdout)[0]) / "all.json"
    file.write_text(json.dumps(specification))
    yield with_gpus(client, library, "NVIDIA H200/9.0")
    file.unlink()


def test_a_container_that_has_the_gpus(specified: Machine) -> None:
    found = specified.doctor()
    assert found["container toolkit"]["text"].startswith("docker has CDI (")
    assert found["GPU in a container"] == {
        "name": "GPU in a container",
        "state": "ok",
        "text": "a container has 1 of them",
        "fix": "",
    }
    assert left(specified) == []


def test_a_container_that_has_fewer(specified: Machine) -> None:
    found = specified.doctor(NVML_GPUS="NVIDIA H200/9.0;NVIDIA H200/9.0")["GPU in a container"]
    assert (found["state"], found["text"]) == ("warn", "a container has 1 of 2 GPUs")


def test_a_specification_that_is_out_of_date(specified: Machine, tmp_path: Path) -> None:
    (tmp_path / "nvidia-smi").rename(tmp_path / "gone")
    found = specified.doctor(code=1)["GPU in a container"]
    assert str(tmp_path / "nvidia-smi") in found["text"]
    assert found["fix"] == "sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"


# Room


def test_a_full_disk(bare: Machine, small_disk: Path) -> None:
    found = bare.doctor(CURATOR_CACHE=str(small_disk / "cache"), code=1)["cache's disk"]
    assert found["state"] == "fail"
    assert found["text"] == f"2 MiB free at {small_disk}/cache: less than 1.0 GiB"
    assert "CURATOR_CACHE" in found["fix"]


def test_a_full_disk_of_the_engine_s(bare: Machine, small_disk: Path) -> None:
    info = json.dumps({"DockerRootDir": str(small_disk), "Name": socket.gethostname()})
    bare.install("docker", ANSWERS.format(version="28.2.2", info=info))
    found = bare.doctor(code=1)["docker's disk"]
    assert found["text"] == f"2 MiB free at {small_disk}: less than 10.0 GiB"
    assert "docker system prune" in found["fix"]


def test_an_engine_elsewhere_has_its_disk_there(bare: Machine, small_disk: Path) -> None:
    info = json.dumps({"DockerRootDir": str(small_disk), "Name": "elsewhere"})
    bare.install("docker", ANSWERS.format(version="28.2.2", info=info))
    assert bare.doctor(code=1)["docker's disk"]["state"] == "skip"


def test_a_disk_without_files_left(bare: Machine, small_disk: Path) -> None:
    remount = ["mount", "-o", "remount,size=8g,nr_inodes=400", str(small_disk)]
    subprocess.run(remount, check=True)
    for number in range(398):
        (small_disk / f"{number}").touch()
    found = bare.doctor(CURATOR_CACHE=str(small_disk), code=1)["cache's disk"]
    assert (found["state"], "files more fit" in found["text"]) == ("fail", True)


@pytest.mark.parametrize(
    ("script", "state", "says"),
    [
        ("mount -t tmpfs -o size=64m shm /dev/shm", "warn", "64 MiB in /dev/shm"),
        ("mount -t tmpfs -o size=2g shm /dev/shm", "ok", "2.0 GiB in /dev/shm"),
        ("mount -t tmpfs none /dev", "fail", "there is no /dev/shm"),
    ],
)
def test_shared_memory(bare: Machine, script: str, state: str, says: str) -> None:
    if os.geteuid():
        pytest.skip("only root mounts")
    done = subprocess.run(
        [*machines.changed(script, own="mount"), sys.executable, "-c", VERB, "--json", "doctor"],
        cwd=bare.folder,
        capture_output=True,
        text=True,
        check=False,
        env={**bare.environment, "PATH": os.environ["PATH"], "DOCKER_HOST": NOBODY},
    )
    items = json.loads(done.stdout)["data"]["checks"]
    found = next(item for item in items if item["name"] == "shared memory")
    assert (found["state"], found["text"].startswith(says)) == (state, True), found
    assert bool(found["fix"]) == (state != "ok")


# Places


def test_a_registry_that_answers(bare: Machine, registry_address: str) -> None:
    found = bare.doctor("--registry", f"{registry_address}/dl", code=1)["registry"]
    assert found["text"] == f"{registry_address}/dl answers, and lets us read"
    assert bare.doctor(code=1, CURATOR_REGISTRY=registry_address)["registry"]["state"] == "ok"


def test_a_registry_that_wants_a_login(bare: Machine, registry_address: str) -> None:
    with TokenProxy(registry_address, logins={"ada": "a secret"}) as proxy:
        place = proxy.address
        found = bare.doctor("--registry", place, code=1)["registry"]
        assert (found["state"], found["fix"]) == ("fail", f"docker login {place}")
        config = Path(bare.environment["HOME"]) / ".docker"
        config.mkdir()
        login = {"auths": {place: {"auth": "YWRhOmEgc2VjcmV0"}}}
        (config / "config.json").write_text(json.dumps(login))
        found = bare.doctor("--registry", place, code=1)["registry"]
        assert found["state"] == "ok"
        assert all(request.split()[0] in {"GET", "HEAD", "POST"} for request in proxy.asked)


@pytest.mark.parametrize(
    ("status", "headers", "fix"),
    [
        (401, {"WWW-Authenticate": 'Basic realm="here"'}, "docker login "),
        (403, {}, "docker login "),
        (500, {}, "is it up"),
        (400, {}, "see the message"),
    ],
)
def test_a_registry_that_refuses(
    bare: Machine, status: int, headers: dict[str, str], fix: str
) -> None:
    with FaultProxy(plan=lambda _: answer(status, headers=headers)) as proxy:
        found = bare.doctor("--registry", proxy.address, code=1)["registry"]
        assert {request.split()[0] for request in proxy.asked} == {"GET"}
    assert found["state"] == "fail"
    assert found["fix"].startswith(fix)


def test_a_registry_that_is_not_there(bare: Machine) -> None:
    found = bare.doctor("--registry", "127.0.0.1:1", code=1)["registry"]
    assert "no answer from 127.0.0.1:1" in found["text"]
    assert "127.0.0.1:1" in found["fix"]
    for name, fix in (
        ("UPPER case", "write host[:port][/prefix]"),
        ("https://x.example/dl", "leave https:// out"),
    ):
        named = bare.doctor("--registry", name, code=1)["registry"]
        assert named["state"] == "fail"
        assert fix in named["fix"]


def test_a_store_and_its_index(bare: Machine, tmp_path: Path) -> None:
    store = tmp_path / "store"
    found = bare.doctor("--store", str(store), code=1)
    assert (found["store"]["state"], "index" in found) == ("warn", False)
    farm = Farm(tmp_path)
    farm.publish(farm.change(), now=now())
    found = bare.doctor("--store", str(store), code=1)
    assert found["store"]["state"] == "ok"
    assert found["index"]["text"].startswith("generation 1 with 1 entries")
    for document in (store / "v1").rglob("*/*.json"):
        document.write_bytes(document.read_bytes()[:-1])
    found = bare.doctor("--store", str(store), code=1)
    assert found["index"]["state"] == "fail"
    assert found["index"]["fix"] == f"curator index verify --store {store}"


def test_a_store_that_is_none(bare: Machine, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    found = bare.doctor("--store", str(tmp_path / "empty"), code=1)
    assert found["index"]["text"] == "nothing is published there yet"
    found = bare.doctor("--store", "azure:curator", code=1)
    assert (found["store"]["state"], "index" in found) == ("fail", False)
    assert "AZURE_STORAGE_CONNECTION_STRING" in found["store"]["fix"]
    found = bare.doctor("--store", "ftp://x", code=1)
    assert "https://ACCOUNT.blob.core.windows.net/CONTAINER" in found["store"]["fix"]


# The verb


def test_what_people_read(bare: Machine) -> None:
    done = bare.run("doctor")
    lines = done.stdout.splitlines()
    assert lines[0] == "fail  docker: there is no docker program on PATH"
    assert lines[1].startswith("      -> install Docker 25 or later")
    assert lines[-1].startswith("Doctor: ")
    assert done.returncode == 1


def test_in_a_farm_its_settings_are_looked_at(bare: Machine, tmp_path: Path) -> None:
    farm = tmp_path / "farm"
    shutil.copytree(ROOT / "matrix", farm / "matrix")
    shutil.copytree(ROOT / "dockerfiles", farm / "dockerfiles")
    here = Machine(environment=bare.environment, folder=farm)
    found = here.doctor(code=1)
    assert found["store"]["text"].startswith("there is no directory ")
