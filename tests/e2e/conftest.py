"""A small real farm: images of a few megabytes, built, tested and published for real."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from curator.cli._inputs import write
from curator.lock import lock
from curator.lockfile import parse_base
from curator.matrix import bases, candidates
from curator.recipe import base_key
from curator.registry import HttpRegistry
from curator.settings import read_tree
from tests.conftest import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from curator.ports import EngineAddress
    from curator.settings import Place

CUTOFF = "2026-11-22T00:00:00Z"

FARM = """\
epoch: 1700000000
jobs: 2
timeouts: {build: 300, smoke: 120, registry: 5}
demo: ["*"]
"""
TINY = """\
framework: tiny
package: six
module: six
bases: {"3.11": debian-12}
axes:
  version: ["1.16.0", "1.17.0"]
  cuda: ["12.9", "13.0"]
  python: ["3.11"]
  platform: [linux/amd64]
requirements: ["six=={version}", "cuda-toolkit[cudart]=={cuda_toolkit}", "pip==26.3"]
constrain: [six]
"""
PROBE = """\
def check_framework(expected):
    import six

    return {"version": six.__version__, "cuda": cuda_runtime()}


def check_cuda_tensor(expected):
    raise RuntimeError("there is nothing here that computes on a GPU")


def check_no_kernels(expected):
    # `six` has no GPU code; an image of a real framework would be refused for that.
    return {"cubin": ["7.5", "9.0"], "ptx": []}


CHECKS["framework"] = check_framework
CHECKS["kernels"] = check_no_kernels
CHECKS["cuda_tensor"] = check_cuda_tensor
"""
CELLS = [
    f"tiny-{version}-cuda{cuda}-py3.11"
    for version in ("1.16.0", "1.17.0")
    for cuda in ("12.9", "13.0")
]


@dataclass(frozen=True)
class Farm:
    """A farm in a directory, with a store and a prefix in the registry of its own."""

    root: Path
    store: Path
    registry: str
    environment: Mapping[str, str]

    @classmethod
    def copied(cls, template: Path, directory: Path, place: Place, cache: Path) -> Farm:
        """Return a copy of a farm's files, which publishes to a place of its own."""
        root, store = directory / "farm", directory / "store"
        shutil.copytree(template, root)
        environment = {
            **os.environ,
            "CURATOR_CACHE": str(cache),
            "CURATOR_REGISTRY": str(place),
            "CURATOR_STORE": str(store),
        }
        return cls(root=root, store=store, registry=str(place), environment=environment)

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-c", "from curator.cli import main; main()", *arguments]

    def curator(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the command line to its end."""
        return subprocess.run(
            self.command(*arguments),
            cwd=self.root,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )

    def json(self, *arguments: str, code: int = 0) -> Any:
        """Run with --json and return the data."""
        result = self.curator("--json", *arguments)
        assert result.returncode == code, result.stdout + result.stderr
        return json.loads(result.stdout)["data"]

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start the command line, for killing it."""
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.root,
            env=dict(self.environment),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def outcomes(self, *arguments: str, code: int = 0) -> dict[str, str]:
        """Run cells and return how each ended."""
        cells = self.json("run", *arguments, code=code)["cells"]
        return {cell["id"]: cell["outcome"] for cell in cells}

    def edit(self, file: str, old: str, new: str) -> None:
        path = self.root / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def lock(self) -> None:
        """Lock every combination, as `curator lock` does."""
        tree = read_tree(self.root)
        ids = [cell.id for cell in candidates(tree)]
        write(self.root, lock(tree, ids, cutoff=CUTOFF, jobs=4))

    def entries(self) -> dict[str, Any]:
        """Return the published entries by cell, as a reader checks them."""
        entries = self.json("index", "show")["entries"]
        return {entry["cell"]: entry for entry in entries}


@pytest.fixture(scope="session")
def tiny_template(tmp_path_factory: pytest.TempPathFactory, base_layout: Path) -> Path:
    """The farm's files, locked once."""
    root = tmp_path_factory.mktemp("tiny")
    for folder in ("matrix/locks/bases", "dockerfiles/tiny"):
        (root / folder).mkdir(parents=True)
    for file in (
        "matrix/cuda.yaml",
        "matrix/bases.yaml",
        "dockerfiles/wheels.j2",
    ):
        shutil.copy(ROOT / file, root / file)
    shutil.copy(base_layout / "base.json", root / "matrix/locks/bases/debian-12-linux-amd64.json")
    (root / "matrix/farm.yaml").write_text(FARM)
    (root / "matrix/tiny.yaml").write_text(TINY)
    (root / "dockerfiles/tiny/Dockerfile.j2").write_text("{% extends recipe %}\n")
    (root / "dockerfiles/tiny/probe.py").write_text(PROBE)
    farm = Farm(root=root, store=root, registry="", environment={})
    farm.lock()
    return root


@pytest.fixture
def farm(
    tiny_template: Path,
    tmp_path: Path,
    place: Place,
    engine_address: EngineAddress,
    cache: Path,
    push_base: Callable[[Path, Place], None],
) -> Farm:
    """A copy of the tiny farm that no other test sees; its base is in the registry already."""
    assert engine_address
    copy = Farm.copied(tiny_template, tmp_path, place, cache)
    push_base(copy.root, place)
    return copy


@pytest.fixture(scope="session")
def push_base(base_layout: Path) -> Callable[[Path, Place], None]:
    """Put the base where a farm's run looks for it."""

    def push(root: Path, place: Place) -> None:
        base = bases(read_tree(root))["debian-12"]
        lock = parse_base((base_layout / "base.json").read_text(), file="base.json")
        target = place.repository(f"base/{base.name}").with_tag(base_key(base, lock))
        HttpRegistry().push(base_layout, target)

    return push


def builds_of(farm: Farm) -> list[int]:
    """Return the processes that build for the farm's cells."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except OSError:
            continue
        if b"curator.engine._worker" in words:
            found.append(int(path.parent.name))
    assert farm
    return found


def kill_when(process: subprocess.Popen[bytes], condition: Callable[[], bool]) -> None:
    """SIGKILL a run as soon as a condition holds."""
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if condition():
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.01)
    process.wait(30)
