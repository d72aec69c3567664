"""Which GPUs say something of an image, and who is to blame where one fails."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest

from curator import matrix
from curator.errors import IntegrityError, ProbeFaultError, RefusedError, TemporaryError
from curator.farm import _smoke, publish_recorded
from curator.farm._entry import _sm, forward_of
from curator.farm._smoke import _suitable
from curator.index import Index
from curator.oci import Reference, sha256
from curator.plan import make_plan
from curator.settings import Place
from curator.smoke import (
    Check,
    Gpu,
    HostFacts,
    Outcome,
    ProbeRun,
    Probes,
    SmokeReport,
    Subject,
)
from tests.gpus import HOST, SOFTWARE, UUID, Here, quick, software_gpu
from tests.trees import tiny_tree

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from curator.plan import PlannedCell

FLOORED = 'sm_min:\n  - {cuda: ">=13", sm: "7.5", source: release notes}\n'
V100 = Gpu(name="V100", uuid="GPU-v", sm="7.0", memory_bytes=1)
H100 = Gpu(name="H100", uuid="GPU-h", sm="9.0", memory_bytes=1)
IMAGE = Reference.parse("localhost/image").with_digest(sha256(b"image"))
GOOD = Reference.parse("localhost/good").with_digest(sha256(b"good"))


def host(*gpus: Gpu, driver: str | None = "580.95.05") -> HostFacts:
    return HostFacts(gpus=gpus, driver=driver, kernel="6.1", architecture="x86_64")


def suitable(facts: HostFacts) -> tuple[tuple[str, ...], str]:
    """Ask of a CUDA 13 image whose kernels begin at 7.5."""
    tree = tiny_tree()
    tree["matrix/demo.yaml"] += FLOORED
    loaded = matrix.load(tree)
    cell = next(cell for cell in loaded.cells if cell.cuda == "13.0")
    (planned,) = make_plan(loaded, tree, Index(), ids={cell.id}, installer="uv").cells
    return _suitable(planned, loaded, facts)


def test_gpus_that_an_image_has_kernels_for() -> None:
    assert suitable(host(V100, H100)) == (("GPU-h",), "")
    assert suitable(host(H100)) == (("GPU-h",), "")


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        (host(driver=None), "this host has no GPU"),
        (host(V100), "kernels from 7.5 on, this host has V100 (7.0)"),
        (host(H100, driver="575.57.08"), "driver 575.57.08 is older than 580.65.06"),
    ],
)
def test_why_no_gpu_says_anything(facts: HostFacts, told: str) -> None:
    gpus, why = suitable(facts)
    assert gpus == ()
    assert told in why


@dataclass
class Told:
    """A host whose images answer as they are told to: a check's outcome by the image's name."""

    outcomes: dict[str, str]
    control: str = "pass"
    asked: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    gpus: tuple[str, ...] = ("GPU-h", "GPU-v")

    def on(self, gpus: Collection[str]) -> Told:
        chosen = tuple(gpu for gpu in self.gpus if gpu in gpus)
        return Told(self.outcomes, self.control, self.asked, chosen)

    def run(self, image: Reference, program: str, *, gpus: int, timeout_s: int) -> ProbeRun:
        assert (gpus, timeout_s) == (1, 60)
        self.asked.append((image.repository, self.gpus))
        outcome = self.outcomes[image.repository]
        told = {"gpu": {"uuid": self.gpus[-1], "sm": "7.0"}, "driver": "580.95.05"}
        checks = [
            {
                "name": "control",
                "outcome": self.control,
                "got": {"passed": {}} if self.control == "fail" else {},
            },
            {"name": "cuda_tensor", "outcome": outcome, "got": told},
            {"name": "speed", "outcome": outcome, "got": {}},
        ]
        lines = [{"expected": {}, "detail": "told to", "ms": 1, **check} for check in checks]
        nonce = re.findall(r"\nmain\('(\w+)'", program)[-1]
        return ProbeRun(
            exit_code=0,
            stdout=f"{nonce} {json.dumps({'checks': lines})}\n",
            stderr="",
            started="2026-11-23T10:00:00Z",
            ended="2026-11-23T10:00:01Z",
            failure="pulling failed" if outcome == "absent" else None,
            gpus=self.gpus[-1:],
        )


def asked(runner: Told) -> SmokeReport:
    assert IMAGE.digest is not None
    return _smoke.tested(
        Probes({}).bare(),
        IMAGE,
        Subject(image=IMAGE.digest),
        runner=runner,
        host=host(V100, H100),
        timeout_s=60,
        no_gpu="",
        known_good=lambda: (Probes({}).bare(), GOOD),
    )


def test_a_pass_asks_nobody_else() -> None:
    runner = Told({"image": "pass"})
    assert asked(runner).gpu == "pass"
    assert [name for name, _ in runner.asked] == ["image"]


def test_a_known_good_image_is_asked_on_the_same_gpu() -> None:
    runner = Told({"image": "fail", "good": "pass"})
    report = asked(runner)
    assert (report.gpu, report.bad_host) == ("fail", "")
    assert runner.asked == [("image", ("GPU-h", "GPU-v")), ("good", ("GPU-v",))]
    assert report.tested_gpu == V100


def test_a_host_where_both_fail_is_bad() -> None:
    report = asked(Told({"image": "fail", "good": "fail"}))
    assert report.gpu == "bad-host"
    assert "localhost/good@sha256:" in report.bad_host


def test_nobody_is_blamed_while_the_known_good_image_cannot_be_asked() -> None:
    with pytest.raises(TemporaryError, match="could not be asked: pulling failed"):
        asked(Told({"image": "fail", "good": "absent"}))


def test_a_probe_at_fault_is_no_verdict() -> None:
    with pytest.raises(ProbeFaultError):
        asked(Told({"image": "pass"}, control="fail"))


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return software_gpu(tmp_path_factory.mktemp("gpu"))


def really(runner: Here, sabotage: str = "", *, no_gpu: str = "") -> SmokeReport:
    """Test an image whose probe may have something wrong, with programs that really run."""
    assert IMAGE.digest is not None
    good = quick(Probes({}).bare())
    probe = replace(good, text=f"{good.text}\n{sabotage}\n")
    return _smoke.tested(
        probe,
        IMAGE,
        Subject(image=IMAGE.digest),
        runner=runner,
        host=HOST,
        timeout_s=60,
        no_gpu=no_gpu,
        known_good=lambda: (good, GOOD),
    )


def test_an_image_that_computes_right_passes(libraries: Path) -> None:
    report = really(Here(libraries))
    assert (report.verdict, report.given, report.tested_gpu) == ("pass", (UUID,), SOFTWARE)


def test_an_image_that_computes_wrong_is_blamed(libraries: Path) -> None:
    report = really(Here(libraries), "Bare.matmul = lambda self, a, b: a")
    assert (report.contents, report.gpu, report.bad_host) == ("pass", "fail", "")
    assert report.checks[1].detail.startswith("AssertionError: matmul fp32: number 0 is ")


@pytest.mark.parametrize("fault", ["matmul_bf16", "crash", "idle"])
def test_a_host_that_computes_wrong_is_blamed(libraries: Path, fault: str) -> None:
    report = really(Here(libraries, fault))
    assert (report.contents, report.gpu, report.verdict) == ("pass", "bad-host", "bad-host")
    assert report.checks[1].detail in report.bad_host
    assert SmokeReport.parse(report.data, "r") == report


def test_a_probe_that_needs_no_gpu_stops_the_run(libraries: Path) -> None:
    sabotage = "CHECKS['cuda_tensor'] = lambda expected: {'device': 'cuda'}"
    with pytest.raises(ProbeFaultError, match="passed with every GPU hidden"):
        really(Here(libraries), sabotage)


@pytest.mark.parametrize("facts", [host(), host(V100), host(H100, driver="575.57.08")])
def test_a_gpu_that_says_nothing_is_not_asked(libraries: Path, facts: HostFacts) -> None:
    _, why = suitable(facts)
    report = really(Here(libraries), no_gpu=why)
    assert (report.contents, report.gpu, report.verdict) == ("pass", "not-run", "not-run")
    assert why
    assert {check.detail for check in report.checks if check.name != "control"} == {why}
    assert report.given == ()


def planned() -> PlannedCell:
    tree = tiny_tree()
    loaded = matrix.load(tree)
    cell = loaded.cells[0]
    (found,) = make_plan(loaded, tree, Index(), ids={cell.id}, installer="uv").cells
    return found


@dataclass
class Nowhere:
    """A destination whose registry has no image, and that nothing may be written to."""

    place: Place = field(default_factory=lambda: Place.parse("localhost:5000/farm"))
    asked: list[str] = field(default_factory=list)

    @property
    def registry(self) -> Nowhere:
        return self

    def resolve(self, image: Reference) -> None:
        self.asked.append(str(image))


def recorded(cell: PlannedCell) -> SmokeReport:
    """Return a report of a cell's image that another machine made."""
    assert IMAGE.digest is not None
    return SmokeReport(
        subject=Subject(image=IMAGE.digest, cell=cell.cell.id, recipe_key=cell.recipe.key),
        probe_key=cell.probe.key,
        host=HOST,
        checks=(Check(name="python", outcome=Outcome.PASS, expected={}, got={}, detail="", ms=1),),
        exit_code=0,
        stderr_tail="",
        started="2026-11-23T10:00:00Z",
        ended="2026-11-23T10:00:01Z",
    )


