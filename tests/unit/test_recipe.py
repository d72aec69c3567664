"""Recipes: what the layers are, what reaches the key and what does not, what an image carries."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curator import matrix
from curator.lockfile import BaseLock, ImageLock, Lock, parse_lock
from curator.oci import sha256
from curator.recipe import (
    KEY_LABEL,
    Templates,
    base_key,
    constraints,
    image_environment,
    image_labels,
    layers,
    render,
)
from tests.recipes import INSTALLER, MIB, SMALL_LOCK, cell_of, edited, lock_of, wheel
from tests.trees import tiny_tree

if TYPE_CHECKING:
    from collections.abc import Mapping

TEMPLATE = "dockerfiles/demo/Dockerfile.j2"
LOCK = "matrix/locks/demo/demo-2.0-cuda12.8-py3.11.txt"


# Layers


def test_big_wheels_stand_alone_and_small_ones_in_two_groups() -> None:
    found = layers(SMALL_LOCK, 32 * MIB)
    assert [[item.name for item in layer.wheels] for layer in found] == [
        ["nvidia-cublas-cu12"],
        ["nvidia-cuda-runtime-cu12", "nvidia-nvtx-cu12"],
        ["demo-pkg"],
        ["packaging"],
    ]
    titles = [layer.name.rpartition("-")[0] for layer in found]
    assert titles == ["nvidia-cublas-cu12", "cuda", "demo-pkg", "rest"]


def test_a_wheel_of_exactly_the_limit_stands_alone() -> None:
    lock = lock_of(wheel("a", size_mib=32), wheel("b", size_mib=31), wheel("c", size_mib=31))
    assert [len(layer.wheels) for layer in layers(lock, 32 * MIB)] == [1, 2]


def test_an_empty_group_is_no_layer() -> None:
    assert len(layers(lock_of(wheel("torch", size_mib=800)), 32 * MIB)) == 1
    assert len(layers(lock_of(wheel("nvidia-nvtx-cu12")), 32 * MIB)) == 1


def test_a_layer_is_what_uv_installs_with_hashes() -> None:
    (layer,) = layers(lock_of(wheel("a", "1.0"), wheel("b", "2.0rc1")), 32 * MIB)
    assert layer.text == (
        f"a==1.0 --hash=sha256:{wheel('a').sha256}\n"
        f"b==2.0rc1 --hash=sha256:{wheel('b', '2.0rc1').sha256}\n"
    )
    assert layer.file == f"layers/{layer.name}.txt"


def test_a_layers_name_is_made_of_its_lines_alone() -> None:
    (first,) = layers(lock_of(wheel("a")), 32 * MIB)
    (other_size,) = layers(lock_of(wheel("a", size_mib=2)), 32 * MIB)
    (other_version,) = layers(lock_of(wheel("a", "1.1")), 32 * MIB)
    (other_file,) = layers(lock_of(replace(wheel("a"), sha256="0" * 64)), 32 * MIB)
    assert other_size.name == first.name
    assert len({first.name, other_version.name, other_file.name}) == 3


NAMES = [
    *(f"nvidia-{part}-cu12" for part in ("cublas", "cudnn", "cufft", "nccl", "nvtx")),
    *(f"cuda-{part}" for part in ("bindings", "pathfinder", "toolkit")),
    *("jax", "numpy", "packaging", "pip", "torch", "triton"),
]
WHEELS = st.builds(
    wheel,
    st.sampled_from(NAMES),
    st.sampled_from(["1.0", "2.0"]),
    st.sampled_from([1, 31, 32, 33, 500]),
)
LOCKS = st.lists(WHEELS, min_size=1, unique_by=lambda item: item.name).map(
    lambda found: lock_of(*found)
)


@settings(max_examples=50)
@given(LOCKS)
def test_every_wheel_is_in_exactly_one_layer(lock: Lock) -> None:
    found = layers(lock, 32 * MIB)
    installed = [item for layer in found for item in layer.wheels]
    assert sorted(installed, key=lambda item: item.name) == list(lock.wheels)
    assert len({layer.name for layer in found}) == len(found)


@settings(max_examples=50)
@given(LOCKS, LOCKS)
def test_layers_of_all_images_stand_in_one_order(one: Lock, other: Lock) -> None:
    first = [layer.name for layer in layers(one, 32 * MIB)]
    second = [layer.name for layer in layers(other, 32 * MIB)]
    common = set(first) & set(second)
    assert [name for name in first if name in common] == [name for name in second if name in common]


@settings(max_examples=50)
@given(LOCKS)
def test_layer_names_are_stage_names(lock: Lock) -> None:
    taken = {"base", "start", "venv", "settings", "uv"}
    for layer in layers(lock, 32 * MIB):
        assert re.fullmatch(r"[a-z][a-z0-9_.-]*", layer.name)
        assert layer.name not in taken


# What is in the key, and what is not


def keys(tree: Mapping[str, str], *, installer: str = INSTALLER) -> dict[str, str]:
    """Return the key of each cell of a farm."""
    found = matrix.load(tree)
    templates = Templates(tree)
    return {
        cell.id: render(cell, found, templates, installer=installer).key for cell in found.cells
    }


def changed(tree: Mapping[str, str]) -> set[str]:
    """Return the cells whose key is not the tiny farm's."""
    before, after = keys(tiny_tree()), keys(tree)
    return {name for name in before if before[name] != after.get(name)}


