"""The bake file against the program that reads it."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from curator import matrix
from curator.recipe import base_keys

if TYPE_CHECKING:
    from collections.abc import Sequence

    from curator.matrix import Cell
    from curator.ports import EngineAddress


@pytest.fixture(scope="module")
def farm(farm_tree: matrix.Tree) -> matrix.Matrix:
    return matrix.load(farm_tree)


@pytest.fixture(scope="module")
def cells(farm: matrix.Matrix) -> tuple[Cell, ...]:
    return farm.cells


def printed(address: EngineAddress, farm: matrix.Matrix, cells: Sequence[Cell]) -> Any:
    """What buildx makes of the cells' bake file."""
    command = [*address.command, "buildx", "bake", "--print", "-f", "-"]
    text = json.dumps(matrix.emit_bake(cells, base_keys(farm), farm.farm.epoch))
    result = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_buildx_reads_every_committed_cell(
    engine_address: EngineAddress, farm: matrix.Matrix, cells: tuple[Cell, ...]
) -> None:
    found = printed(engine_address, farm, cells)
    assert len(found["target"]) == len(cells)
    assert sorted(found["group"]["default"]["targets"]) == sorted(found["target"])
    by_context = {target["context"]: target for target in found["target"].values()}
    for cell in cells:
        target = by_context[cell.id]
        assert target["dockerfile"] == "Dockerfile"
        assert target["platforms"] == [str(cell.platform)]
        assert target["tags"] == [f"{cell.framework}:{cell.id.removeprefix(cell.framework + '-')}"]


def test_a_bake_file_names_what_its_dockerfile_needs(
    engine_address: EngineAddress, farm: matrix.Matrix, cells: tuple[Cell, ...]
) -> None:
    (target,) = printed(engine_address, farm, cells[:1])["target"].values()
    key = base_keys(farm)[cells[0].base, str(cells[0].platform)]
    base = f"docker-image://127.0.0.1:5000/base/{cells[0].base}:{key}"
    assert target["contexts"] == {"base": base, "uv": "./uv"}
    assert target["args"] == {"SOURCE_DATE_EPOCH": str(farm.farm.epoch)}
