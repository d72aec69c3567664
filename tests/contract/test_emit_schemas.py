"""Emitted documents, held against the readers and schemas that their formats' owners publish."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from curator.emit import emit
from tests.images import PYTORCH_124, PYTORCH_130, host, image, label

if TYPE_CHECKING:
    from collections.abc import Iterator

    from curator.oci import Reference
    from curator.ports import EngineAddress

PROGRAMS = Path(sys.executable).parent
# Each in an environment of its own, which uv keeps: they are large, and hold back other packages.
KUBERNETES = "kubernetes-validate==1.37.0"
AZUREML = "azure-ai-ml==1.35.2"
# The last one for the node of Debian 12 and 13; those after it ask for node 20.
DEVCONTAINERS = "@devcontainers/cli@0.82.0"

WHY = 'tested 2026-11-22; ${HOME} # \u2028 "it\'s" {a: [b\n- c'
CASES = {
    "CUDA 13, two kinds of GPU": (
        image("pytorch", "2.9.1", label("13.0", PYTORCH_130, ("12.0",))),
        host("580.95.05", "A100", "RTX 4090"),
    ),
    "CUDA 12, unknown kernels": (image("cupy", "14.2.0", label("12.9", None)), host("535", "T4")),
    "a host of which little is known": (
        image("pytorch", "2.6.0", label("12.4", PYTORCH_124)),
        host(None, "A100", architecture="aarch64"),
    ),
    "texts of a hostile index": (
        replace(
            image("pytorch", "2.6.0", label("12.4", ("8.0",), floor="a: [${B}")),
            framework="$(id)\n# x", version='"1e3', cell="{{x}} ${{y}}", python="\x00\x1b\ufeff",
        ),
        host("535", "T4"),
    ),
}  # fmt: skip


def written(directory: Path, kind: str, name: str) -> list[Path]:
    """Write each case's document; return their paths."""
    paths = []
    for number, (known, machine) in enumerate(CASES.values()):
        path = directory / str(number) / name
        path.parent.mkdir(parents=True)
        reference = f"registry.example/dl/x:1@{known.digest}"
        path.write_text(emit(kind, image=known, reference=reference, host=machine, why=WHY))
        paths.append(path)
    return paths


def spoiled(path: Path, old: str, new: str) -> Path:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return path


def told(*command: str | Path, code: int = 0) -> str:
    """Run a command that exits with `code`; return all that it said."""
    result = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False, timeout=300
    )
    assert result.returncode == code, result.stdout + result.stderr
    return result.stdout + result.stderr


def isolated(package: str, *command: str | Path, code: int = 0) -> str:
    options = ("--python", sys.executable, "--from", package)
    return told(PROGRAMS / "uv", "tool", "run", *options, *command, code=code)


def test_the_compose_specification_takes_the_compose_file(tmp_path: Path) -> None:
    check = (PROGRAMS / "check-jsonschema", "--builtin-schema", "vendor.compose-spec")
    paths = written(tmp_path, "compose", "compose.yaml")
    told(*check, *paths)
    assert "capabilities" in told(*check, spoiled(paths[0], "capabilities", "able"), code=1)


@pytest.mark.parametrize("version", ["1.28", "1.37"])
def test_kubernetes_takes_the_pod(version: str, tmp_path: Path) -> None:
    check = ("kubernetes-validate", "--strict", "-k", version)
    paths = written(tmp_path, "k8s", "pod.yaml")
    isolated(KUBERNETES, *check, *paths)
    wrong = spoiled(paths[0], "sizeLimit", "size")
    assert "'size' was unexpected" in isolated(KUBERNETES, *check, wrong, code=1)


LOAD = """
import json, sys, warnings
warnings.simplefilter("ignore")
from azure.ai.ml import load_environment
for path in sys.argv[1:]:
    try:
        read = load_environment(path)
    except Exception as error:
        print(json.dumps([str(error)]))
    else:
        print(json.dumps([read.name, read.image, read.description, read.tags]))
"""


def test_azure_ml_reads_the_environment(tmp_path: Path) -> None:
    paths = written(tmp_path, "azureml", "environment.yaml")
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(paths[0].read_text())
    spoiled(wrong, "\nimage:", "\npicture:")
    output = isolated(AZUREML, "python", "-c", LOAD, *paths, wrong)
    *found, (refusal,) = (json.loads(x) for x in output.splitlines() if x.startswith("["))
    assert "Unknown field" in refusal
    for (_, place, description, tags), (known, _) in zip(found, CASES.values(), strict=True):
        assert place == f"registry.example/dl/x@{known.digest}"
        assert description.endswith(f". {WHY}")
        assert (tags["framework"], tags["cell"]) == (known.framework, known.cell)


def test_hadolint_takes_the_dockerfile(tmp_path: Path) -> None:
    paths = written(tmp_path, "dockerfile", "Dockerfile")
    assert told(PROGRAMS / "hadolint", *paths) == ""
    # With what its last line offers, too.
    tried = spoiled(paths[0], "# RUN pip install --no-cache-dir PACKAGE", "RUN pip install x==1")
    assert "DL3042" in told(PROGRAMS / "hadolint", tried, code=1)
    told(PROGRAMS / "hadolint", spoiled(tried, "install x", "install --no-cache-dir x"))


