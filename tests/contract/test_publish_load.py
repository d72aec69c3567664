"""Many publishers and many readers at once: nothing is lost, nothing is seen that never was."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.bench.publish import KEY, Job, acknowledged, run, violations
from tests.bench.readers import watched
from tests.publishing import Farm, Walk, in_memory, loaded
from tests.signing import private_pem

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    with in_memory() as directory:
        yield directory


@pytest.mark.parametrize("is_signed", [False, True])
def test_many_publishers_lose_nothing(tmp_path: Path, *, is_signed: bool) -> None:
    if is_signed:
        (tmp_path / KEY).write_bytes(private_pem())
    run(Job(tmp_path, str(tmp_path / "store"), {}, 0, 10), writers=8)
    answers = list(acknowledged(tmp_path))
    farm = Farm(tmp_path)
    assert len(answers) == 80
    assert bool(loaded(tmp_path / "store", "v1/head.json")["signatures"]) == is_signed
    assert violations(Walk.of(farm), answers) == []
    assert not [path for path in farm.recover() if ":" in path or path.startswith("v1/")]


def test_readers_beside_publishers_see_committed_states_only(tmp_path: Path) -> None:
    wrong, reads, states = watched(tmp_path, readers=6, publishes=40)
    assert wrong == []
    assert reads > states > 6
