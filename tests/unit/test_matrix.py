"""The matrix: what it says, and every way in which it can be wrong."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator import matrix
from curator.errors import EmptySelectionError, InputError
from curator.lockfile import parse_lock
from curator.recipe import Templates, render
from tests.trees import DEMO, base_text, lock_text, synthetic_tree, tiny_tree

DEMO_YAML = "matrix/demo.yaml"
LOCK = "matrix/locks/demo/demo-2.0-cuda12.8-py3.11.txt"


def edited(file: str, old: str, new: str) -> dict[str, str]:
    tree = tiny_tree()
    assert old in tree[file], f"{old!r} is not in {file}"
    tree[file] = tree[file].replace(old, new, 1)
    return tree


def without(*files: str) -> dict[str, str]:
    return {name: text for name, text in tiny_tree().items() if name not in files}


def test_cells_and_rejections_of_a_farm() -> None:
    found = matrix.load(tiny_tree())
    assert [cell.id for cell in found.cells] == [
        "demo-1.0-cuda12.8-py3.11",
        "demo-2.0-cuda12.8-py3.11",
        "demo-2.0-cuda13.0-py3.11",
    ]
    (rejected,) = found.rejected
    assert (rejected.id, rejected.because, rejected.source) == (
        "demo-1.0-cuda13.0-py3.11",
        "too old for CUDA 13",
        "release notes",
    )
    assert found.cells[2].requirements == ("demo-pkg==2.0", "cuda-toolkit==13.0.2")
    assert found.cells[0].line == 5


def test_versions_are_ordered_as_versions() -> None:
    found = matrix.load(synthetic_tree(24))
    versions = [cell.version for cell in found.cells if cell.cuda == "12.8"]
    assert versions == [f"2.{number}" for number in range(12)]


def test_a_platform_is_named_where_it_is_not_the_usual_one() -> None:
    tree = edited(DEMO_YAML, "platform: [linux/amd64]", "platform: [linux/amd64, linux/arm64]")
    ids = [cell.id for cell in matrix.candidates(tree)]
    assert "demo-2.0-cuda12.8-py3.11-arm64" in ids
    assert "demo-2.0-cuda12.8-py3.11" in ids


def test_what_the_index_cannot_serve_is_rejected_with_its_reason() -> None:
    tree = without(LOCK)
    tree["matrix/locks/demo/rejected.json"] = (
        '{"demo-2.0-cuda12.8-py3.11": {"because": "no wheel", "source": "package index"}}'
    )
    found = matrix.load(tree)
    assert ("demo-2.0-cuda12.8-py3.11", "no wheel") in [
        (item.id, item.because) for item in found.rejected
    ]


def test_requirements_that_only_some_combinations_need() -> None:
    also = 'also:\n  - {version: "<2", requirements: ["numpy<2"], because: compiled for it}\n'
    cells = matrix.candidates(edited(DEMO_YAML, "constrain:", also + "constrain:"))
    needs = {cell.id: "numpy<2" in cell.requirements for cell in cells}
    assert needs == {
        "demo-1.0-cuda12.8-py3.11": True,
        "demo-2.0-cuda12.8-py3.11": False,
        "demo-2.0-cuda13.0-py3.11": False,
    }


@dataclass(frozen=True)
class Broken:
    """A wrong farm, and the finding that it has to give."""

    tree: dict[str, str]
    code: str
    place: str
    told: str


BROKEN = {
    "bad yaml": Broken(
        edited(DEMO_YAML, "package: demo-pkg", "package: [demo-pkg"),
        "yaml",
        "matrix/demo.yaml:3:",
        "not YAML",
    ),
    "tab": Broken(
        edited(DEMO_YAML, "  version:", "\tversion:"), "yaml", "matrix/demo.yaml:5:1", "not YAML"
    ),
    "duplicate key": Broken(
        edited(DEMO_YAML, "package: demo-pkg", "package: demo-pkg\npackage: other"),
        "duplicate-key",
        "matrix/demo.yaml:3:1",
        "first on line 2",
    ),
    "unknown key": Broken(
        edited(DEMO_YAML, "requirements:", "requirement:"),
        "unknown-key",
        "matrix/demo.yaml:9:1",
        "did you mean 'requirements'?",
    ),
    "unknown nested key": Broken(
        edited(DEMO_YAML, "because:", "becuase:"),
        "unknown-key",
        "matrix/demo.yaml:12:35",
        "did you mean 'because'?",
    ),
    "missing key": Broken(
        edited(DEMO_YAML, "package: demo-pkg\n", ""),
        "missing-key",
        "matrix/demo.yaml:1:1",
        "'package' is missing",
    ),
    "wrong type": Broken(
        edited(DEMO_YAML, "constrain: [demo-pkg]", "constrain: demo-pkg"),
        "wrong-value",
        "matrix/demo.yaml:10:12",
        "valid list",
    ),
    "unquoted version": Broken(
        edited(DEMO_YAML, 'cuda: ["12.8", "13.0"]', 'cuda: [12.10, "13.0"]'),
        "unquoted",
        "matrix/demo.yaml:6:10",
        '12.10 is read as the number 12.1, not as text (quote it: "12.10")',
    ),
    "unquoted whole number": Broken(
        edited(DEMO_YAML, '["1.0", "2.0"]', '[1, "2.0"]'),
        "unquoted",
        "matrix/demo.yaml:5:13",
        'quote it: "1"',
    ),
    "unquoted key": Broken(
        edited(DEMO_YAML, 'bases: {"3.11"', "bases: {3.11"),
        "unquoted",
        "matrix/demo.yaml:3:9",
        'quote it: "3.11"',
    ),
    "a version that no tag can hold": Broken(
        edited(DEMO_YAML, '["1.0", "2.0"]', '["1.0", "3!2.0+cu124"]'),
        "bad-value",
        "matrix/demo.yaml:5:20",
        "is not a version",
    ),
    "no version": Broken(
        edited(DEMO_YAML, '["1.0", "2.0"]', '["newest", "2.0"]'),
        "bad-value",
        "matrix/demo.yaml:5:13",
        "'newest' is not a version",
    ),
    "empty axis": Broken(
        edited(DEMO_YAML, 'version: ["1.0", "2.0"]', "version: []"),
        "wrong-value",
        "matrix/demo.yaml:5:12",
        "at least 1 item",
    ),
    "value twice": Broken(
        edited(DEMO_YAML, '["1.0", "2.0"]', '["1.0", "1.0", "2.0"]'),
        "duplicate-value",
        "matrix/demo.yaml:5:20",
        "already",
    ),
    "no platform": Broken(
        edited(DEMO_YAML, "linux/amd64", "amd64"),
        "bad-value",
        "matrix/demo.yaml:8:14",
        "a platform such as linux/amd64",
    ),
    "exclude names an unknown axis": Broken(
        edited(DEMO_YAML, '{version: "<2", cuda: ">=13"', '{framework: jax, cuda: ">=13"'),
        "unknown-key",
        "matrix/demo.yaml:12:6",
        "'framework'",
    ),
    "exclude matches nothing": Broken(
        edited(DEMO_YAML, '"<2"', '"<1"'),
        "idle-exclude",
        "matrix/demo.yaml:12:5",
        "matches no combination",
    ),
    "exclude without a reason": Broken(
        edited(DEMO_YAML, "because: too old for CUDA 13, ", ""),
        "missing-key",
        "matrix/demo.yaml:12:5",
        "'because' is missing",
    ),
    "exclude of everything": Broken(
        edited(DEMO_YAML, 'version: "<2", cuda: ">=13", ', ""),
        "no-condition",
        "matrix/demo.yaml:12:5",
        "match everything",
    ),
    "bad specifier": Broken(
        edited(DEMO_YAML, '"<2"', '"<two"'),
        "bad-specifier",
        "matrix/demo.yaml:12:15",
        "no specifier",
    ),
    "unknown base": Broken(
        edited(DEMO_YAML, "debian-12}", "debian-11}"),
        "unknown-base",
        "matrix/demo.yaml:3:17",
        "known: debian-12",
    ),
    "base of another python": Broken(
        edited("matrix/bases.yaml", 'python: "3.11"', 'python: "3.12"'),
        "wrong-base",
        "matrix/demo.yaml:3:17",
        "has Python 3.12, not 3.11",
    ),
    "cycle": Broken(
        edited("matrix/bases.yaml", "{kind: mmdebstrap,", "{extends: debian-12,"),
        "cycle",
        "matrix/bases.yaml:",
        "in a circle",
    ),
    "unknown cuda": Broken(
        edited(DEMO_YAML, '"12.8"', '"12.7"'),
        "unknown-cuda",
        "matrix/demo.yaml:6:10",
        "no facts about CUDA 12.7",
    ),
    "unknown template field": Broken(
        edited(DEMO_YAML, "demo-pkg=={version}", "demo-pkg=={verison}"),
        "unknown-field",
        "matrix/demo.yaml:9:16",
        "'verison'",
    ),
    "file of another name": Broken(
        edited(DEMO_YAML, "framework: demo", "framework: other"),
        "file-name",
        "matrix/demo.yaml:1:12",
        "name it other.yaml",
    ),
    "path escape": Broken(
        edited(DEMO_YAML, "framework: demo", "framework: ../../etc"),
        "wrong-value",
        "matrix/demo.yaml:1:12",
        "pattern",
    ),
    "alias": Broken(
        edited(DEMO_YAML, "constrain: [demo-pkg]", "constrain: &a [demo-pkg]"),
        "alias",
        "matrix/demo.yaml:10:12",
        "write the value out",
    ),
    "two documents": Broken(
        edited(DEMO_YAML, "package:", "---\npackage:"), "yaml", "matrix/demo.yaml:2:1", "not YAML"
    ),
    "empty file": Broken(
        {**tiny_tree(), DEMO_YAML: "# nothing\n"}, "yaml", "matrix/demo.yaml:1:1", "empty"
    ),
    "list for a file": Broken(
        {**tiny_tree(), DEMO_YAML: "- demo\n"}, "yaml", "matrix/demo.yaml:1:1", "not a mapping"
    ),
    "ten megabytes": Broken(
        {**tiny_tree(), DEMO_YAML: DEMO + "#" * 10_000_000},
        "too-big",
        "matrix/demo.yaml:1:1",
        "1048576",
    ),
    "nested for ever": Broken(
        edited(DEMO_YAML, "[demo-pkg]", "[" * 100 + "x" + "]" * 100),
        "too-deep",
        "matrix/demo.yaml:10:",
        "nested",
    ),
    "missing lock": Broken(
        without(LOCK), "no-lock", "matrix/demo.yaml:5:1", "run `curator lock demo-2.0-cuda12.8"
    ),
    "lock without hashes": Broken(
        edited(LOCK, "demo-pkg==2.0 --hash=sha256:", "demo-pkg==2.0 #"),
        "no-hash",
        f"{LOCK}:8:1",
        "written by `curator lock`",
    ),
    "unpinned lock": Broken(
        edited(LOCK, "demo-pkg==2.0", "demo-pkg>=2.0"), "unpinned", f"{LOCK}:8:1", "not pinned"
    ),
    "lock without its header": Broken(
        edited(LOCK, "# python: 3.11\n", ""), "lock-header", f"{LOCK}:3:1", "# python:"
    ),
    "lock of another cell": Broken(
        {**tiny_tree(), LOCK: lock_text("1.0", "12.8")},
        "stale-lock",
        f"{LOCK}:2:1",
        "of demo-1.0-cuda12.8-py3.11, not of demo-2.0",
    ),
    "stale lock": Broken(
        edited(DEMO_YAML, '"cuda-toolkit==', '"wheel", "cuda-toolkit=='),
        "stale-lock",
        "matrix/locks/demo/demo-1.0-cuda12.8-py3.11.txt:2:1",
        "other requirements",
    ),
    "lock of another cuda": Broken(
        edited(LOCK, "nvidia-cuda-runtime-cu12==12.8.90", "nvidia-cuda-runtime-cu12==12.9.79"),
        "stale-lock",
        f"{LOCK}:2:1",
        "holds CUDA 12.9, not 12.8",
    ),
    "lock of nothing": Broken(
        {**tiny_tree(), "matrix/locks/demo/demo-9.0-cuda12.8-py3.11.txt": lock_text("2.0", "12.8")},
        "orphan",
        "matrix/locks/demo/demo-9.0-cuda12.8-py3.11.txt",
        "remove it",
    ),
    "locked and rejected": Broken(
        {
            **tiny_tree(),
            "matrix/locks/demo/rejected.json": (
                '{"demo-2.0-cuda12.8-py3.11": {"because": "a", "source": "b"}}'
            ),
        },
        "orphan",
        "matrix/locks/demo/rejected.json:1:1",
        "has a lock, or is no combination",
    ),
    "missing base lock": Broken(
        without("matrix/locks/bases/debian-12-linux-amd64.json"),
        "no-lock",
        "matrix/bases.yaml",
        "run `curator lock --bases debian-12`",
    ),
    "bad base lock": Broken(
        {
            **tiny_tree(),
            "matrix/locks/bases/debian-12-linux-amd64.json": base_text().replace("sha256", "md5"),
        },
        "base-lock",
        "matrix/locks/bases/debian-12-linux-amd64.json:1:1",
        "not a base's lock",
    ),
    "missing facts": Broken(
        without("matrix/cuda.yaml"), "missing-file", "matrix/cuda.yaml", "missing"
    ),
    "missing farm": Broken(
        without("matrix/farm.yaml"), "missing-file", "matrix/farm.yaml", "missing"
    ),
    "missing template": Broken(
        without("dockerfiles/demo/Dockerfile.j2"),
        "missing-file",
        "matrix/demo.yaml:1:12",
        "dockerfiles/demo/Dockerfile.j2 is missing",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_farm_is_told_where_and_how(name: str) -> None:
    broken = BROKEN[name]
    with pytest.raises(InputError) as caught:
        matrix.load(broken.tree)
    finding = next((d for d in caught.value.diagnostics if d.code == broken.code), None)
    assert finding is not None, [str(d) for d in caught.value.diagnostics]
    assert str(finding).startswith(broken.place)
    assert broken.told in str(finding)
    assert caught.value.exit_code == 2


def test_findings_of_all_files_come_at_once() -> None:
    tree = edited(DEMO_YAML, '"12.8"', "12.8")
    tree["matrix/farm.yaml"] = "epoch: soon\ndemo: []\n"
    tree["matrix/cuda.yaml"] = "releases: {}\n"
    with pytest.raises(InputError) as caught:
        matrix.load(tree)
    files = {finding.file for finding in caught.value.diagnostics}
    assert files == {"matrix/cuda.yaml", "matrix/demo.yaml", "matrix/farm.yaml"}
    assert len(caught.value.diagnostics) >= 4


def test_an_undefined_name_in_a_template_has_a_position() -> None:
    template = "dockerfiles/demo/Dockerfile.j2"
    tree = edited(template, "FROM base\n", "FROM base\nENV A={{ nothing }}\n")
    found = matrix.load(tree)
    with pytest.raises(InputError) as caught:
        render(found.cells[0], found, Templates(tree), installer="uv 0")
    assert str(caught.value).startswith(f"{template}:2:1: 'nothing' is undefined")


@given(st.data())
def test_damaged_files_give_findings_and_nothing_else(data: st.DataObject) -> None:
    tree = tiny_tree()
    name = data.draw(st.sampled_from(sorted(tree)))
    text = tree[name]
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 20)))
    tree[name] = text[:start] + data.draw(st.text(max_size=8)) + text[end:]
    with contextlib.suppress(InputError):
        found = matrix.load(tree)
        cells = {cell.id for cell in found.cells}
        assert cells
        assert cells == set(found.locks)


IDS = ("cupy-14.2-cuda12.9", "cupy-14.2-cuda13.0", "jax-0.10-cuda12.9", "jax-0.10-cuda13.0")


@pytest.mark.parametrize(
    ("selectors", "chosen"),
    [
        ((), IDS),
        (("cupy-*",), IDS[:2]),
        (("*-cuda13*", "jax-*"), IDS[1:]),
        (("{cupy,jax}-*-cuda{12.9}",), (IDS[0], IDS[2])),
        (("*", "!*-cuda12*"), (IDS[1], IDS[3])),
        (("!jax-*",), IDS[:2]),
        (("{cupy-14.2-cuda{12.9,13.0},jax-*12.9}",), IDS[:3]),
    ],
)
def test_selectors(selectors: tuple[str, ...], chosen: tuple[str, ...]) -> None:
    assert matrix.select(IDS, selectors) == chosen


def test_a_selector_that_matches_nothing_names_the_nearest() -> None:
    with pytest.raises(EmptySelectionError, match=r"nearest: .*cupy-14\.2-cuda13\.0"):
        matrix.select(IDS, ("cupy-14.2-cuda13.1",))


def test_github_matrices_have_at_most_256_jobs() -> None:
    cells = matrix.load(synthetic_tree(600)).cells
    chunks = matrix.emit_github(cells)
    assert [len(chunk["include"]) for chunk in chunks] == [256, 256, 88]
    assert chunks[0]["include"][0]["id"] == cells[0].id


def test_the_committed_farm_is_valid_and_wide(farm_tree: matrix.Tree) -> None:
    found = matrix.load(farm_tree)
    assert {cell.framework for cell in found.cells} == {
        "cupy",
        "jax",
        "numba-cuda",
        "pytorch",
        "tensorflow",
    }
    assert len(found.cells) >= 60
    assert all(item.because and item.source for item in found.rejected)
    for cell in found.cells:
        assert parse_lock(farm_tree[cell.lock_path], file=cell.lock_path).cuda == cell.cuda
