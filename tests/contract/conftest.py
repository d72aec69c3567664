"""Real engines' fixtures: what every test of builds starts from."""

from __future__ import annotations

import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

from curator.engine import BuildxEngine
from curator.oci import Reference
from curator.registry import HttpRegistry
from tests import pages
from tests.indexes import Index, serving
from tests.workshop import WHEELS, Workshop, secrets_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser

    from curator.ports import EngineAddress
    from curator.resolve import Catalogue


@pytest.fixture(scope="session")
def base(registry_address: str, base_layout: Path) -> Reference:
    target = Reference(registry=registry_address, repository="t/engine/base", tag="latest")
    return target.with_digest(HttpRegistry().push(base_layout, target))


@pytest.fixture(scope="session")
def index() -> Iterator[Index]:
    with serving(Index(WHEELS)) as running:
        yield running


@pytest.fixture
def workshop(
    engine_address: EngineAddress, base: Reference, index: Index, tmp_path: Path
) -> Workshop:
    return Workshop(
        engine=BuildxEngine(address=engine_address),
        base=base,
        directory=tmp_path,
        secrets=secrets_for(index.address, tmp_path),
        cancelled=threading.Event(),
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A directory on a disk of 2 MiB."""
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(path)]
    result = subprocess.run(mount, capture_output=True, text=True, check=False)
    if result.returncode:
        pytest.skip(f"no small disk without the right to mount one: {result.stderr.strip()}")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium."""
    with pages.chromium() as found:
        yield found


@pytest.fixture(scope="module")
def known() -> Catalogue:
    """An index that has something of everything that a page can show."""
    return pages.shown()


@pytest.fixture(scope="module")
def address(known: Catalogue, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of that index, as a file's address."""
    return pages.write(known, tmp_path_factory.mktemp("site")).as_uri()
