"""The facts of a machine, by a small `nvidia-smi` that answers as NVIDIA's does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from curator import resolve
from curator.errors import HostError
from curator.host import host_facts
from curator.resolve import Host
from curator.smoke import Gpu

ROOT = Path(__file__).parent.parent.parent
TWO = """\
NVIDIA H200, GPU-0f6b2c4e, 9.0, 143771, 580.95.05
NVIDIA A100-SXM4-80GB, GPU-5d3c1a7b, 8.0, 81920, 580.95.05
"""


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose only programs are those that a test puts there."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def nvidia_smi(tools: Path, prints: str, *, status: int = 0) -> None:
    """Install one that answers the query this package makes, and no other."""
    query = "--query-gpu=name,uuid,compute_cap,memory.total,driver_version"
    form = "--format=csv,noheader,nounits"
    script = f"""#!/bin/sh
[ "$*" = "{query} {form}" ] || exit 2
echo '{prints.strip()}'
exit {status}
"""
    (tools / "nvidia-smi").write_text(script)
    (tools / "nvidia-smi").chmod(0o755)


@pytest.mark.usefixtures("tools")
def test_a_machine_without_a_driver_has_no_gpu() -> None:
    facts = host_facts()
    assert (facts.gpus, facts.driver) == ((), None)
    assert (facts.kernel, facts.architecture) == (os.uname().release, os.uname().machine)


def test_gpus_in_the_driver_s_order(tools: Path) -> None:
    nvidia_smi(tools, TWO)
    facts = host_facts()
    assert facts.driver == "580.95.05"
    assert facts.gpus == (
        Gpu(name="NVIDIA H200", uuid="GPU-0f6b2c4e", sm="9.0", memory_bytes=143771 * 1024**2),
        Gpu(
            name="NVIDIA A100-SXM4-80GB",
            uuid="GPU-5d3c1a7b",
            sm="8.0",
            memory_bytes=81920 * 1024**2,
        ),
    )


def test_a_driver_without_gpus(tools: Path) -> None:
    nvidia_smi(tools, "No devices were found")
    assert (host_facts().gpus, host_facts().driver) == ((), None)


@pytest.mark.parametrize("memory", ["[N/A]", "[Insufficient Permissions]", "[Not Supported]"])
def test_memory_that_is_not_told_is_not_known(memory: str, tools: Path) -> None:
    nvidia_smi(tools, f"NVIDIA GB10, GPU-1, 12.1, {memory}, 580.95.05")
    assert host_facts().driver == "580.95.05"
    assert host_facts().gpus == (Gpu(name="NVIDIA GB10", uuid="GPU-1", sm="12.1", memory_bytes=0),)


LOST = ", ".join(["[GPU is lost]"] * 5)


def test_a_lost_gpu_is_left_out_and_the_next_one_tells_the_driver(tools: Path) -> None:
    nvidia_smi(tools, f"{LOST}\n{TWO}")
    assert [gpu.uuid for gpu in host_facts().gpus] == ["GPU-0f6b2c4e", "GPU-5d3c1a7b"]
    assert host_facts().driver == "580.95.05"


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("NVIDIA A100, GPU-1, 8.0, 40000, [N/A]", r"says \[N/A\] for the driver's version"),
        ("NVIDIA A100, GPU-1, 8.0, 40000, [Unknown Error]", r"says \[Unknown Error\] for"),
        (LOST, r"no GPU that answers: it says \[GPU is lost\]"),
    ],
)
def test_what_nvidia_smi_says_in_place_of_an_answer_is_said(
    row: str, says: str, tools: Path
) -> None:
    nvidia_smi(tools, row)
    with pytest.raises(HostError, match=says):
        host_facts()


NO_CAPABILITY = (
    'case "$*" in *compute_cap*)'
    """ echo 'Field "compute_cap" is not a valid field to query.'; exit 2;; esac\n"""
)


def test_a_driver_without_compute_capabilities_is_asked_for_names(tools: Path) -> None:
    script = f"#!/bin/sh\n{NO_CAPABILITY}echo Tesla T4, GPU-1, 15109, 470.57.02\n"
    (tools / "nvidia-smi").write_text(script)
    (tools / "nvidia-smi").chmod(0o755)
    (found,) = host_facts().gpus
    assert (found.name, found.sm, host_facts().driver) == ("Tesla T4", "7.5", "470.57.02")


def test_a_driver_that_does_not_answer_is_said(tools: Path) -> None:
    nvidia_smi(tools, "NVIDIA-SMI has failed", status=9)
    with pytest.raises(HostError, match="check the driver"):
        host_facts()


# As the resolver sees it


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine of its own: programs on its PATH, libraries, and an environment."""

    folder: Path

    def look(self, **environment: str) -> Host:
        """Return what a process on it sees."""
        done = self._run(environment)
        assert done.returncode == 0, done.stderr
        return Host.from_json(json.loads(done.stdout))

    def fail(self, **environment: str) -> str:
        """Return the error that a process on it ends with."""
        done = self._run(environment)
        assert done.returncode, done.stdout
        return done.stderr.splitlines()[-1]

    def _run(self, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        program = "import json, os; from curator.host import this_host\n"
        program += "print(json.dumps(this_host(os.environ).to_json()))"
        own = {"PATH": str(self.folder), "LD_LIBRARY_PATH": str(self.folder), "HOME": "/"}
        return subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            env={**own, **environment},
        )

    def install(self, name: str, script: str) -> None:
        """Put a program on its PATH."""
        (self.folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.folder / name).chmod(0o755)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    (tmp_path / "machine").mkdir()
    return Machine(tmp_path / "machine")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A management library made of software, which `pynvml` loads as it loads NVIDIA's."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("a C compiler makes the library of these tests: install gcc or clang")
    made = tmp_path_factory.mktemp("nvml") / "libnvidia-ml.so.1"
    source = ROOT / "tests/data/gpu/nvml.c"
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", made, source], check=True)
    return made


