"""The verb explain: images, combinations, codes, and what is known without an index."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from curator.codes import CODES
from tests.images import PYTORCH_128, image, label, written
from tests.machines import ROOT
from tests.unit import test_cli_resolve

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.unit.test_cli import Said

curator, index = test_cli_resolve.curator, test_cli_resolve.index
ON = ("--driver", "580.95.05", "--gpu", "A100")


def test_a_tag_is_explained_with_its_tests_and_gates(curator: Callable[..., Said]) -> None:
    said = curator("explain", "pytorch:2.8.0-cuda12.8-py3.12", "--driver", "470", "--gpu", "A100")
    assert said.code == 0
    assert "pass 2026-11-22 on H200 (sm 9.0), driver 580.65.06, evidence sha256:" in said.out
    assert "driver 470 < 525.60.13" in said.out
    yanked = curator("explain", "jax-0.7.0-cuda12.9-py3.12", "--driver", "580", "--gpu", "A100")
    assert "yanked: wrong cuDNN" in yanked.out


@pytest.mark.parametrize(
    ("name", "told", "source"),
    [
        ("tensorflow-1.8-cuda9.2", "no: tensorflow 1.8 was built for CUDA 9.0", "tested build"),
        ("tensorflow-1.12-cuda9.1", "libcublas.so.9.0", "tested build"),
        ("tensorflow-1.13-cuda9.1", "built for CUDA 10.0", "tested build"),
        ("pytorch-2.14-cuda11.8", "12.6 or 13.0 or 13.2 and not for CUDA 11.8", "RELEASE.md"),
        ("pytorch==2.9.1+cu126", "yes: pytorch 2.9.1 was built for CUDA 12.6", "RELEASE.md"),
        ("jax-0.7.2-cuda12.1-py3.10", "is built for Python >=3.11", "installation.md"),
    ],
)
def test_a_combination_that_no_image_has_is_explained_from_documents(
    name: str, told: str, source: str, curator: Callable[..., Said]
) -> None:
    said = curator("explain", name)
    assert said.code == 0
    assert f"{name}: no image of this published" in said.out
    assert told in said.out
    assert source in said.out
    assert curator("explain", name, "--json").data["claims"]


def test_a_combination_that_images_have_names_them(curator: Callable[..., Said]) -> None:
    said = curator("explain", "pytorch==2.9.1+cu128")
    assert "pytorch==2.9.1+cu128: 1 image of this published" in said.out
    assert "  published: pytorch:2.9.1-cuda12.8-py3.12" in said.out
    assert "pytorch: 6 images of this published" in curator("explain", "pytorch").out


def test_codes_are_explained(curator: Callable[..., Said]) -> None:
    assert "PTX ISA" in curator("explain", "ptx-version").out
    assert "older than one that was seen" in curator("explain", "rollback").out
    unknown = curator("explain", "what is this")
    assert unknown.code == 2
    assert "tensorflow-1.8-cuda9.2" in unknown.err


def test_every_code_is_explained_with_what_to_do(curator: Callable[..., Said]) -> None:
    for code in ("no-farm", "location", "moving-tag", "cycle"):
        assert CODES[code][1] in curator("explain", code).out
    assert "(exit 75)" in curator("explain", "temporary").out
    assert curator("explain", "stranger", "--json").data["do"]


def test_a_whole_reference_is_explained(curator: Callable[..., Said]) -> None:
    wishes = ("--framework", "pytorch", "--version", "2.8")
    reference = curator("resolve", *ON, *wishes, "--pin").out.strip()
    place, _, digest = reference.partition("@")
    for name in (reference, place, digest, f"mirror.example/x@{digest}"):
        said = curator("explain", name, *ON)
        assert said.code == 0, name
        assert reference in said.out


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (
            "pytorch",
            "Later releases are built for later CUDA: >=2.14,<2.15 for CUDA 12.6 or 13.0 or 13.2",
        ),
        ("pytorch", "\n  >=2.9,<2.10 for CUDA 12.6 or 12.8 or 13.0 (experimental)\n"),
        ("pytorch", "RELEASE.md"),
        ("tensorflow", "\n  >=1.13,<2.1 for CUDA 10.0 and cuDNN 7.4\n"),
        ("tensorflow", "\n  >=1.5,<1.13 for CUDA 9.0 and cuDNN 7; its libraries ask for libcublas"),
        ("tensorflow", "nothing is documented here"),
        ("pytorch-1.0-cuda9.2", "unknown: nothing is documented here of pytorch 1.0, but of >=1."),
    ],
)
def test_a_framework_is_explained_release_by_release(
    name: str, told: str, curator: Callable[..., Said]
) -> None:
    said = curator("explain", name)
    assert said.code == 0
    assert told in said.out


def test_what_nobody_documents_is_told_from_the_index(
    curator: Callable[..., Said], tmp_path: Path
) -> None:
    images = [
        image("numba-cuda", "0.30.4", label("12.9", PYTORCH_128), python="3.11"),
        image("jax", "0.4.38", label("12.8", PYTORCH_128)),
    ]
    place = written(tmp_path / "other", images)
    for name in ("numba-cuda", "numba-cuda-0.30", "numba-cuda-0.30.4-cuda12.9", "jax-0.4"):
        said = curator("explain", name, "--index", place)
        assert said.code == 0, said.err
        assert f"{name}: 1 image of this published" in said.out


@pytest.mark.parametrize("place", ["nowhere", "broken"])
def test_what_ships_with_the_package_needs_no_index(
    place: str, curator: Callable[..., Said], tmp_path: Path
) -> None:
    broken = tmp_path / "broken/v1"
    broken.mkdir(parents=True)
    (broken / "head.json").write_text("{}")
    for name, told in (
        ("tensorflow-1.8-cuda9.2", "libcublas.so.9.0"),
        ("pytorch", "for CUDA 12.6"),
        ("ptx-version", "PTX ISA"),
        ("no-farm", "-C DIR"),
    ):
        said = curator("explain", name, "--index", place)
        assert said.code == 0, said.err
        assert told in said.out
        assert "of this published" not in said.out
        is_code = name in {"ptx-version", "no-farm"}
        assert said.err.startswith("" if is_code else "warning: no index was read: ")
    document = json.loads(curator("explain", "pytorch", "--index", place, "--json").out)
    assert [item["code"] for item in document["diagnostics"]] == ["no-index"]
    assert document["data"]["published"] is None
    unknown = curator("explain", "what-is-this", "--index", place)
    assert unknown.code == 2
    first, second = unknown.err.splitlines()
    assert first.startswith("error: nothing is known of 'what-is-this' (name it as ")
    assert second.startswith("warning: no index was read: ")
    document = json.loads(curator("explain", "what-is-this", "--index", place, "--json").out)
    assert [item["code"] for item in document["diagnostics"]] == ["unknown", "no-index"]


def test_an_index_that_does_not_answer_is_not_waited_for(curator: Callable[..., Said]) -> None:
    said = curator("explain", "pytorch", "--index", "http://127.0.0.1:1/x")
    assert (said.code, "for CUDA 12.6" in said.out) == (0, True)
    assert "warning: no index was read: http://127.0.0.1:1/x" in said.err
    unknown = curator("explain", "what-is-this", "--index", "http://127.0.0.1:1/x")
    assert unknown.code == 75
    assert "nothing is known of 'what-is-this', and no index was read: http://127" in unknown.err


@pytest.mark.parametrize(
    ("name", "told", "untold"),
    [
        ("cupy-14.2.0-cuda13.0-py3.11", "a cell for it{}: cupy-14.2.0-cuda13.0-py3.11\n", "  no: "),
        ("CuPy-14.2.0-CUDA13.0-py3.11", "a cell for it{}: cupy-14.2.0-cuda13.0-py3.11\n", "  no: "),
        ("cupy-14.2.0-cuda13.0", "2 cells for it{}: cupy-14.2.0-cuda13.0-py3.11, cupy-", "  no: "),
        ("cupy-14.2.0-cuda13.0-py3.11-arm64", "  no: no arm64 base", "this farm has"),
        ("cupy-13", "  no: CuPy 13 looks for CUDA in a system toolkit", "arm64"),
        ("cupy-99", "this farm has no cell for it, but of cupy: cupy-14.", "  no: "),
        ("pytorch-2.9", "2 cells for it{}: pytorch-2.9.1-cuda12.8-py3.11, pytorch-", "  no: "),
        ("pytorch-cuda12.8", "6 cells for it{}: pytorch-2.8.0-cuda12.8-py3.11, ", "  no: "),
        ("pytorch-2.15", "2 cells for it{}: pytorch-2.15.0-cuda13.2-py3.11, pytorch-", "  no: "),
        ("numba-cuda-0.30", "12 cells for it{}: numba-cuda-0.30.4-cuda12.6-py3.11, ", "  no: "),
    ],
)
def test_in_a_farm_a_cell_is_told_from_a_rejected_one(
    name: str,
    told: str,
    untold: str,
    curator: Callable[..., Said],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    place = written(tmp_path / "other", [image("jax", "0.8.1", label("12.9", PYTORCH_128))])
    monkeypatch.chdir(ROOT)
    for index, unpublished in ((place, ", not published"), ("nowhere", "")):
        said = curator("explain", name, "--index", index)
        assert said.code == 0, said.err
        assert told.format(unpublished) in said.out
        assert untold not in said.out
        assert said.err.startswith("" if index == place else "warning: no index was read: ")


def test_a_host_that_is_told_is_one_for_the_images_of_a_combination(
    curator: Callable[..., Said],
) -> None:
    said = curator("explain", "pytorch-2.9", "--driver", "535", "--gpu", "A100")
    assert "\n  on A100 (sm_80) with driver 535 (x86_64):\n" in said.out
    assert "\n    yes: pytorch:2.9.1-cuda12.8-py3.12: driver 535 >= 525.60.13" in said.out
    assert "\n    no: pytorch:2.9.1-cuda13.0-py3.12: " in said.out
    assert "sm_80" not in curator("explain", "pytorch-2.9").out
    none = curator("explain", "pytorch-1.13", *ON)
    assert "no image of this to be judged on A100 (sm_80) with driver 580.95.05" in none.out
    assert curator("explain", "pytorch-2.9", "--gpu", "no such").code == 2
    data = curator("explain", "pytorch-2.9", *ON, "--json").data
    assert [found["says"] for found in data["judged"]] == ["yes", "yes"]
    assert data["host"]["driver"] == "580.95.05"


def test_text_of_an_index_stays_on_its_line(curator: Callable[..., Said], tmp_path: Path) -> None:
    reason = "x\x1b[2J\x1b]0;title\x07\nerror: forged\u202e"
    odd = image("pytorch", "2.9.1", label("12.8", PYTORCH_128), state="deprecated", reason=reason)
    place = written(tmp_path / "odd", [odd])
    for verb in (
        ("explain", odd.cell),
        ("resolve", "--all"),
        ("resolve", "--framework", "pytorch"),
    ):
        said = curator(*verb, *ON, "--index", place)
        assert said.code == 0
        assert all(line.isprintable() for line in said.out.splitlines())
        assert "\nerror: forged" not in said.out
