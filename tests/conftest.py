"""The real things that tests run against: an engine, a registry, a base, a farm of text."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from curator import matrix, provision, settings
from curator.oci import Platform
from curator.provision import _processes
from curator.settings import Place

if TYPE_CHECKING:
    from collections.abc import Iterator

    from curator.matrix import Tree
    from curator.ports import EngineAddress

ROOT = Path(__file__).parent.parent
PLATFORM = Platform.parse("linux/amd64")


@pytest.fixture(scope="session")
def cache() -> Path:
    """The user's own cache: an engine that is there already is used again."""
    return settings.cache_directory(os.environ)


@pytest.fixture(scope="session")
def farm_tree() -> Tree:
    """This repository's own matrix."""
    return settings.read_tree(ROOT)


@pytest.fixture(scope="session")
def engine_address(cache: Path) -> EngineAddress:
    """A docker engine that builds; it stays up afterwards."""
    found = provision.up(cache).engine
    assert found is not None
    return found


@pytest.fixture(scope="session")
def registry_address(
    engine_address: EngineAddress, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A registry of the session's own, empty at first."""
    assert engine_address
    root = tmp_path_factory.mktemp("registry")
    tools = cache / "engine" / "tools"
    yield provision.start_registry(root, tools, port=_processes.free_port())
    provision.stop_registry(root)
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def place(registry_address: str, request: pytest.FixtureRequest) -> Place:
    """A prefix of its own in the session's registry for each test."""
    name = "".join(c if c.isalnum() else "-" for c in request.node.name.lower()).strip("-")
    while "--" in name:
        name = name.replace("--", "-")
    return Place(registry=registry_address, prefix=f"t/{name[:60].strip('-')}")


@pytest.fixture(scope="session")
def base_layout(cache: Path, farm_tree: Tree) -> Path:
    """This repository's debian-12 as an OCI layout, made once a day."""
    import datetime

    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    layout = cache / "tests" / f"debian-12-{day}"
    if not (layout / "base.json").exists():
        shutil.rmtree(layout.parent, ignore_errors=True)
        base = matrix.bases(farm_tree)["debian-12"]
        from curator.lockfile import dump_base

        lock = provision.make_base(base, PLATFORM, layout, cache=cache)
        (layout / "base.json").write_text(dump_base(lock))
    return layout
