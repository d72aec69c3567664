"""The engine port against a real engine: what is built, and that it runs."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from curator import matrix
from curator.engine import BuildxEngine, build_secrets
from curator.oci import Reference, hex_of, sha256
from curator.recipe import KEY_LABEL, Recipe, Templates, render
from curator.registry import HttpRegistry
from tests.indexes import Index, Wheel, serving
from tests.recipes import AMD64, INSTALLER, cell_of, lock_of, world
from tests.workshop import (
    BIG_CUDA,
    FRAMEWORK,
    SMALL,
    SMALL_CUDA,
    TREE,
    WHEELS,
    Container,
    Layout,
    Workshop,
    processes,
    recipe_of,
    secrets_for,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from curator.lockfile import Lock
    from curator.ports import EngineAddress

ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
EPOCH = 1700000000
AWKWARD = (("AWKWARD", "a \"quoted\" $PATH ${HOME} \\ 'back' #x"), ("EMPTY", ""))


@pytest.fixture(scope="module")
def made(
    engine_address: EngineAddress,
    base: Reference,
    index: Index,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Workshop, Recipe, Layout]:
    """One image of all wheels, for the tests that only look at it."""
    directory = tmp_path_factory.mktemp("made")
    workshop = Workshop(
        engine=BuildxEngine(address=engine_address),
        base=base,
        directory=directory,
        secrets=secrets_for(index.address, directory),
        cancelled=threading.Event(),
    )
    recipe = recipe_of(*WHEELS, env=AWKWARD)
    return workshop, recipe, workshop.build(recipe)


@pytest.fixture(scope="module")
def container(
    made: tuple[Workshop, Recipe, Layout], engine_address: EngineAddress, registry_address: str
) -> Iterator[Container]:
    target = Reference(registry=registry_address, repository="t/engine/made", tag="latest")
    image = target.with_digest(HttpRegistry().push(made[2].path, target))
    yield Container(engine_address.command, image)
    subprocess.run([*engine_address.command, "rmi", str(image)], capture_output=True, check=False)


# What is built


def test_an_engine_builds_for_its_own_platform_first(engine_address: EngineAddress) -> None:
    assert BuildxEngine(address=engine_address).platforms()[0] == AMD64


def test_the_digest_is_the_layouts_own(made: tuple[Workshop, Recipe, Layout]) -> None:
    layout = made[2]
    listed = json.loads((layout.path / "index.json").read_text())["manifests"]
    assert [item["digest"] for item in listed] == [layout.digest]
    for path in (layout.path / "blobs" / "sha256").iterdir():
        assert hex_of(sha256(path.read_bytes())) == path.name


def test_an_image_has_a_layer_for_each_layer_of_its_recipe(
    made: tuple[Workshop, Recipe, Layout],
) -> None:
    layers = made[2].image["layers"]
    # base, venv, big CUDA, small CUDA, framework, rest, settings, and the one of WORKDIR
    assert len(layers) == 8
    assert layers[-1]["size"] < 200
    assert {layer["mediaType"] for layer in layers[1:]} == {ZSTD}


def test_an_image_says_what_it_is(made: tuple[Workshop, Recipe, Layout]) -> None:
    _, recipe, layout = made
    config = layout.config["config"]
    assert config["User"] == "1000:1000"
    assert config["WorkingDir"] == "/home/user"
    assert config["Labels"][KEY_LABEL] == recipe.key
    assert config["Labels"]["dev.curator.cell"] == recipe.cell
    environment = dict(item.split("=", 1) for item in config["Env"])
    assert environment["NVIDIA_REQUIRE_CUDA"] == "cuda>=12.0"
    assert {name: environment[name] for name, _ in AWKWARD} == dict(AWKWARD)


def test_no_clock_and_no_machine_reach_an_image(made: tuple[Workshop, Recipe, Layout]) -> None:
    workshop, _, layout = made
    config = layout.config
    assert config["created"] == "2023-11-14T22:13:20Z"
    assert {item["created"] for item in config["history"] if "created" in item} <= {
        "2023-11-14T22:13:20Z"
    }
    text = json.dumps([config, layout.image])
    assert str(workshop.directory) not in text
    assert workshop.base.registry not in text


def test_an_image_carries_its_provenance(made: tuple[Workshop, Recipe, Layout]) -> None:
    layout = made[2]
    kinds = [
        item.get("annotations", {}).get("vnd.docker.reference.type")
        for item in layout.index.json()["manifests"]
    ]
    assert kinds == [None, "attestation-manifest"]


def test_nothing_but_the_layout_and_the_log_is_left(made: tuple[Workshop, Recipe, Layout]) -> None:
    workshop = made[0]
    left = sorted(path.name for path in workshop.directory.iterdir())
    assert left == ["layout", "logs", "secrets"]
    assert processes(str(workshop.directory)) == []


def test_the_log_has_every_step(made: tuple[Workshop, Recipe, Layout]) -> None:
    workshop, recipe, _ = made
    text = workshop.log.read_text()
    for name, _ in recipe.context:
        if name.startswith("layers/"):
            assert Path(name).stem in text


def test_the_same_recipe_gives_the_same_image_without_any_cache(workshop: Workshop) -> None:
    cold = replace(workshop, engine=replace(workshop.engine, cache=False))
    one = cold.build(recipe_of(*WHEELS), "one")
    two = cold.build(recipe_of(*WHEELS), "two")
    assert one.platform_digest == two.platform_digest


def test_the_umask_of_the_building_machine_does_not_reach_an_image(workshop: Workshop) -> None:
    cold = replace(workshop, engine=replace(workshop.engine, cache=False))
    digests = []
    for mask in (0o022, 0o077):
        before = os.umask(mask)
        try:
            digests.append(cold.build(recipe_of(SMALL), f"mask-{mask:o}").platform_digest)
        finally:
            os.umask(before)
    assert digests[0] == digests[1]


def test_images_share_the_layers_of_common_wheels(workshop: Workshop) -> None:
    cold = replace(workshop, engine=replace(workshop.engine, cache=False))
    one = cold.build(recipe_of(BIG_CUDA, FRAMEWORK, SMALL), "one").image["layers"]
    two = cold.build(recipe_of(BIG_CUDA, SMALL_CUDA, SMALL), "two").image["layers"]
    digests = [[layer["digest"] for layer in layers] for layers in (one, two)]
    # base, venv, the big CUDA wheel; and the group of small ones, which stands elsewhere.
    assert digests[0][:3] == digests[1][:3]
    assert digests[0][4] == digests[1][4]


def test_several_builds_at_once_do_not_meet(workshop: Workshop) -> None:
    recipes = [recipe_of(SMALL), recipe_of(SMALL_CUDA), recipe_of(SMALL, SMALL_CUDA)]
    with ThreadPoolExecutor(3) as pool:
        futures = [
            pool.submit(workshop.build, recipe, f"cell-{number}")
            for number, recipe in enumerate(recipes)
        ]
        built = [future.result() for future in futures]
    labels = [layout.config["config"]["Labels"][KEY_LABEL] for layout in built]
    assert labels == [recipe.key for recipe in recipes]


# What runs


def test_wheels_are_where_the_image_s_python_looks(container: Container) -> None:
    program = "import curator_framework as f, sys; print(f.__file__, sys.prefix, sys.executable)"
    assert container.python(program).split() == [
        "/opt/env/lib/python3.11/site-packages/curator_framework/__init__.py",
        "/opt/env",
        "/opt/env/bin/python",
    ]


def test_scripts_of_wheels_are_on_the_path(container: Container) -> None:
    assert container.run(FRAMEWORK.name).stdout == "1.0\n"
    first = container.run("head", "-n1", f"/opt/env/bin/{FRAMEWORK.name}").stdout
    assert first == "#!/opt/env/bin/python\n"


def test_an_image_runs_as_an_ordinary_user_with_a_home(container: Container) -> None:
    assert container.run("id").stdout.startswith("uid=1000(user) gid=1000(user)")
    assert container.run("sh", "-c", "cd ~ && touch x && pwd").stdout == "/home/user\n"


def test_every_file_of_an_image_has_the_farms_time(container: Container) -> None:
    newer = f"find /opt /home -newermt @{EPOCH} ! -path /home"
    older = f"find /opt/env /home/user ! -newermt @{EPOCH - 1}"
    assert container.run("sh", "-c", f"{newer}; {older}").stdout == ""


def test_no_file_of_an_image_is_writable_for_everybody(container: Container) -> None:
    search = "find /opt /home /etc /usr /var ! -type l -perm -0002 ! -perm -1000"
    assert container.run("sh", "-c", search).stdout == ""


def test_the_environment_arrives_as_written(container: Container) -> None:
    program = "import os; print(ascii([os.environ['AWKWARD'], os.environ['EMPTY']]))"
    assert container.python(program) == ascii([value for _, value in AWKWARD])


def test_the_user_can_add_packages_but_not_swap_the_framework(
    workshop: Workshop, engine_address: EngineAddress, registry_address: str
) -> None:
    """Whoever takes an image installs into it with the pip that it carries."""
    extra = Wheel("curator-extra")
    pip = next(
        wheel for wheel in farm_lock().wheels if wheel.name == "pip"
    )  # the real one, from the index that this machine uses
    offered = (*WHEELS, Wheel(FRAMEWORK.name, "2.0"), extra)
    with serving(Index(offered)) as index:
        secrets = build_secrets(
            {**os.environ, "UV_EXTRA_INDEX_URL": index.address}, workshop.directory / "both"
        )
        cell = cell_of(framework="cupy", package=FRAMEWORK.name)
        lock = lock_of(FRAMEWORK.locked(), SMALL_CUDA.locked(), pip)
        recipe = render(cell, world(cell, lock), Templates(TREE), installer=INSTALLER)
        layout = replace(workshop, secrets=secrets).build(recipe)
        target = Reference(registry=registry_address, repository="t/engine/pip", tag="latest")
        image = target.with_digest(HttpRegistry().push(layout.path, target))
        container = Container(engine_address.command, image)
        options = ("--env", f"PIP_INDEX_URL={index.address}")

        installs = f"pip install --quiet {extra.name} && {extra.name}"
        added = container.run("sh", "-c", installs, network="host", options=options)
        assert (added.stdout, added.returncode) == ("1.0\n", 0), added.stderr

        for wanted in (f"{FRAMEWORK.name}==2.0", f"{SMALL_CUDA.name}==2.0"):
            swapped = container.run("pip", "install", wanted, network="host", options=options)
            assert swapped.returncode == 1, swapped.stdout
    subprocess.run([*engine_address.command, "rmi", str(image)], capture_output=True, check=False)


def farm_lock() -> Lock:
    """Return some lock of this repository: all of them hold pip."""
    return next(iter(matrix.load(TREE).locks.values()))
