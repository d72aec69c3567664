"""A bench for builds: an engine, a base, an index of wheels made on the spot, recipes of them."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from curator import settings
from curator.engine import build_secrets
from curator.errors import CuratorError
from curator.oci import INDEX, Digest, Manifest, Reference, hex_of
from curator.recipe import Recipe, Templates, render
from tests.indexes import Wheel
from tests.recipes import AMD64, INSTALLER, cell_of, lock_of, world

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping

    from curator.engine import BuildxEngine

TREE = settings.read_tree(Path(__file__).parents[1])
BIG = 100 * 1024 * 1024
BIG_CUDA = Wheel("nvidia-curator-big")
SMALL_CUDA = Wheel("nvidia-curator-small")
FRAMEWORK = Wheel("curator-framework")
SMALL = Wheel("curator-small")
WHEELS = (BIG_CUDA, SMALL_CUDA, FRAMEWORK, SMALL)


@dataclass(frozen=True)
class Workshop:
    """One test's engine, base, index and directory."""

    engine: BuildxEngine
    base: Reference
    directory: Path
    secrets: Mapping[str, Path]
    cancelled: threading.Event

    @property
    def log(self) -> Path:
        """Where the log of the layout `layout` goes."""
        return self.directory / "logs" / "build.log"

    def build(self, recipe: Recipe, name: str = "layout", *, timeout_s: int = 300) -> Layout:
        """Build into the directory `name`."""
        layout = self.directory / name
        log = self.log if name == "layout" else self.log.with_name(f"{name}.log")
        digest = self.engine.build(
            recipe,
            base=self.base,
            layout=layout,
            log=log,
            secrets=self.secrets,
            timeout_s=timeout_s,
            cancelled=self.cancelled,
        )
        return Layout(layout, digest)

    def failure(self, recipe: Recipe, *, timeout_s: int = 300) -> CuratorError:
        """Build in vain, and return the error."""
        with pytest.raises(CuratorError) as raised:
            self.build(recipe, timeout_s=timeout_s)
        return raised.value


@dataclass(frozen=True)
class Layout:
    """What a build left: an OCI layout."""

    path: Path
    digest: Digest

    def blob(self, digest: str) -> bytes:
        return (self.path / "blobs" / "sha256" / hex_of(Digest(digest))).read_bytes()

    @property
    def index(self) -> Manifest:
        return Manifest(data=self.blob(self.digest), media_type=INDEX)

    @property
    def platform_digest(self) -> Digest:
        return self.index.platform_digest(AMD64)

    @property
    def image(self) -> dict[str, Any]:
        return dict(json.loads(self.blob(self.platform_digest)))

    @property
    def config(self) -> dict[str, Any]:
        return dict(json.loads(self.blob(self.image["config"]["digest"])))


def secrets_for(address: str, directory: Path) -> dict[str, Path]:
    """Return the secrets of a machine that is set to one index."""
    return build_secrets({"UV_DEFAULT_INDEX": address}, directory / "secrets")


def recipe_of(*wheels: Wheel, env: tuple[tuple[str, str], ...] = (), key: str = "") -> Recipe:
    """Return a recipe of this repository's templates; the names of some wheels make them big."""
    lock = lock_of(
        *(w.locked(size_bytes=BIG if w in {BIG_CUDA, FRAMEWORK} else None) for w in wheels)
    )
    cell = cell_of(framework="cupy", package=FRAMEWORK.name, env=env)
    recipe = render(cell, world(cell, lock), Templates(TREE), installer=INSTALLER)
    return replace(recipe, key=key or recipe.key)


def fresh() -> Wheel:
    """Return a wheel that nobody has built with: no cache has its layer."""
    return Wheel("curator-fresh", f"1.{time.time_ns()}")


def running(command: str) -> Recipe:
    """Return a recipe that runs one command."""
    return replace(recipe_of(SMALL), dockerfile=f"FROM base\nRUN {command}\n", context=())


def processes(marker: str) -> list[str]:
    """Return the command lines on this machine that contain a text."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if marker in command:
            found.append(command[:200])
    return found


def eventually(condition: Callable[[], object], within_s: float = 20.0) -> bool:
    """Return whether something comes true in time."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


@dataclass(frozen=True)
class Container:
    """Runs commands in a built image, from a registry, and removes what it pulled."""

    docker: tuple[str, ...]
    image: Reference

    def run(
        self, *command: str, network: str = "none", options: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        arguments = [*self.docker, "run", "--rm", "--network", network, *options, str(self.image)]
        return subprocess.run([*arguments, *command], capture_output=True, text=True, check=False)

    def python(self, program: str) -> str:
        result = self.run("python", "-c", program)
        assert result.returncode == 0, result.stderr
        return result.stdout.strip()
