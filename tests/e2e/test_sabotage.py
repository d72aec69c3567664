"""Twelve images that are broken or lie, each refused for its cause; and a good one that passes.

There is no GPU in these tests. A few lines of the probe stand for the driver and own the memory
that counts as the GPU's; `tinygpu` stands for a framework. Everything else is real: images built
and pulled by digest, containers, harness, comparison, control and judge. The same was done to
PyTorch on a real GPU: tests/data/evidence.

The twelfth image, of another Python than its label, is one that a whole run of a farm refuses.
"""

from __future__ import annotations

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

from curator import matrix
from curator.errors import ProbeFaultError
from curator.farm import tested as smoke
from curator.lockfile import parse_base
from curator.oci import Reference
from curator.recipe import base_key
from curator.registry import HttpRegistry
from curator.runner import DockerRunner
from curator.settings import Place, read_tree
from curator.smoke import (
    CONTROL,
    GPU_CHECKS,
    Gpu,
    HostFacts,
    Outcome,
    Probes,
    Subject,
)
from tests.e2e.conftest import Farm
from tests.libraries import write_library
from tests.sabotage import FALLEN, LENIENT, PROBE, SABOTAGES, SITE, TINYGPU, UNREPORTED

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from curator.matrix import Cell, Matrix, Tree
    from curator.ports import EngineAddress
    from curator.smoke import Probe, ProbeRun, SmokeReport
    from tests.sabotage import Sabotage

CELL = "tiny-1.17.0-cuda12.9-py3.11"
HOST = HostFacts(
    gpus=(Gpu(name="a stand-in for a GPU", uuid="GPU-0", sm="9.0", memory_bytes=1),),
    driver="580.95.05",
    kernel="6.1",
    architecture="x86_64",
)


@dataclass(frozen=True)
class Devices:
    """The docker runner, where the GPU needs no device: it is in the probe."""

    runner: DockerRunner

    def run(self, image: Reference, program: str, *, gpus: int, timeout_s: int) -> ProbeRun:
        assert gpus in {0, 1}
        return self.runner.run(image, program, gpus=0, timeout_s=timeout_s)

    def on(self, gpus: Collection[str]) -> Devices:
        assert set(gpus) <= {"GPU-0"}
        return self


@dataclass(frozen=True)
class Bench:
    """The farm with its probe, and the images by name."""

    tree: Tree
    farm: Matrix
    cell: Cell
    runner: Devices
    images: dict[str, Reference]

    @property
    def probe(self) -> Probe:
        return Probes(self.tree).assemble(self.cell, self.farm.locks[self.cell.id])

    def test(
        self,
        name: str,
        *,
        probe: Probe | None = None,
        no_gpu: str = "",
        timeout_s: int = 60,
        known_good: Callable[[], tuple[Probe, Reference] | None] = lambda: None,
    ) -> SmokeReport:
        image = self.images[name]
        assert image.digest is not None
        return smoke(
            probe or self.probe,
            image,
            Subject(image=image.digest, cell=CELL, recipe_key="0" * 64),
            runner=self.runner,
            host=HOST,
            timeout_s=timeout_s,
            no_gpu=no_gpu,
            known_good=known_good,
        )


@pytest.fixture(scope="module")
def bench(
    tiny_template: Path,
    tmp_path_factory: pytest.TempPathFactory,
    registry_address: str,
    engine_address: EngineAddress,
    cache: Path,
    push_base: Callable[[Path, Place], None],
) -> Bench:
    """The good image, and the sabotaged ones made from it, in the registry."""
    work = tmp_path_factory.mktemp("sabotage")
    place = Place(registry=registry_address, prefix="t/sabotage")
    farm = Farm.copied(tiny_template, work, place, cache)
    push_base(farm.root, place)
    assert farm.outcomes(CELL) == {CELL: "published"}
    entry = farm.entries()[CELL]
    published = place.repository(entry["repository"]).with_digest(entry["digest"])
    (farm.root / "dockerfiles/tiny/probe.py").write_text(PROBE)
    tree = read_tree(farm.root)
    loaded = matrix.load(tree)
    lines = f"FROM {published}\n" + good_lines(work / "good")
    good = built(engine_address, work / "good", place, lines, "good")

    def sabotaged(name: str) -> Reference:
        lines = f"FROM {good}\n" + sabotage_lines(work / name, SABOTAGES[name])
        return built(engine_address, work / name, place, lines, name)

    with ThreadPoolExecutor(4) as pool:
        images = {"good": good, **dict(zip(SABOTAGES, pool.map(sabotaged, SABOTAGES), strict=True))}
    return Bench(
        tree=tree,
        farm=loaded,
        cell=next(cell for cell in loaded.cells if cell.id == CELL),
        runner=Devices(DockerRunner(engine_address)),
        images=images,
    )


