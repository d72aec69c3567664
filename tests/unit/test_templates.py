"""Templates: what a wrong one answers, and what this repository's own make of its cells.

The golden files hold the Dockerfiles of this repository's templates; after a wanted change, write
them again with `CURATOR_GOLDEN=write pytest tests/unit/test_templates.py`.
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from curator import matrix, settings
from curator.errors import InputError
from curator.recipe import Recipe, Templates, check, layers, render
from tests.recipes import INSTALLER, edited, lock_of, wheel, world
from tests.trees import lock_text, tiny_tree

GOLDEN = Path(__file__).parent / "golden"
TREE = settings.read_tree(Path(__file__).parents[2])
TEMPLATE = "dockerfiles/demo/Dockerfile.j2"

# One cell of each framework, with everything that its framework's file gives it.
SAMPLES = {
    "cupy": "cupy-14.2.0-cuda13.0-py3.11",
    "jax": "jax-0.10.2-cuda12.9-py3.11",
    "numba-cuda": "numba-cuda-0.30.4-cuda12.9-py3.13",
    "pytorch": "pytorch-2.9.1-cuda12.8-py3.11",
    "tensorflow": "tensorflow-2.20.0-cuda12.9-py3.13",
}


# Templates


def demo_error(*edits: tuple[str, str, str], **files: str) -> InputError:
    tree = edited(*edits) | {f"dockerfiles/{name}.j2": text for name, text in files.items()}
    found = matrix.load(tree)
    with pytest.raises(InputError) as raised:
        render(found.cells[0], found, Templates(tree), installer=INSTALLER)
    return raised.value


def place(error: InputError) -> tuple[str | None, int | None]:
    (finding,) = error.diagnostics
    assert finding.column == 1
    return finding.file, finding.line


WRONG = {
    "undefined name": ("{{ nothing }}", "'nothing' is undefined"),
    "undefined attribute": ("{{ cell.nothing }}", "no attribute 'nothing'"),
    "undefined in a condition": ("{% if nothing %}x{% endif %}", "'nothing' is undefined"),
    "undefined in a filter": ("{{ nothing | quoted }}", "'nothing' is undefined"),
    "no such item": ("{{ layers[99].name }}", "no element 99"),
    "unknown filter": ("{{ cell.id | shout }}", "No filter named 'shout'"),
    "open block": ("{% for layer in layers %}", "Unexpected end of template"),
    "bad expression": ("{{ cell. }}", "expected name or number"),
}


@pytest.mark.parametrize(("text", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_template_is_an_input_error_with_its_line(text: str, message: str) -> None:
    error = demo_error((TEMPLATE, tiny_tree()[TEMPLATE], f"FROM base\n\n{text}\n"))
    assert place(error) == (TEMPLATE, 3)
    assert message in str(error)


PYTHON_ERRORS = {
    "type": "{{ 1 + cell.id }}",
    "division": "{{ 1 // 0 }}",
    "call": "{{ cell.id() }}",
    "argument": "{{ cell.id.center() }}",
    "key": "{{ cell.id.format() ~ '{x}'.format() }}",
}


@pytest.mark.parametrize("text", PYTHON_ERRORS.values(), ids=PYTHON_ERRORS.keys())
def test_an_error_of_pythons_own_has_the_templates_line_too(text: str) -> None:
    error = demo_error((TEMPLATE, "FROM base\n", f"FROM base\n\n{text}\n"))
    assert place(error) == (TEMPLATE, 3)


def test_an_error_in_a_shared_template_is_reported_there() -> None:
    shared = "FROM base\n{% block framework %}{% endblock %}\n{{ nothing }}\n"
    error = demo_error((TEMPLATE, "FROM base\n", '{% extends "shared.j2" %}\n'), shared=shared)
    assert place(error) == ("dockerfiles/shared.j2", 3)


def test_a_syntax_error_in_a_shared_template_is_reported_there() -> None:
    shared = "FROM base\n{% for %}\n"
    error = demo_error((TEMPLATE, "FROM base\n", '{% extends "shared.j2" %}\n'), shared=shared)
    assert place(error) == ("dockerfiles/shared.j2", 2)


def test_an_error_in_a_block_is_reported_where_the_block_is() -> None:
    shared = "FROM base\n{% block framework %}{% endblock %}\n"
    text = '{% extends "shared.j2" %}\n{% block framework %}\n{{ nothing }}\n{% endblock %}\n'
    error = demo_error((TEMPLATE, tiny_tree()[TEMPLATE], text), shared=shared)
    assert place(error) == (TEMPLATE, 3)


@pytest.mark.parametrize(
    "name", ["../matrix/farm.yaml", "/etc/passwd", "demo/probe.py", "no.j2", "../demo/x.j2"]
)
def test_a_template_reads_templates_only(name: str) -> None:
    error = demo_error((TEMPLATE, "FROM base\n", f'{{% include "{name}" %}}\n'))
    assert name in str(error)
    assert "root:" not in str(error)


def test_a_template_that_extends_itself_is_an_input_error() -> None:
    text = '{% extends "demo/Dockerfile.j2" %}\n'
    assert place(demo_error((TEMPLATE, tiny_tree()[TEMPLATE], text)))[0] == TEMPLATE


def test_a_framework_without_a_template_is_an_input_error() -> None:
    tree = tiny_tree()
    found = matrix.load(tree)
    del tree[TEMPLATE]
    with pytest.raises(InputError, match="not below dockerfiles/"):
        render(found.cells[0], found, Templates(tree), installer=INSTALLER)


def test_check_finds_each_wrong_template_once() -> None:
    tree = edited((TEMPLATE, "FROM base\n", "{{ nothing }}\n"))
    for name in ("matrix/demo.yaml", TEMPLATE, "dockerfiles/demo/probe.py"):
        tree[name.replace("demo", "other")] = tree[name].replace("demo", "other")
    for version, cuda in (("1.0", "12.8"), ("2.0", "12.8"), ("2.0", "13.0")):
        lock = f"matrix/locks/other/other-{version}-cuda{cuda}-py3.11.txt"
        tree[lock] = lock_text(version, cuda, framework="other")
    with pytest.raises(InputError) as raised:
        check(matrix.load(tree), tree, installer=INSTALLER)
    files = [finding.file for finding in raised.value.diagnostics]
    assert sorted(map(str, files)) == [TEMPLATE, TEMPLATE.replace("demo", "other")]


def test_check_says_nothing_of_sound_templates() -> None:
    check(matrix.load(tiny_tree()), tiny_tree(), installer=INSTALLER)


def test_templates_are_compiled_once_for_all_cells() -> None:
    found, templates = matrix.load(TREE), Templates(TREE)
    cell = found.cells[0]
    render(cell, found, templates, installer=INSTALLER)
    start = time.process_time()
    for _ in range(200):
        render(cell, found, templates, installer=INSTALLER)
    # Compiling each time would take several times as long.
    assert time.process_time() - start < 0.4


# This repository's own templates


def sample(name: str, recipe: Literal["wheels", "toolkit"] = "wheels") -> Recipe:
    """Return the recipe of a cell of this repository, with a small lock and a made-up base."""
    cell = next(cell for cell in matrix.candidates(TREE) if cell.id == name)
    cell = replace(cell, recipe=recipe)
    major = cell.cuda.partition(".")[0]
    lock = lock_of(
        wheel(cell.package, cell.version, 500),
        wheel(f"nvidia-cuda-runtime-cu{major}", cell.cuda),
        wheel(f"nvidia-cublas-cu{major}", cell.cuda, 400),
        wheel("pip", "26.3", 2),
    )
    return render(cell, world(cell, lock), Templates(TREE), installer=INSTALLER)


def compare(name: str, text: str) -> None:
    path = GOLDEN / name
    if os.environ.get("CURATOR_GOLDEN") == "write":
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("framework", sorted(SAMPLES))
def test_the_dockerfile_of_a_framework(framework: str) -> None:
    compare(f"{framework}.Dockerfile", sample(SAMPLES[framework]).dockerfile)


def test_the_dockerfile_of_a_cell_that_needs_the_toolkit() -> None:
    compare("toolkit.Dockerfile", sample(SAMPLES["pytorch"], "toolkit").dockerfile)


def test_the_context_and_key_of_a_recipe() -> None:
    """A key that changes by accident would build the whole farm again."""
    recipe = sample(SAMPLES["cupy"])
    parts = [f"== {name}\n{text}" for name, text in recipe.context]
    compare("cupy.recipe", "".join([*parts, f"== key\n{recipe.key}\n"]))


def test_every_framework_has_a_golden_file() -> None:
    frameworks = {cell.framework for cell in matrix.candidates(TREE)}
    assert set(SAMPLES) == frameworks
    assert {path.stem for path in GOLDEN.glob("*.Dockerfile")} == {*frameworks, "toolkit"}


def test_every_cell_renders_with_each_wheel_once_and_in_order() -> None:
    found, templates = matrix.load(TREE), Templates(TREE)
    assert found.cells
    for cell in found.cells:
        recipe = render(cell, found, templates, installer=INSTALLER)
        final = recipe.dockerfile.rpartition("\nFROM ")[2]
        parts = layers(found.locks[cell.id], found.farm.alone_bytes)
        copied = re.findall(r"^COPY --link --from=(\S+) ", final, re.MULTILINE)
        assert copied == ["venv", *(part.name for part in parts), "settings"]
        assert "RUN" not in final.split()
        files = dict(recipe.context)
        assert set(files) == {"constraints.txt", *(part.file for part in parts)}
        lines = [line for part in parts for line in files[part.file].splitlines()]
        assert sorted(lines) == sorted(wheel.line for wheel in found.locks[cell.id].wheels)


def test_no_image_has_many_layers() -> None:
    """Each layer is one more mount and one more request; unpacking goes one by one."""
    found = matrix.load(TREE)
    counts = {
        cell.id: len(layers(found.locks[cell.id], found.farm.alone_bytes)) for cell in found.cells
    }
    assert max(counts.values()) <= 16
