"""Real engines' fixtures: what every test of builds starts from."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from curator.engine import BuildxEngine
from curator.oci import Reference
from curator.registry import HttpRegistry
from tests.indexes import Index, serving
from tests.workshop import WHEELS, Workshop, secrets_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from curator.ports import EngineAddress


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