EVERY = set(keys(tiny_tree()))


def test_a_key_is_the_same_each_time() -> None:
    assert keys(tiny_tree()) == keys(dict(reversed(tiny_tree().items())))
    assert all(re.fullmatch(r"[0-9a-f]{64}", key) for key in keys(tiny_tree()).values())
    assert len(set(keys(tiny_tree()).values())) == len(EVERY)


REACHES_NOTHING = {
    "registry": ("matrix/farm.yaml", "epoch:", "registry: registry.example:5000/farm\nepoch:"),
    "store": ("matrix/farm.yaml", "epoch:", "store: published\nepoch:"),
    "jobs": ("matrix/farm.yaml", "epoch:", "jobs: 7\nepoch:"),
    "timeouts": ("matrix/farm.yaml", "epoch:", "timeouts: {build: 9, smoke: 9}\nepoch:"),
    "demo": ("matrix/farm.yaml", '"demo-*"', '"demo-2*"'),
    "size of a layer": ("matrix/farm.yaml", "epoch:", "layers: {alone_mib: 9}\nepoch:"),
    "comment": ("matrix/demo.yaml", "framework:", "# why\nframework:"),
    "reason": ("matrix/demo.yaml", "too old for CUDA 13", "no wheel"),
    "driver": ("matrix/cuda.yaml", "525.60.13", "528.33"),
    "probe": ("dockerfiles/demo/probe.py", "expected", "wanted"),
    "cut-off": (LOCK, "2026-11-22T00:00:00Z", "2026-11-23T00:00:00Z"),
    "resolver": (LOCK, "# uv: 0.13.9", "# uv: 0.13.8"),
    "size of a file": (LOCK, "# 1000 bytes", "# 1001 bytes"),
    "packages of a base": (
        "matrix/locks/bases/debian-12-linux-amd64.json",
        '"libc6": "2.36"',
        '"libc6": "2.36-9"',
    ),
}  # fmt: skip


@pytest.mark.parametrize("edit", REACHES_NOTHING.values(), ids=REACHES_NOTHING.keys())
def test_what_reaches_no_image_is_not_in_the_key(edit: tuple[str, str, str]) -> None:
    assert changed(edited(edit)) == set()


REACHES_ALL = {
    "template": (TEMPLATE, "FROM base\n", "FROM base\nRUN true\n"),
    "epoch": ("matrix/farm.yaml", "1700000000", "1700000001"),
    "constraints": ("matrix/demo.yaml", "constrain: [demo-pkg]", 'constrain: ["nvidia-*"]'),
    "base": (
        "matrix/locks/bases/debian-12-linux-amd64.json",
        sha256(b"debian-12"),
        sha256(b"another root file system"),
    ),
}


@pytest.mark.parametrize("edit", REACHES_ALL.values(), ids=REACHES_ALL.keys())
def test_what_reaches_every_image_is_in_every_key(edit: tuple[str, str, str]) -> None:
    assert changed(edited(edit)) == EVERY


def test_the_installer_is_in_every_key() -> None:
    after = keys(tiny_tree(), installer="uv 0.13.10")
    assert not set(after.values()) & set(keys(tiny_tree()).values())


def test_a_changed_lock_is_in_the_key_of_its_cell_alone() -> None:
    held = parse_lock(tiny_tree()[LOCK], file=LOCK).wheels[0].sha256
    assert changed(edited((LOCK, held, "0" * 64))) == {"demo-2.0-cuda12.8-py3.11"}


def test_what_an_image_says_of_itself_is_in_its_key() -> None:
    template = "{{ env }} {{ labels }}\n"
    tree = edited(
        (TEMPLATE, "FROM base\n", template),
        ("matrix/demo.yaml", "exclude:", "env: {SHOWN: here}\nexclude:"),
    )
    assert changed(tree) == EVERY
    before = keys(tree)
    tree["matrix/demo.yaml"] = tree["matrix/demo.yaml"].replace("here", "there")
    assert not set(before.values()) & set(keys(tree).values())