@pytest.fixture
def with_driver(machine: Machine, library: Path) -> Machine:
    (machine.folder / library.name).symlink_to(library)
    return machine


HERE = os.uname().machine
MIXED = "NVIDIA A100-SXM4-80GB/8.0;NVIDIA GeForce RTX 4090/8.9"


def test_a_machine_with_nothing_on_it(machine: Machine) -> None:
    assert machine.look() == Host(architecture=HERE)


def test_the_driver_s_library_is_asked(with_driver: Machine) -> None:
    found = with_driver.look(NVML_GPUS=MIXED, NVML_DRIVER="535.54.03")
    gpus = (
        resolve.Gpu(name="A100", sm="8.0", kind="datacenter"),
        resolve.Gpu(name="GeForce RTX 4090", sm="8.9", kind="geforce"),
    )
    assert found == Host(driver="535.54.03", gpus=gpus, architecture=HERE)


def test_the_library_goes_before_the_program(with_driver: Machine) -> None:
    with_driver.install("nvidia-smi", "echo NVIDIA L4, 470.57.02, 8.9")
    assert with_driver.look(NVML_GPUS="NVIDIA H200/9.0").driver == "580.95.05"


def test_a_gpu_newer_than_the_facts_is_what_its_driver_says(with_driver: Machine) -> None:
    found = with_driver.look(NVML_GPUS="NVIDIA X900/13.0")
    assert found.gpus == (resolve.Gpu(name="NVIDIA X900", sm="13.0"),)


def test_a_lost_gpu_keeps_its_place(with_driver: Machine) -> None:
    found = with_driver.look(NVML_GPUS=MIXED, NVML_LOST="0")
    assert [gpu.sm for gpu in found.gpus] == [None, "8.9"]


def test_a_driver_without_gpus_makes_a_host_without(with_driver: Machine) -> None:
    none = Host(architecture=HERE)
    assert with_driver.look() == none
    assert with_driver.look(CURATOR_OVERRIDE_DRIVER="580") == none
    chosen = {"CURATOR_OVERRIDE_GPU": "none", "CURATOR_OVERRIDE_DRIVER": "580"}
    assert with_driver.look(NVML_GPUS=MIXED, **chosen) == none


def test_an_override_of_the_driver_alone_tells_no_gpu(machine: Machine) -> None:
    found = machine.look(CURATOR_OVERRIDE_DRIVER="580")
    assert found == Host(driver="580", architecture=HERE)