def test_a_recorded_report_counts_for_what_it_names() -> None:
    cell = planned()
    good, loaded = recorded(cell), matrix.load(tiny_tree())
    passed = Check(
        name="control",
        outcome=Outcome.FAIL,
        expected={},
        got={"passed": {}},
        detail="passed with every GPU hidden",
        ms=1,
    )
    wrong = {
        "another recipe": replace(good, subject=replace(good.subject, recipe_key="0" * 64)),
        "another probe": replace(good, probe_key="0" * 64),
        "probe is at fault: passed with every": replace(good, checks=(passed,)),
    }
    for told, report in wrong.items():
        nowhere = Nowhere()
        with pytest.raises(RefusedError, match=told):
            publish_recorded(cell, report, loaded, nowhere)  # type: ignore[arg-type]
        assert nowhere.asked == []


def test_a_recorded_report_of_an_image_that_is_not_there_is_refused() -> None:
    cell, nowhere = planned(), Nowhere()
    with pytest.raises(IntegrityError, match=f"{IMAGE.digest}"):
        publish_recorded(cell, recorded(cell), matrix.load(tiny_tree()), nowhere)  # type: ignore[arg-type]
    assert nowhere.asked == [f"localhost:5000/farm/staging/demo@{IMAGE.digest}"]