def good_lines(work: Path) -> str:
    """Return what makes the tiny image one of a framework with libraries of its own."""
    libraries = work / "nvidia"
    write_library(libraries / "cudnn/lib/libcudnn_graph.so.9")
    write_library(libraries / "cublas/lib/libcublas.so.12")
    needs = ("libcudnn_graph.so.9", "libcublas.so.12")
    write_library(libraries / "tinygpu/lib/libtinygpu.so.1", needs=needs)
    (work / "tinygpu.py").write_text(TINYGPU)
    return f"COPY tinygpu.py {SITE}/\nCOPY nvidia {SITE}/nvidia\n"


def sabotage_lines(work: Path, sabotage: Sabotage) -> str:
    """Return what makes the good image a bad one."""
    work.mkdir()
    (work / "started.py").write_text(sabotage.site)
    (work / "started.pth").write_text("import started\n")
    run = f"RUN {sabotage.run}\n" if sabotage.run else ""
    copy = f"COPY started.py started.pth {SITE}/\n" if sabotage.site else ""
    return f"USER 0\n{run}{copy}USER 1000:1000\n"


def built(address: EngineAddress, work: Path, place: Place, text: str, name: str) -> Reference:
    """Build an image with the engine's own client, push it, and return it by digest."""
    target = place.repository("sabotaged").with_tag(name)
    (work / "Dockerfile").write_text(text)
    for command in (
        ["build", "--network=host", "--quiet", "--tag", str(target), str(work)],
        ["push", "--quiet", str(target)],
        ["image", "rm", "--force", str(target)],
    ):
        subprocess.run([*address.command, *command], check=True, capture_output=True, text=True)
    found = HttpRegistry().resolve(target)
    assert found is not None
    return place.repository("sabotaged").with_digest(found.digest)


def failed(report: SmokeReport) -> dict[str, str]:
    return {c.name: c.detail for c in report.checks if c.outcome is Outcome.FAIL}


def test_a_good_image_passes(bench: Bench) -> None:
    report = bench.test("good")
    assert failed(report) == {}
    assert (report.contents, report.gpu, report.verdict) == ("pass", "pass", "pass")


def test_a_good_image_without_a_gpu_is_not_a_pass(bench: Bench) -> None:
    report = bench.test("good", no_gpu="this host has no GPU")
    assert (report.contents, report.gpu, report.verdict) == ("pass", "not-run", "not-run")


@pytest.mark.parametrize("name", SABOTAGES)
def test_a_sabotaged_image_is_refused_for_its_cause(bench: Bench, name: str) -> None:
    sabotage, probe = SABOTAGES[name], bench.probe
    if sabotage.check == "cuda_tensor":
        # Their contents are as labelled, and most of a run's time is pip's.
        probe = replace(probe, checks=("framework", CONTROL, *GPU_CHECKS))
    if name == "hang":
        probe = replace(probe, promises=f"{probe.promises}\nCHECK_SECONDS = 3\n")
    report = bench.test(name, probe=probe, timeout_s=5 if name == "hangs-at-its-start" else 60)
    assert report.verdict == "fail"
    found = failed(report)
    assert sabotage.cause in found[sabotage.check]
    # Who forges a report has no report at all; else nothing is blamed that is not at fault.
    nothing = sabotage.cause.startswith(UNREPORTED)
    assert set(found) == set(probe.checks if nothing else (sabotage.check, *sabotage.also))