@pytest.mark.parametrize(
    ("fault", "says"), [("9", "Driver Not Loaded"), ("18", "NVML/RM version mismatch")]
)
def test_a_library_that_fails_is_said(with_driver: Machine, fault: str, says: str) -> None:
    said = with_driver.fail(NVML_FAULT=fault)
    assert "HostError: the NVIDIA driver is installed but fails" in said
    assert says in said
    with_driver.install("nvidia-smi", "echo 'NVIDIA-SMI has failed because'; exit 9")
    assert "nvidia-smi is there but fails (NVIDIA-SMI has failed because)" in with_driver.fail(
        NVML_FAULT=fault
    )


def test_without_the_library_the_program_is_asked(machine: Machine) -> None:
    machine.install("nvidia-smi", "echo NVIDIA GH200 480GB, 570.86.15, 9.0")
    found = machine.look()
    assert (found.driver, found.gpus[0].name, found.gpus[0].sm) == ("570.86.15", "GH200", "9.0")


def test_a_program_that_does_not_know_compute_capabilities(machine: Machine) -> None:
    machine.install("nvidia-smi", f"{NO_CAPABILITY}echo Tesla T4, 470.57.02")
    found = machine.look()
    assert (found.driver, found.gpus) == ("470.57.02", (resolve.gpu("T4"),))


def test_a_gpu_that_the_program_lost_keeps_its_place(machine: Machine) -> None:
    lost = "[GPU is lost], [GPU is lost], [GPU is lost]"
    machine.install("nvidia-smi", f"echo '{lost}'; echo NVIDIA A100, 580.95.05, 8.0")
    found = machine.look()
    assert (found.driver, [gpu.sm for gpu in found.gpus]) == ("580.95.05", [None, "8.0"])


def test_a_driver_whose_version_nobody_tells_is_said(machine: Machine) -> None:
    machine.install("nvidia-smi", "echo 'NVIDIA A100, [N/A], 8.0'")
    assert "HostError: nvidia-smi says [N/A] for the driver's version" in machine.fail()


def test_overrides_describe_another_machine(with_driver: Machine) -> None:
    chosen = {
        "CURATOR_OVERRIDE_DRIVER": "R535",
        "CURATOR_OVERRIDE_GPU": "a100, sm_90",
        "CURATOR_OVERRIDE_ARCH": "arm64",
    }
    found = with_driver.look(NVML_FAULT="9", **chosen)
    assert found == Host(
        driver="535", gpus=(resolve.gpu("A100"), resolve.Gpu(sm="9.0")), architecture="aarch64"
    )
    partly = with_driver.look(NVML_GPUS=MIXED, CURATOR_OVERRIDE_DRIVER="470.57.02")
    assert (partly.driver, len(partly.gpus)) == ("470.57.02", 2)
    none = with_driver.look(NVML_GPUS=MIXED, CURATOR_OVERRIDE_GPU="none")
    assert (none.driver, none.gpus) == (None, ())


@pytest.mark.parametrize(
    ("gpus", "architecture"),
    [("GH200", "aarch64"), ("T4G,T4G", "aarch64"), ("A100", "x86_64"), ("none", HERE)],
)
def test_an_override_of_gpus_has_their_architecture(
    machine: Machine, gpus: str, architecture: str
) -> None:
    assert machine.look(CURATOR_OVERRIDE_GPU=gpus).architecture == architecture
    chosen = {"CURATOR_OVERRIDE_GPU": gpus, "CURATOR_OVERRIDE_ARCH": "amd64"}
    assert machine.look(**chosen).architecture == "x86_64"


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("CURATOR_OVERRIDE_DRIVER", "12.4", "reads as a CUDA version"),
        ("CURATOR_OVERRIDE_GPU", "A100,RTX 6000", "say which"),
        ("CURATOR_OVERRIDE_ARCH", "sparc", "none of x86_64"),
    ],
)
def test_an_override_that_says_nothing_known(
    machine: Machine, name: str, value: str, says: str
) -> None:
    said = machine.fail(**{name: value})
    assert f"InputError: {name}: " in said
    assert says in said


def test_the_engine_s_version_is_a_fact_of_this_machine_alone(machine: Machine) -> None:
    machine.install("docker", """echo '{"Version": "28.2.2+dfsg1-1"}'""")
    assert machine.look().docker == "28.2.2"
    assert machine.look(CURATOR_OVERRIDE_GPU="T4").docker is None
    machine.install("docker", "echo null; echo 'Cannot connect to the Docker daemon' >&2; exit 1")
    assert machine.look().docker is None
