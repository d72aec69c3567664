"""What this repository's templates make is linted as Dockerfiles: each framework, each recipe."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

from curator import matrix, settings
from curator.recipe import Templates, render
from tests.recipes import INSTALLER

if TYPE_CHECKING:
    from curator.matrix import Cell

HADOLINT = Path(sys.executable).parent / "hadolint"
TREE = settings.read_tree(Path(__file__).parents[2])
FARM = matrix.load(TREE)
KINDS: dict[str, Cell] = {cell.framework: cell for cell in FARM.cells}


@pytest.mark.parametrize("recipe", ["wheels", "toolkit"])
@pytest.mark.parametrize("framework", sorted(KINDS))
def test_the_dockerfile_of_each_kind_of_cell_is_clean(
    framework: str, recipe: Literal["wheels", "toolkit"]
) -> None:
    cell = replace(KINDS[framework], recipe=recipe)
    dockerfile = render(cell, FARM, Templates(TREE), installer=INSTALLER).dockerfile
    result = subprocess.run(
        [HADOLINT, "--no-color", "-"], input=dockerfile, capture_output=True, text=True, check=False
    )
    assert (result.stdout, result.returncode) == ("", 0)


def test_ignored_rules_have_their_reason_beside_them() -> None:
    for name, text in TREE.items():
        lines = text.splitlines()
        for number, line in enumerate(lines if name.endswith(".j2") else []):
            if "hadolint" in line and "ignore=" in line:
                rule = line.partition("ignore=")[2].split(",")[0].strip()
                near = "".join(lines[max(0, number - 2) : number + 2])
                assert near.count(rule) > 1, f"{name}:{number + 1}: why is {rule} ignored?"
