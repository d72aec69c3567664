"""The first command that anybody types, on a cache that has nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.e2e.conftest import CELLS, Farm

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ONE = CELLS[0]


@pytest.fixture
def newcomer(tiny_template: Path, tmp_path: Path, farm: Farm) -> Iterator[Farm]:
    """The tiny farm, with a cache of its own and a base lock that the mirror has moved past."""
    root = tmp_path / "demo"
    shutil.copytree(tiny_template, root)
    path = root / "matrix/locks/bases/debian-12-linux-amd64.json"
    lock = json.loads(path.read_text())
    lock["diff_id"] = "sha256:" + "0" * 64
    path.write_text(json.dumps(lock))
    environment = {
        name: value
        for name, value in farm.environment.items()
        if name not in {"CURATOR_REGISTRY", "CURATOR_STORE"}
    }
    cache = tmp_path / "cache"
    found = Farm(
        root=root,
        store=cache / "store",
        registry="",
        environment={**environment, "CURATOR_CACHE": str(cache)},
    )
    yield found
    found.curator("engine", "down", "--purge")


def test_demo_from_nothing_and_again(newcomer: Farm) -> None:
    first = newcomer.json("demo", ONE)
    assert [cell["outcome"] for cell in first["cells"]] == ["published"]
    (reference,) = first["demo"]["references"]
    assert "/candidate/tiny:1.16.0-cuda12.9-py3.11-" in reference
    index = json.loads((newcomer.store / "v1/index.json").read_bytes())
    assert [entry["cell"] for entry in index["entries"]] == [ONE]

    line = first["demo"]["run"]
    ran = subprocess.run(line, shell=True, capture_output=True, text=True, check=True)  # noqa: S602
    assert ran.stdout == "six imported\n"

    assert first["demo"]["page"] == str(newcomer.store / "index.html")
    assert ONE.encode() in (newcomer.store / "images.md").read_bytes()
    (entry,) = index["entries"]
    assert entry["requires"] == {"NVIDIA_REQUIRE_CUDA": "cuda>=12.0"}
    told = newcomer.json("resolve", "--driver", "580", "--gpu", "H100")
    assert [match["confidence"] for match in told["ranked"]] == ["rule"]
    pulled = told["ranked"][0]["reference"]
    assert pulled.split("@") == [reference.partition("@")[0], entry["digest"]]

    again = newcomer.json("demo", ONE)
    assert again["cells"] == []
    assert again["demo"]["references"] == [reference]