@pytest.mark.xdist_group("engine")
def test_an_engine_builds_the_dockerfile(
    engine_address: EngineAddress, base: Reference, tmp_path: Path
) -> None:
    known, machine = CASES["texts of a hostile index"]
    pinned = str(base)
    path = tmp_path / "Dockerfile"
    path.write_text(emit("dockerfile", image=known, reference=pinned, host=machine, why=WHY))
    build = (*engine_address.command, "buildx", "build")
    told(*build, "--load", "--tag", "curator-emit-test", tmp_path)
    look = ("image", "inspect", "--format", "{{json .Config.Labels}}", "curator-emit-test")
    labels = json.loads(told(*engine_address.command, *look))
    assert labels["org.opencontainers.image.base.name"] == pinned
    assert labels["org.opencontainers.image.base.digest"] == base.digest
    told(*engine_address.command, "image", "rm", "curator-emit-test")
    spoiled(path, "LABEL ", "LABLE ")
    assert "unknown instruction: LABLE" in told(*build, tmp_path, code=1)


@pytest.fixture
def container(engine_address: EngineAddress, base: Reference) -> Iterator[dict[str, Any]]:
    """What an engine makes of the command line, short of starting it: that takes a GPU."""
    known, machine = CASES["texts of a hostile index"]
    line = emit("docker", image=known, reference=str(base), host=machine, why=WHY)
    first, verb, *words = shlex.split(line)
    assert (first, verb) == ("docker", "run")
    told(*engine_address.command, "pull", str(base))
    # The name comes first: an engine may warn after it, of a network that forwards nothing, say.
    name = told(*engine_address.command, "create", *words, "true").split()[0]
    yield json.loads(told(*engine_address.command, "inspect", name))[0]
    told(*engine_address.command, "rm", name)


@pytest.mark.xdist_group("engine")
def test_an_engine_takes_the_command_line(
    container: dict[str, Any], engine_address: EngineAddress, base: Reference
) -> None:
    (request,) = container["HostConfig"]["DeviceRequests"]
    assert (request["Count"], request["Capabilities"]) == (-1, [["gpu"]])
    assert container["HostConfig"]["ShmSize"] == 8 * 1024**3
    assert container["HostConfig"]["AutoRemove"]
    assert container["Config"]["Tty"]
    assert container["Config"]["Image"] == str(base)
    wrong = ("create", "--gpus", "all", "--shm", "8g", str(base))
    assert "unknown flag" in told(*engine_address.command, *wrong, code=125)


@pytest.fixture(scope="module")
def devcontainer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference implementation of the Development Containers specification."""
    npm = shutil.which("npm")
    assert npm, "the specification's own reader needs npm"
    prefix = tmp_path_factory.mktemp("devcontainers")
    options = ("--no-save", "--no-audit", "--no-fund", "--ignore-scripts")
    told(npm, "install", "--prefix", prefix, *options, DEVCONTAINERS)
    return prefix / "node_modules" / ".bin" / "devcontainer"


def test_the_devcontainer_cli_reads_the_document(devcontainer: Path, tmp_path: Path) -> None:
    paths = written(tmp_path, "devcontainer", ".devcontainer.json")
    for path, (known, _) in zip(paths, CASES.values(), strict=True):
        # It asks the engine for running containers: `true` knows none.
        read = ("read-configuration", "--docker-path", "true", "--workspace-folder", path.parent)
        output = told(devcontainer, *read)
        found = json.loads(next(line for line in output.splitlines() if line.startswith("{")))
        configuration = found["configuration"]
        assert configuration.pop("configFilePath")["path"] == str(path)
        assert "$" not in configuration.pop("name")
        assert configuration == {
            "image": f"registry.example/dl/x:1@{known.digest}",
            "runArgs": ["--gpus", "all", "--shm-size=8g"],
        }


def test_the_devcontainer_cli_refuses_what_is_none(devcontainer: Path, tmp_path: Path) -> None:
    """It reads anything, so what is wrong shows when it is brought up."""
    path = spoiled(written(tmp_path, "devcontainer", ".devcontainer.json")[0], '"image"', '"imag"')
    up = ("up", "--docker-path", "true", "--workspace-folder", path.parent)
    assert 'missing one of "image"' in told(devcontainer, *up, code=1)


@pytest.mark.xdist_group("engine")
def test_the_devcontainer_cli_asks_the_engine_for_the_gpu(
    devcontainer: Path, engine_address: EngineAddress, base: Reference, tmp_path: Path
) -> None:
    """Up to the start, which takes a GPU: the engine gets the flags as they are meant."""
    known, machine = CASES["CUDA 12, unknown kernels"]
    path = tmp_path / ".devcontainer.json"
    path.write_text(emit("devcontainer", image=known, reference=str(base), host=machine, why=WHY))
    docker = tmp_path / "docker"
    docker.write_text(f'#!/bin/sh\nexec {shlex.join(engine_address.command)} "$@"\n')
    docker.chmod(0o755)
    subprocess.run(
        [devcontainer, "up", "--docker-path", docker, "--workspace-folder", tmp_path],
        capture_output=True,
        check=False,
        timeout=300,
    )
    mine = ("--filter", f"label=devcontainer.local_folder={tmp_path}")
    (name,) = told(*engine_address.command, "ps", "--all", "--quiet", *mine).split()
    made = json.loads(told(*engine_address.command, "inspect", name))[0]
    told(*engine_address.command, "rm", "--force", name)
    assert made["Config"]["Image"] == str(base)
    assert made["HostConfig"]["ShmSize"] == 8 * 1024**3
    (request,) = made["HostConfig"]["DeviceRequests"]
    assert request["Capabilities"] == [["gpu"]]
