"""GPUs of runs, on machines whose driver is made up: the asked-for devices and nothing more."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from curator.errors import HostError, InputError
from curator.ports import EngineAddress
from curator.provision import _processes
from curator.registry import HttpRegistry
from curator.runner import BundleRunner, DockerRunner, Slots
from curator.runner._driver import LIBRARIES, Host
from tests import bundles, machines
from tests.runners import listed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from curator.oci import Digest
    from curator.smoke import ProbeRun

VERSION = "580.159.04"
GPUS = ("GPU-00000000-aaaa", "GPU-11111111-bbbb")
NULL = os.makedev(1, 3)

LOOK = f"""
import json, os
def read(path):
    return open(path).read() if os.path.isfile(path) else None
def kept(path):
    try:
        open(path, "a").close()
    except OSError:
        return True
    return False
folder = {LIBRARIES!r}
names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
nodes = sorted(name for name in os.listdir("/dev") if name.startswith("nvidia"))
for node in nodes:
    os.write(os.open("/dev/" + node, os.O_RDWR), b"opened")
print(json.dumps({{
    "nodes": nodes,
    "libraries": {{name: read(os.path.join(folder, name)) for name in names}},
    "read only": all(kept(os.path.join(folder, name)) for name in names),
    "path": os.environ.get("LD_LIBRARY_PATH"),
    "spec": os.environ.get("FROM_SPEC"), "mounted": read("/opt/mounted"),
}}))
"""


@dataclass(frozen=True, slots=True)
class Machine:
    """A made-up machine with two GPUs below a directory."""

    path: Path

    @property
    def host(self) -> Host:
        return Host(
            proc=self.path / "proc",
            devices=self.path / "dev",
            specifications=(self.path / "cdi",),
            libraries=(self.path / "old", self.path / "lib"),
        )

    def library(self, name: str, *, folder: str = "lib", version: str = VERSION) -> None:
        """Put a library there, with the name that it is asked for by."""
        stem = name.partition(".so")[0]
        real = self.path / folder / f"{stem}.so.{version}"
        real.parent.mkdir(exist_ok=True)
        real.write_text(f"{stem} {version}")
        if not name.endswith(".so"):
            (real.parent / name).symlink_to(real.name)

    def specify(self, name: str, devices: dict[str, Any], **edits: Any) -> None:
        """Write a CDI specification: YAML, of which JSON is a part."""
        document = {
            "cdiVersion": "0.6.0",
            "kind": "nvidia.com/gpu",
            "devices": [{"name": key, "containerEdits": value} for key, value in devices.items()],
            "containerEdits": edits,
        }
        (self.path / "cdi").mkdir(exist_ok=True)
        (self.path / "cdi" / name).write_text(json.dumps(document))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path / "machine")
    for number, gpu in enumerate(GPUS):
        place = made.path / "proc" / "gpus" / f"0000:0{number}:00.0"
        place.mkdir(parents=True)
        text = f"Model: \t\t Made Up\nGPU UUID: \t {gpu}\nDevice Minor: \t {1 - number}\n"
        (place / "information").write_text(text)
    kernel = f"NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {VERSION}  Release Build\n"
    (made.path / "proc" / "version").write_text(kernel)
    (made.path / "dev").mkdir()
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "nvidia-uvm-tools"):
        os.mknod(made.path / "dev" / name, stat.S_IFCHR | 0o666, NULL)
        (made.path / "dev" / name).chmod(0o666)
    for name in ("libcuda.so.1", "libnvidia-ml.so.1", "libnvidia-ptxjitcompiler.so.1"):
        made.library(name)
        made.library(name, folder="old", version="550.1.2")
    made.library("libnvidia-gpucomp.so")
    return made


@pytest.fixture(scope="module")
def image(base_layout: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Digest]:
    layout = tmp_path_factory.mktemp("images") / "python"
    return layout, bundles.python_image(base_layout, layout)


@pytest.fixture(params=["crun", "runc"])
def runner(
    request: pytest.FixtureRequest,
    programs: Path,
    image: tuple[Path, Digest],
    machine: Machine,
    tmp_path: Path,
) -> BundleRunner:
    runc = programs / "engine" / "prefix" / "usr" / "sbin" / "runc"
    return BundleRunner(
        image[0],
        tmp_path / "work",
        slots=Slots(tmp_path / "slots", GPUS),
        runtime=str(bundles.crun(programs) if request.param == "crun" else runc),
        host=machine.host,
    )


def look(runner: BundleRunner, image: tuple[Path, Digest], gpus: int) -> tuple[ProbeRun, Any]:
    run = runner.run(bundles.reference(image[1]), LOOK, gpus=gpus, timeout_s=60)
    assert (run.exit_code, run.stderr, run.failure) == (0, "", None)
    return run, json.loads(run.stdout)


def test_a_run_sees_its_own_gpu_and_this_drivers_libraries(
    runner: BundleRunner, image: tuple[Path, Digest]
) -> None:
    run, told = look(runner, image, 1)
    assert run.gpus == GPUS[:1]
    assert told["nodes"] == ["nvidia-uvm", "nvidia-uvm-tools", "nvidia1", "nvidiactl"]
    stems = ("libcuda", "libnvidia-gpucomp", "libnvidia-ml", "libnvidia-ptxjitcompiler")
    assert told["libraries"] == {
        **{f"{stem}.so.{VERSION}": f"{stem} {VERSION}" for stem in stems},
        **{f"{stem}.so.1": f"{stem} {VERSION}" for stem in stems if "gpucomp" not in stem},
    }
    assert told["read only"]
    assert told["path"] == LIBRARIES


def test_several_gpus_are_given_together(runner: BundleRunner, image: tuple[Path, Digest]) -> None:
    run, told = look(runner, image, 2)
    assert run.gpus == GPUS
    assert {"nvidia0", "nvidia1"} <= set(told["nodes"])


def test_who_asked_for_none_sees_none(runner: BundleRunner, image: tuple[Path, Digest]) -> None:
    run, told = look(runner, image, 0)
    assert run.gpus == ()
    assert (told["nodes"], told["libraries"], told["path"]) == ([], {}, None)


def test_the_images_own_library_path_comes_first(
    runner: BundleRunner, image: tuple[Path, Digest], tmp_path: Path
) -> None:
    layout = tmp_path / "layout"
    shutil.copytree(image[0], layout)
    manifest = json.loads(bundles.blob(layout, image[1]).read_text())
    config = json.loads(bundles.blob(layout, manifest["config"]["digest"]).read_text())
    config["config"]["Env"].append("LD_LIBRARY_PATH=/own/lib")
    kind = manifest["config"]["mediaType"]
    manifest["config"] = bundles.put(layout, json.dumps(config).encode(), kind).to_json()
    digest = bundles.put(layout, json.dumps(manifest).encode(), manifest["mediaType"]).digest
    _, told = look(replace(runner, source=layout), (layout, digest), 1)
    assert told["path"] == f"/own/lib:{LIBRARIES}"


def test_a_specification_is_used_where_there_is_one(
    runner: BundleRunner, image: tuple[Path, Digest], machine: Machine, tmp_path: Path
) -> None:
    (machine.path / "mounted").write_text("by the specification")
    hook = tmp_path / "hook"
    hook.write_text(f"#!/bin/sh\n(cat; echo; echo $1) > {tmp_path}/state\n")
    hook.chmod(0o755)
    node = {"path": "/dev/nvidia-spec", "hostPath": str(machine.path / "dev/nvidia1")}
    machine.specify(
        "nvidia.yaml",
        {"all": {"deviceNodes": [node, node]}, GPUS[0]: {"deviceNodes": [node]}},
        env=["FROM_SPEC=yes"],
        mounts=[
            {
                "hostPath": str(machine.path / "mounted"),
                "containerPath": "/opt/mounted",
                "options": ["rw", "nosuid", "bind"],
            }
        ],
        hooks=[{"hookName": "createContainer", "path": str(hook), "args": ["hook", "asked"]}],
    )
    _, told = look(runner, image, 1)
    assert (told["nodes"], told["spec"]) == (["nvidia-spec"], "yes")
    assert (told["mounted"], told["libraries"]) == ("by the specification", {})
    state, _, argument = (tmp_path / "state").read_text().strip().rpartition("\n")
    assert json.loads(state)["id"].startswith("run-")
    assert argument == "asked"


def test_a_specification_by_number_is_found_by_the_device_file(
    runner: BundleRunner, image: tuple[Path, Digest], machine: Machine
) -> None:
    nodes = {
        str(number): {
            "deviceNodes": [
                {"path": f"/dev/nvidia{number}", "hostPath": str(machine.path / "dev/nvidiactl")}
            ]
        }
        for number in (0, 1)
    }
    every = {"deviceNodes": [node for edits in nodes.values() for node in edits["deviceNodes"]]}
    machine.specify("nvidia.json", {"all": every, **nodes}, env=["FROM_SPEC=numbered"])
    _, told = look(runner, image, 1)
    assert (told["nodes"], told["spec"]) == (["nvidia1"], "numbered")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "kind: nvidia.com/gpu", "kind: other/thing", "&a [*a]"]
)
def test_what_is_no_specification_is_passed_over(machine: Machine, text: str) -> None:
    (machine.path / "cdi").mkdir()
    (machine.path / "cdi" / "broken.yaml").write_text(text)
    assert machine.host.access(GPUS[:1]).library_path == LIBRARIES


def test_a_specification_whose_program_is_missing_is_of_no_use(machine: Machine) -> None:
    hook = {"hookName": "createContainer", "path": "/nonexistent/nvidia-cdi-hook"}
    machine.specify("nvidia.json", {GPUS[0]: {}}, hooks=[hook], env=["FROM_SPEC=yes"])
    assert machine.host.access(GPUS[:1]).library_path == LIBRARIES


@pytest.mark.parametrize(
    ("missing", "told"),
    [
        ("proc/gpus", "knows no GPU GPU-00000000-aaaa"),
        ("dev/nvidia1", "dev/nvidia1 is missing"),
        ("dev/nvidia-uvm", "run `nvidia-modprobe"),
        ("lib/libcuda.so.1", f"no libcuda.so.1 of the driver {VERSION}"),
        ("lib/libnvidia-ml.so.1", "has no libnvidia-ml.so.1"),
    ],
)
def test_a_lack_is_named(machine: Machine, missing: str, told: str) -> None:
    place = machine.path / missing
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    with pytest.raises(HostError, match=told):
        machine.host.access(GPUS[:1])


def test_gpus_without_slots_are_the_hosts_lack(
    runner: BundleRunner, image: tuple[Path, Digest]
) -> None:
    with pytest.raises(HostError, match="this runner has none"):
        replace(runner, slots=None).run(bundles.reference(image[1]), "pass", gpus=1, timeout_s=60)


# Where a machine lacks something, a container runs without it.

UNPIVOTABLE = """#!/bin/sh
for word in "$@"; do
  [ "$word" = --no-pivot ] && exec {runtime} "$@"
  [ "$last" = --log ] && log="$word"
  last="$word"
