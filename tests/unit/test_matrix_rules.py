"""What a matrix's rules mean: order, conditions, inheritance, and what other tools are given."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator import matrix
from curator.errors import EmptySelectionError
from tests.trees import BASES, CUDA, DEMO, synthetic_tree, tiny_tree
from tests.unit.test_matrix import DEMO_YAML, edited, without

LOCKED = "demo-2.0-cuda12.8-py3.11"
BASES_YAML, CUDA_YAML = "matrix/bases.yaml", "matrix/cuda.yaml"
IDS = [cell.id for cell in matrix.load(synthetic_tree(40)).cells]


def with_rules(rules: str) -> dict[str, str]:
    """Return the tiny farm with these rules for its excludes."""
    return {**tiny_tree(), DEMO_YAML: DEMO.partition("exclude:")[0] + rules}


def test_cuda_releases_are_ordered_as_versions() -> None:
    facts = CUDA + '  "12.10": {driver_floor: "525.60.13", source: s, read: "2026-11-23"}\n'
    facts += '  "12.9": {driver_floor: "525.60.13", source: s, read: "2026-11-23"}\n'
    demo = DEMO.replace('["12.8", "13.0"]', '["13.0", "12.10", "12.9", "12.8"]')
    demo = demo.replace(', "cuda-toolkit=={cuda_toolkit}"', "")
    tree = {**tiny_tree(), CUDA_YAML: facts, DEMO_YAML: demo}
    cells = [cell for cell in matrix.candidates(tree) if cell.version == "2.0"]
    assert [cell.cuda for cell in cells] == ["12.8", "12.9", "12.10", "13.0"]


def test_prereleases_come_before_their_release() -> None:
    tree = edited(DEMO_YAML, '["1.0", "2.0"]', '["2.0", "2.0rc1", "1.10", "1.9"]')
    versions = dict.fromkeys(cell.version for cell in matrix.candidates(tree))
    assert list(versions) == ["1.9", "1.10", "2.0rc1", "2.0"]


def test_the_order_of_files_and_values_does_not_matter() -> None:
    tree = tiny_tree()
    turned = dict(reversed(tree.items()))
    turned[DEMO_YAML] = DEMO.replace('"1.0", "2.0"', '"2.0", "1.0"').replace(
        '"12.8", "13.0"', '"13.0", "12.8"'
    )
    assert matrix.load(turned) == matrix.load(tree)


def test_rejected_combinations_are_in_natural_order() -> None:
    tree = without("matrix/locks/demo/demo-1.0-cuda12.8-py3.11.txt")
    tree["matrix/locks/demo/rejected.json"] = (
        '{"demo-1.0-cuda12.8-py3.11": {"because": "no wheel", "source": "package index"}}'
    )
    ids = [item.id for item in matrix.load(tree).rejected]
    assert ids == ["demo-1.0-cuda12.8-py3.11", "demo-1.0-cuda13.0-py3.11"]


@pytest.mark.parametrize(
    ("condition", "left"),
    [
        ('cuda: "13"', {"1.0 12.8", "2.0 12.8"}),
        ('cuda: ">12.8"', {"1.0 12.8", "2.0 12.8"}),
        ('cuda: "!=13.0"', {"1.0 13.0", "2.0 13.0"}),
        ('cuda: ">=12,<13"', {"1.0 13.0", "2.0 13.0"}),
        ('version: "1.0.0"', {"2.0 12.8", "2.0 13.0"}),
        ('version: "==2.*"', {"1.0 12.8", "1.0 13.0"}),
        ('version: "~=1.0"', {"2.0 12.8", "2.0 13.0"}),
        ('version: "<2", cuda: "12.8"', {"1.0 13.0", "2.0 12.8", "2.0 13.0"}),
    ],
)
def test_conditions_compare_versions(condition: str, left: set[str]) -> None:
    tree = with_rules(f"exclude: [{{{condition}, because: b, source: s}}]\n")
    assert {f"{cell.version} {cell.cuda}" for cell in matrix.candidates(tree)} == left


def test_the_first_rule_that_matches_gives_the_reason() -> None:
    rules = (
        'exclude:\n  - {version: "<2", cuda: ">=13", because: first, source: s}\n'
        '  - {cuda: ">=13", version: "1.0", because: second, source: s}\n'
    )
    (rejected,) = matrix.load(with_rules(rules)).rejected
    assert rejected.because == "first"


def test_a_cuda_without_a_toolkit_distribution_rejects_with_its_source() -> None:
    tree = edited(CUDA_YAML, 'toolkit: "13.0.2", driver_floor: "580.65.06", source: s', "X")
    tree[CUDA_YAML] = tree[CUDA_YAML].replace("X", 'driver_floor: "580.65.06", source: notes')
    del tree["matrix/locks/demo/demo-2.0-cuda13.0-py3.11.txt"]
    found = {item.id: item for item in matrix.load(tree).rejected}
    rejected = found["demo-2.0-cuda13.0-py3.11"]
    assert rejected.because == "the package index has no cuda-toolkit release for CUDA 13.0"
    assert rejected.source == "notes"
    assert found["demo-1.0-cuda13.0-py3.11"].because == "too old for CUDA 13"


def test_the_lowest_architecture_is_the_first_row_that_matches() -> None:
    rows = (
        'sm_min:\n  - {cuda: ">=13", sm: "7.5", source: s}\n'
        '  - {version: ">=2", sm: "5.2", source: s}\nexclude:'
    )
    cells = matrix.candidates(edited(DEMO_YAML, "exclude:", rows))
    assert [cell.sm_min for cell in cells] == [None, "5.2", "7.5"]


def test_a_cell_says_what_its_framework_says() -> None:
    demo = DEMO.replace("package: demo-pkg", "package: demo-cu{cuda_major}").replace(
        "constrain: [demo-pkg]", 'constrain: ["demo*", pip]\nenv: {B: "2", A: "1"}'
    )
    cell = matrix.candidates({**tiny_tree(), DEMO_YAML: demo})[-1]
    assert (cell.package, cell.base, cell.recipe) == ("demo-cu13", "debian-12", "wheels")
    assert cell.constrain == ("demo*", "pip")
    assert cell.env == (("A", "1"), ("B", "2"))
    assert (cell.file, cell.lock_path) == (DEMO_YAML, f"matrix/locks/demo/{cell.id}.txt")


def test_a_base_has_what_it_extends_unless_it_says_otherwise() -> None:
    text = BASES.replace("include: [python3]", 'include: [python3], exclude_paths: ["/doc/*"]')
    text += '  own: {extends: debian-12, suite: trixie, python: "3.13", include: [a], epoch: 5}\n'
    text += '  pulled: {kind: image, python: "3.12", reference: "example/cuda:12"}\n'
    found = matrix.bases({**tiny_tree(), BASES_YAML: text})
    assert sorted(found) == ["debian-12", "own", "pulled"]
    assert found["debian-12"].include == ("python3",)
    assert found["debian-12"].epoch == 1700000000
    own, pulled = found["own"], found["pulled"]
    assert (own.suite, own.python, own.include, own.epoch) == ("trixie", "3.13", ("a",), 5)
    assert own.exclude_paths == ("/doc/*",)
    assert (pulled.kind, pulled.suite, pulled.reference) == ("image", None, "example/cuda:12")


def test_candidates_need_no_lock() -> None:
    tree = {name: text for name, text in tiny_tree().items() if "/locks/" not in name}
    assert [cell.id for cell in matrix.candidates(tree)] == [
        cell.id for cell in matrix.load(tiny_tree()).cells
    ]


def test_cells_and_rejections_as_json() -> None:
    found = matrix.load(tiny_tree())
    assert found.cells[0].to_json() == {
        "id": "demo-1.0-cuda12.8-py3.11",
        "framework": "demo",
        "version": "1.0",
        "cuda": "12.8",
        "python": "3.11",
        "platform": "linux/amd64",
        "base": "debian-12",
        "recipe": "wheels",
        "package": "demo-pkg",
    }
    assert found.rejected[0].to_json() == {
        "id": "demo-1.0-cuda13.0-py3.11",
        "because": "too old for CUDA 13",
        "source": "release notes",
    }


def test_a_github_matrix_has_what_a_job_needs() -> None:
    cells = matrix.load(tiny_tree()).cells
    (chunk,) = json.loads(json.dumps(matrix.emit_github(cells)))
    assert [row["id"] for row in chunk["include"]] == [cell.id for cell in cells]
    assert {"framework", "version", "cuda", "python", "platform"} <= chunk["include"][0].keys()
    assert matrix.emit_github([]) == []


def test_bake_targets_have_names_that_bake_takes() -> None:
    cells = matrix.load(tiny_tree()).cells
    keys = {("debian-12", "linux/amd64"): "0" * 64}
    found = json.loads(json.dumps(matrix.emit_bake(cells, keys, 1700000000)))
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+", name) for name in found["target"])
    assert found["group"]["default"]["targets"] == list(found["target"])
    target = found["target"]["demo-2_0-cuda12_8-py3_11"]
    assert target["context"] == f"./{LOCKED}"
    assert target["contexts"]["base"].endswith(f"/base/debian-12:{'0' * 64}")
    assert target["args"] == {"SOURCE_DATE_EPOCH": "1700000000"}
    assert target["platforms"] == ["linux/amd64"]
    assert target["tags"] == ["demo:2.0-cuda12.8-py3.11"]


@given(st.lists(st.sampled_from(IDS), unique=True, min_size=1))
def test_ids_select_themselves_in_the_order_of_the_matrix(wanted: list[str]) -> None:
    assert matrix.select(IDS, wanted) == tuple(name for name in IDS if name in wanted)
    assert matrix.select(IDS, ["{" + ",".join(wanted) + "}"]) == matrix.select(IDS, wanted)


@given(st.lists(st.sampled_from(IDS), unique=True, min_size=1, max_size=len(IDS) - 1))
def test_what_is_taken_away_and_what_is_chosen_are_everything(gone: list[str]) -> None:
    kept = matrix.select(IDS, [f"!{name}" for name in gone])
    assert sorted((*kept, *gone)) == sorted(IDS)


@given(st.text(alphabet="{},*?[]!-demo2.0cuda\\", max_size=12))
def test_any_text_is_a_selector_or_selects_nothing(text: str) -> None:
    try:
        chosen = matrix.select(IDS, [text])
    except EmptySelectionError as error:
        message = str(error)
    else:
        message = ""
        assert set(chosen) <= set(IDS)
    assert message or chosen


@pytest.mark.parametrize("selector", ["", "!", "{", "}", "[", "\\", "demo", "DEMO-*", "*/*"])
def test_what_selects_nothing_is_an_error(selector: str) -> None:
    with pytest.raises(EmptySelectionError, match="no cell matches"):
        matrix.select(IDS, [selector])


def test_everything_and_nothing() -> None:
    assert matrix.select(IDS, []) == tuple(IDS)
    assert matrix.select(["a", "a", "b"], []) == ("a", "b")
    with pytest.raises(EmptySelectionError, match=r"\* !\* leaves no cell"):
        matrix.select(IDS, ["*", "!*"])


def test_at_most_three_nearest_ids_are_named() -> None:
    with pytest.raises(EmptySelectionError) as caught:
        matrix.select(IDS, ["demo-2.1-cuda12.9-py3.11"])
    nearest = str(caught.value).partition("nearest: ")[2].split(", ")
    assert 1 <= len(nearest) <= 3
    assert set(nearest) <= set(IDS)
    assert "demo-2.1-cuda12.8-py3.11" in nearest
