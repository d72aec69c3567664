"""Twelve images that are broken or lie, each refused for its cause; and a good one that passes.

There is no GPU in these tests. A few lines of the probe stand for the driver and own the memory
that counts as the GPU's; `tinygpu` stands for a framework. Everything else is real: images built
and pulled by digest, containers, harness, comparison, control and judge. The same was done to
PyTorch on a real GPU: tests/data/evidence.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

from curator import matrix
from curator.errors import ProbeFaultError
from curator.farm import tested as smoke
from curator.registry import HttpRegistry
from curator.runner import DockerRunner
from curator.settings import Place, read_tree
from curator.smoke import Gpu, HostFacts, Outcome, Probes, Subject
from tests.e2e.conftest import Farm
from tests.libraries import write_library
from tests.sabotage import PROBE, SABOTAGES, SITE, TINYGPU

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from curator.matrix import Cell, Matrix, Tree
    from curator.oci import Reference
    from curator.ports import EngineAddress
    from curator.smoke import Check, Probe, ProbeRun, SmokeReport

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
    good = built(engine_address, work, place, f"FROM {published}\n" + good_lines(work), "good")
    images = {"good": good}
    for name, sabotage in SABOTAGES.items():
        (work / "started.py").write_text(sabotage.site)
        (work / "started.pth").write_text("import started\n")
        lines = [f"FROM {good}", "USER 0"]
        lines += [f"RUN {sabotage.run}"] if sabotage.run else []
        lines += [f"COPY started.py started.pth {SITE}/"] if sabotage.site else []
        images[name] = built(
            engine_address, work, place, "\n".join([*lines, "USER 1000:1000"]), name
        )
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
    subprocess.run(
        [*address.command, "image", "rm", "-f", str(target)], capture_output=True, check=True
    )
    found = HttpRegistry().resolve(target)
    assert found is not None
    return place.repository("sabotaged").with_digest(found.digest)


def check_of(report: SmokeReport, name: str) -> Check:
    return next(check for check in report.checks if check.name == name)


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
    sabotage = SABOTAGES[name]
    probe = bench.probe
    if name == "wrong-python":
        # Its label says another Python than it holds.
        labelled = replace(bench.cell, python="3.12")
        probe = Probes(bench.tree).assemble(labelled, bench.farm.locks[bench.cell.id])
    report = bench.test(name, probe=probe, timeout_s=10 if "hangs" in name else 60)
    assert report.verdict == "fail"
    assert sabotage.check in failed(report)
    assert sabotage.cause in failed(report)[sabotage.check]
    if sabotage.check in {"framework", "libraries", "output"}:
        assert set(failed(report)) == {sabotage.check}, "nothing else is blamed"


def test_a_host_that_fails_a_known_good_image_too_is_blamed(bench: Bench) -> None:
    broken = bench.images["patched-availability"]
    report = bench.test("wrong-by-1-percent", known_good=lambda: (bench.probe, broken))
    assert (report.gpu, report.verdict) == ("bad-host", "bad-host")
    assert "not in a GPU's memory" in report.bad_host
    fine = bench.images["good"]
    report = bench.test("wrong-by-1-percent", known_good=lambda: (bench.probe, fine))
    assert (report.gpu, report.bad_host) == ("fail", "")


def test_a_probe_that_passes_without_a_gpu_stops_the_run(bench: Bench) -> None:
    probe = bench.probe
    lenient = "\nCHECKS['cuda_tensor'] = lambda expected: {'device': 'cuda'}\n"
    with pytest.raises(ProbeFaultError, match="passed with every GPU hidden"):
        bench.test("good", probe=replace(probe, promises=probe.promises + lenient))