def test_a_host_that_fails_a_known_good_image_too_is_blamed(bench: Bench) -> None:
    good = bench.images["good"]
    fallen = replace(bench.probe, promises=bench.probe.promises + FALLEN)
    report = bench.test("nan", probe=fallen, known_good=lambda: (fallen, good))
    assert (report.contents, report.gpu, report.verdict) == ("pass", "bad-host", "bad-host")
    assert "the GPU has fallen off the bus" in report.bad_host
    assert str(good) in report.bad_host


def test_an_image_that_fails_where_a_known_good_one_passes_is_blamed(bench: Bench) -> None:
    good = bench.images["good"]
    report = bench.test("nan", known_good=lambda: (bench.probe, good))
    assert (report.gpu, report.verdict, report.bad_host) == ("fail", "fail", "")


def test_a_probe_that_passes_without_a_gpu_stops_the_run(bench: Bench) -> None:
    lenient = replace(bench.probe, promises=bench.probe.promises + LENIENT)
    with pytest.raises(ProbeFaultError, match="passed with every GPU hidden"):
        bench.test("good", probe=lenient)


MISLABELLED = "debian-12-mislabelled"
BAD = {
    "tiny-1.17.0-cuda12.9-py3.12": ("python", "differs in python"),
    CELL: ("framework", "the image's wheels hold no libcudart"),
}


def test_the_index_has_sabotaged_images_unpublished_with_the_reason(
    farm: Farm, base_layout: Path
) -> None:
    """One is built on a base that does not hold the Python it says, one loses a CUDA library."""
    mislabel(farm, base_layout)
    (farm.root / "dockerfiles/tiny/Dockerfile.j2").write_text(
        "{% extends recipe %}\n{% block framework %}\n"
        f"{{% if cell.id == '{CELL}' %}}\nUSER root\n"
        f"RUN rm {SITE}/nvidia/cuda_runtime/lib/libcudart.so.12\n"
        "{% endif %}\n{% endblock %}\n"
    )
    cells = {cell["id"]: cell for cell in farm.json("run", *BAD, code=1)["cells"]}
    entries = farm.entries()
    for name, (check, cause) in BAD.items():
        assert cells[name]["outcome"] == "refused"
        assert f"{check}: " in cells[name]["cause"]
        assert cause in cells[name]["cause"]
        entry = entries[name]
        assert entry["status"]["state"] == "unpublished"
        assert entry["status"]["reason"].startswith("contents: fail")
        assert (entry["repository"], entry["tags"]) == ("staging/tiny", [])
        digest = entry["tests"][0]["evidence"].removeprefix("sha256:")
        document = json.loads((farm.store / "v1/evidence" / f"{digest}.json").read_bytes())
        told = {item["name"]: item["detail"] for item in document["checks"]}
        assert cause in told[check]
    assert HttpRegistry().tags(Reference.parse(f"{farm.registry}/candidate/tiny")) == ()


def mislabel(farm: Farm, base_layout: Path) -> None:
    """Give the farm a base said to have Python 3.12, which is debian-12 with its 3.11.

    Other versions and CUDAs are taken out: locking them is slow.
    """
    with (farm.root / "matrix/bases.yaml").open("a") as file:
        file.write(f'  {MISLABELLED}: {{extends: debian, suite: bookworm, python: "3.12"}}\n')
    locks = farm.root / "matrix/locks/bases"
    text = (locks / "debian-12-linux-amd64.json").read_text().replace("debian-12", MISLABELLED)
    (locks / f"{MISLABELLED}-linux-amd64.json").write_text(text)
    farm.edit("matrix/tiny.yaml", "debian-12}", f'debian-12, "3.12": {MISLABELLED}}}')
    farm.edit("matrix/tiny.yaml", '["3.11"]', '["3.11", "3.12"]')
    farm.edit("matrix/tiny.yaml", '"1.16.0", ', "")
    farm.edit("matrix/tiny.yaml", ', "13.0"', "")
    for path in (farm.root / "matrix/locks/tiny").glob("*.txt"):
        path.unlink()
    base = matrix.bases(read_tree(farm.root))[MISLABELLED]
    place = Reference.parse(f"{farm.registry}/base/{base.name}")
    HttpRegistry().push(
        base_layout, place.with_tag(base_key(base, parse_base(text, file="base.json")))
    )
    farm.lock()
