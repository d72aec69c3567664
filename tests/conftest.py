"""The real things that tests run against: an engine, a registry, a base, a farm of text."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from curator import matrix, provision, settings
from curator.lockfile import BaseLock, dump_base, parse_base
from curator.provision import _processes
from curator.settings import Place
from tests import machines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from curator.matrix import Base, Tree
    from curator.ports import EngineAddress
    from tests.azurite import Azurite

ROOT = Path(__file__).parent.parent
PLATFORM = machines.PLATFORM
ENGINE = (
    "test_bake", "test_base", "test_dockerfiles", "test_engine", "test_kernels", "test_lock",
    "test_mirrors", "test_provision", "test_ptx", "test_runner",
)  # fmt: skip


@pytest.hookimpl(tryfirst=True)  # before xdist looks at the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let what uses the engine, or looks at the whole machine, run one by one (`pytest -n 2`)."""
    for item in items:
        if item.path.parent.name == "e2e" or item.path.stem.startswith(ENGINE):
            item.add_marker(pytest.mark.xdist_group("engine"))


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


@pytest.fixture(scope="session")
def azurite(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    """An emulated Azure account of the session's own."""
    from tests.azurite import Azurite  # noqa: PLC0415 - half a second

    root = tmp_path_factory.mktemp("azurite")
    yield Azurite(connection=provision.start_azurite(cache, root))
    provision.stop_azurite(root)
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def place(registry_address: str, request: pytest.FixtureRequest) -> Place:
    """A prefix of its own in the session's registry for each test."""
    name = "".join(c if c.isalnum() else "-" for c in request.node.name.lower()).strip("-")
    while "--" in name:
        name = name.replace("--", "-")
    return Place(registry=registry_address, prefix=f"t/{name[:60].strip('-')}")


@pytest.fixture(scope="session")
def programs(cache: Path) -> Path:
    """A cache that has the private engine's programs, whatever engine the machine has."""
    found = machines.call("up", cache, environment={"DOCKER_HOST": machines.NOBODY})
    if found.error:
        pytest.fail(found.message)
    return cache


@pytest.fixture(scope="session")
def base_layout(cache: Path, farm_tree: Tree) -> Path:
    """This repository's debian-12 as an OCI layout, made once a day, with its lock beside it."""
    base = matrix.bases(farm_tree)["debian-12"]
    today = datetime.now(UTC).date().isoformat()
    layout = cache / "tests" / f"{base.name}-{today}-{_maker(base)}"
    if layout.exists():
        return layout
    for older in layout.parent.glob(f"{base.name}-*"):
        shutil.rmtree(older, ignore_errors=True)
    layout.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=layout.parent) as directory:
        made = Path(directory) / "layout"
        lock = provision.make_base(base, PLATFORM, made, cache=cache)
        (made / "base.json").write_text(dump_base(lock))
        with contextlib.suppress(OSError):  # another session was first
            made.rename(layout)
    return layout


@pytest.fixture(scope="session")
def base_lock(base_layout: Path) -> BaseLock:
    """What `make_base` said of `base_layout`."""
    lock = parse_base((base_layout / "base.json").read_text(), file="base.json")
    assert isinstance(lock, BaseLock)
    return lock


def _maker(base: Base) -> str:
    """Name what decides on a base's bytes, apart from the archive: its recipe and our code."""
    sources = sorted(Path(provision.__file__).parent.glob("*.py"))
    text = "".join([repr(base), *(file.read_text() for file in sources)])
    return hashlib.sha256(text.encode()).hexdigest()[:12]