@pytest.mark.parametrize(
    ("got", "cuda"),
    [({"forward": "550.54.15"}, "12.4"), ({"forward": "999.1"}, "13.0"), ({}, None)],
)
def test_a_forward_compatibility_package_is_of_the_cuda_that_its_driver_speaks(
    got: dict[str, str], cuda: str | None
) -> None:
    read = Check(
        name="libraries",
        outcome=Outcome.PASS,
        expected={},
        got={"count": 1, **got},
        detail="",
        ms=1,
    )
    assert forward_of(replace(recorded(planned()), checks=(read,)), "13.0") == cuda


def test_gaps_of_what_a_framework_cannot_do_without_are_told() -> None:
    turing = {"cubin": ["7.5", "8.0", "9.0a"], "ptx": ["12.0f"]}
    libraries = {
        "nvidia/cublas/lib/libcublas.so.12": {"cubin": ["7.0", "9.0"], "ptx": []},
        "nvidia/cudnn/lib/libcudnn_cnn.so.9": turing,
        "nvidia/cudnn/lib/libcudnn_ops.so.9": turing,
        "nvidia/cusparselt/lib/libcusparseLt.so.0": {"cubin": ["8.0", "9.0"], "ptx": []},
    }
    read = Check(
        name="kernels",
        outcome=Outcome.PASS,
        expected={},
        got={
            "cubin": ["7.0", "9.0"],
            "libraries": libraries,
            "gaps": {"7.0": [path for path in libraries if "cublas" not in path]},
        },
        detail="",
        ms=1,
    )
    found = _sm(replace(recorded(planned()), checks=(read,)))
    assert found is not None
    assert [gap.to_json() for gap in found.gaps or ()] == [{"file": "libcudnn_cnn.so.9", **turing}]
