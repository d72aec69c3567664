"""The bake file against the program that reads it."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from curator import matrix

if TYPE_CHECKING:
    from collections.abc import Sequence

    from curator.matrix import Cell
    from curator.ports import EngineAddress


@pytest.fixture(scope="module")
def cells(farm_tree: matrix.Tree) -> tuple[Cell, ...]:
    return matrix.load(farm_tree).cells


def printed(address: EngineAddress, cells: Sequence[Cell]) -> Any:
    """What buildx makes of the cells' bake file."""
    command = [*address.command, "buildx", "bake", "--print", "-f", "-"]
    text = json.dumps(matrix.emit_bake(cells))
    result = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_buildx_reads_every_committed_cell(
    engine_address: EngineAddress, cells: tuple[Cell, ...]
) -> None:
    found = printed(engine_address, cells)
    assert len(found["target"]) == len(cells)
    assert sorted(found["group"]["default"]["targets"]) == sorted(found["target"])
    by_context = {target["context"]: target for target in found["target"].values()}
    for cell in cells:
        target = by_context[cell.id]
        assert target["dockerfile"] == "Dockerfile"
        assert target["platforms"] == [str(cell.platform)]
        assert target["tags"] == [f"{cell.framework}:{cell.id.removeprefix(cell.framework + '-')}"]


def test_a_bake_file_of_one_cell(engine_address: EngineAddress, cells: tuple[Cell, ...]) -> None:
    found = printed(engine_address, cells[:1])
    assert len(found["target"]) == 1


@pytest.mark.xfail(strict=True, reason="a bake file says neither where `base` nor `uv` come from")
def test_a_bake_file_names_what_its_dockerfiles_start_from(cells: tuple[Cell, ...]) -> None:
    for target in matrix.emit_bake(cells[:1])["target"].values():
        assert set(target["contexts"]) >= {"base", "uv"}