def test_no_registry_is_in_a_recipe() -> None:
    host = "registry.example:5000"
    tree = edited(("matrix/farm.yaml", "epoch:", f"registry: {host}/farm\nepoch:"))
    found = matrix.load(tree)
    assert found.farm.registry == f"{host}/farm"
    for cell in found.cells:
        assert host not in repr(render(cell, found, Templates(tree), installer=INSTALLER))


def test_the_key_is_a_label_that_is_added_after_hashing() -> None:
    found = matrix.load(tiny_tree())
    recipe = render(found.cells[0], found, Templates(tiny_tree()), installer=INSTALLER)
    assert recipe.labels == {KEY_LABEL: recipe.key}
    assert recipe.key not in recipe.dockerfile
    assert recipe.key not in repr(recipe.context)


def test_a_base_is_its_contents_and_not_its_packages_names() -> None:
    found = matrix.load(tiny_tree())
    base, lock = found.bases["debian-12"], found.base_locks["debian-12", "linux/amd64"]
    assert isinstance(lock, BaseLock)
    assert base_key(base, lock) == base_key(base, replace(lock, packages=()))
    assert base_key(base, lock) != base_key(base, replace(lock, diff_id=sha256(b"other")))
    assert base_key(base, lock) != base_key(replace(base, epoch=base.epoch + 1), lock)


def test_a_pulled_base_is_its_digest_and_not_its_tag() -> None:
    base = matrix.load(tiny_tree()).bases["debian-12"]
    lock = ImageLock(
        name="toolkit", platform="linux/amd64", reference="a/b:1", digest=sha256(b"one")
    )
    assert base_key(base, lock) == base_key(base, replace(lock, reference="a/b:2"))
    assert base_key(base, lock) != base_key(base, replace(lock, digest=sha256(b"two")))


# What an image carries


def test_constraints_hold_the_framework_and_what_the_globs_name() -> None:
    assert constraints(cell_of(), SMALL_LOCK) == (
        "demo-pkg==1.0\n"
        "nvidia-cublas-cu12==12.8.4.1\n"
        "nvidia-cuda-runtime-cu12==12.8.90\n"
        "nvidia-nvtx-cu12==12.8.90\n"
    )
    assert constraints(cell_of(constrain=()), SMALL_LOCK) == "demo-pkg==1.0\n"
    assert "packaging" not in constraints(cell_of(constrain=("nvidia-*", "pack")), SMALL_LOCK)


def test_an_image_asks_for_its_driver_family_and_no_more() -> None:
    found = image_environment(cell_of(cuda="12.9"))
    assert found["NVIDIA_REQUIRE_CUDA"] == "cuda>=12.0"
    assert "CUDA_VERSION" not in found
    assert "NVIDIA_REQUIRE_ARCH" not in found
    assert image_environment(cell_of(sm_min="7.5"))["NVIDIA_REQUIRE_ARCH"] == "arch>=7.5"


def test_a_framework_adds_to_the_environment() -> None:
    found = image_environment(cell_of(env=(("XLA_FLAGS", "--x"),)))
    assert found["XLA_FLAGS"] == "--x"
    assert found["PATH"].startswith("/opt/env/bin:")
    assert found["PIP_CONSTRAINT"] == found["UV_CONSTRAINT"] == "/opt/env/constraints.txt"
    assert found["NVIDIA_VISIBLE_DEVICES"] == "all"
    assert found["NVIDIA_DRIVER_CAPABILITIES"] == "compute,utility"


def test_labels_name_the_cell_and_where_it_starts_from() -> None:
    base = matrix.load(tiny_tree()).bases["debian-12"]
    found = image_labels(cell_of(), base)
    assert found["dev.curator.cell"] == "demo-1.0-cuda12.8-py3.11"
    assert found["org.opencontainers.image.version"] == "1.0"
    assert found["org.opencontainers.image.base.name"] == "debian-12"
    pulled = replace(base, reference="nvidia/cuda:12.8.1-devel")
    assert image_labels(cell_of(), pulled)["org.opencontainers.image.base.name"].endswith("-devel")


@pytest.mark.parametrize(
    ("value", "word"),
    [
        ("plain", '"plain"'),
        ("two words", '"two words"'),
        ('say "x"', r'"say \"x\""'),
        ("$HOME ${HOME}", r'"\$HOME \${HOME}"'),
        ("a\\b", r'"a\\b"'),
        ("", '""'),
    ],
)
def test_values_are_quoted_for_a_dockerfile(value: str, word: str) -> None:
    tree = {TEMPLATE: "{{ cell.env[0][1] | quoted }}"}
    text = Templates(tree).render("demo/Dockerfile.j2", {"cell": cell_of(env=(("A", value),))})
    assert text == word