done
case "$*" in *" delete "*) exec {runtime} "$@";; esac
echo '{{"level":"error","msg":"pivot_root: Device or resource busy"}}' > "$log"
exit 1
"""


def test_a_root_that_cannot_be_pivoted_is_entered_otherwise(
    runner: BundleRunner, image: tuple[Path, Digest], tmp_path: Path
) -> None:
    program = tmp_path / Path(str(runner.runtime)).name
    program.write_text(UNPIVOTABLE.format(runtime=runner.runtime))
    program.chmod(0o755)
    run, told = look(replace(runner, runtime=str(program)), image, 1)
    assert (run.exit_code, len(told["nodes"])) == (0, 4)


@pytest.mark.parametrize(
    "script", ["umount -R /sys/fs/cgroup", "mount -t tmpfs none /sys/fs/cgroup"]
)
def test_control_groups_are_not_essential(
    programs: Path, image: tuple[Path, Digest], tmp_path: Path, script: str
) -> None:
    spec = {
        "image": str(bundles.reference(image[1])),
        "layout": str(image[0]),
        "work": str(tmp_path / "work"),
        "runtime": str(bundles.crun(programs)),
        "slots": str(tmp_path),
        "gpus": [],
    }
    call = [*machines.changed(script, own="mount"), *("python", "-m", "tests.runners")]
    result = subprocess.run(
        [*call, json.dumps(spec), "print('ran')"],
        cwd=machines.ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    told = json.loads(result.stdout)
    assert (told["exit_code"], told["stdout"], told["failure"]) == (0, "ran\n", None)


# Engines that speak CDI; the specification gives a variable, for there is no GPU.


@pytest.fixture(scope="module")
def cdi_engine(programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineAddress]:
    """An engine of its own, for CDI is turned on when one starts."""
    place = tmp_path_factory.mktemp("cdi")
    prefix = programs / "engine" / "prefix"
    edits = {gpu: {"env": [f"FROM_SPEC={gpu}"]} for gpu in GPUS}
    Machine(place).specify("nvidia.json", edits)
    run = Path("/run") / f"curator-{os.getpid()}"
    config = place / "daemon.json"
    document = {
        "bridge": "none",
        "cdi-spec-dirs": [str(place / "cdi")],
        "data-root": str(place / "data"),
        "exec-root": str(run),
        "experimental": True,
        "features": {"cdi": True, "containerd-snapshotter": True},
        "hosts": [f"unix://{run / 'docker.sock'}"],
        "ip-forward": False,
        "ip6tables": False,
        "iptables": False,
        "pidfile": str(run / "docker.pid"),
    }
    run.mkdir()
    config.write_text(json.dumps(document))
    paths = ":".join([f"{prefix}/usr/bin", f"{prefix}/usr/sbin", "/usr/sbin:/usr/bin:/sbin:/bin"])
    daemon = _processes.start(
        [str(prefix / "usr/sbin/dockerd"), "--config-file", str(config)],
        log=place / "log",
        environment={**os.environ, "PATH": paths},
    )
    host, client = f"unix://{run / 'docker.sock'}", str(prefix / "usr/bin/docker")
    address = EngineAddress(docker=client, kind="embedded", host=host)
    ask = [*address.command, "info"]
    try:
        _processes.wait_until(
            lambda: (
                b"Server Version" in subprocess.run(ask, capture_output=True, check=False).stdout
            ),
            daemon,
            place / "log",
            what="the engine",
        )
        yield address
    finally:
        _processes.stop(config)
        machines.clear(run)
        machines.clear(place)


@pytest.mark.parametrize("count", [1, 2])
def test_an_engine_that_speaks_cdi_is_asked_by_name(
    cdi_engine: EngineAddress,
    registry_address: str,
    image: tuple[Path, Digest],
    tmp_path: Path,
    count: int,
) -> None:
    target = bundles.reference(image[1], registry_address)
    HttpRegistry().push(image[0], target.with_tag("one"))
    runner = DockerRunner(cdi_engine, slots=Slots(tmp_path, GPUS))
    program = "import os; print(os.environ['FROM_SPEC'], os.environ['NVIDIA_VISIBLE_DEVICES'])"
    run = runner.run(target, program, gpus=count, timeout_s=60)
    assert (run.failure, run.stdout) == (None, f"{GPUS[count - 1]} void\n")
    assert run.gpus == GPUS[:count]


def test_a_context_leads_to_an_engine(
    engine_address: EngineAddress,
    registry_address: str,
    image: tuple[Path, Digest],
    tmp_path: Path,
) -> None:
    if engine_address.host is None:
        pytest.fail("this test is for an engine at an address of its own")
    target = bundles.reference(image[1], registry_address)
    HttpRegistry().push(image[0], target.with_tag("one"))
    plain = EngineAddress(docker=engine_address.docker, kind="system", config=str(tmp_path))
    listed(asdict(plain), "context", "create", "far", "--docker", f"host={engine_address.host}")
    runner = DockerRunner(replace(plain, context="far"))
    run = runner.run(target, "print('there')", gpus=0, timeout_s=60)
    assert (run.failure, run.stdout) == (None, "there\n")
    nowhere = DockerRunner(replace(plain, context="nowhere"))
    assert nowhere.run(target, "print()", gpus=0, timeout_s=60).failure is not None


def test_an_engine_has_one_address() -> None:
    with pytest.raises(InputError, match="name one"):
        EngineAddress(docker="docker", kind="system", host="unix:///a", context="b")
