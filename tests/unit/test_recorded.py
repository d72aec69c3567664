"""What was recorded on a real GPU: read, judged, gated and counted as coverage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from curator import matrix, policy
from curator.coverage import Image, Label, coverage
from curator.facts import facts
from curator.farm._entry import _sm, _tests, built_of, completed
from curator.oci import sha256
from curator.smoke import HostFacts, Probe, ProbeRun, SmokeReport, Subject, judge
from tests.documents import Memory, committed, entry

if TYPE_CHECKING:
    from curator.matrix import Tree

EVIDENCE = Path(__file__).parents[1] / "data/evidence"
REPORTS = sorted(EVIDENCE.glob("*-py3.11.json"))
RECORDED: dict[str, Any] = json.loads((EVIDENCE / "frameworks-h100.json").read_text())
HOST = HostFacts.from_json(RECORDED["host"])
CUPY = "cupy-14.2.0-cuda13.0-py3.11"
CHECKS = ("control", "cuda_tensor", "speed")
CAUSES = {
    "cpu-behind-a-patched-is-available": "CUDA_ERROR_INVALID_VALUE",
    "crash-after-a-forged-report": "killed by signal 11",
    "hang": "no answer within 12 s",
    "matmul-wrong-by-1-percent": "matmul fp32: number 0 is 1062529.125, right is 1052009.0",
    "nan": "exp fp32: number 0 is nan",
    "one-fp16-sum-wrong": "total fp16: number 0 is 2.0, right is 1.0, bound 0",
}


def recorded(name: str) -> SmokeReport:
    """Judge what a probe printed there."""
    run: dict[str, Any] = RECORDED["runs"][name]
    return judge(
        Probe(text="", promises="", checks=CHECKS, key="0" * 64),
        ProbeRun(
            exit_code=run["exit"],
            stdout=run["stdout"],
            stderr=run["stderr"],
            started=run["started"],
            ended=run["ended"],
        ),
        nonce=RECORDED["nonce"],
        subject=Subject(image=sha256(b"the machine itself")),
        host=HOST,
    )


@pytest.mark.parametrize("name", ["cupy", "driver", "jax", "pytorch"])
def test_probes_passed_on_the_gpu_and_failed_without_it(name: str) -> None:
    report = recorded(name)
    assert (report.contents, report.gpu, report.verdict, report.fault) == ("pass",) * 3 + ("",)
    told = report.got("cuda_tensor")
    assert set(told["differences"].values()) - {"0"} <= {"1.09e-07", "2.21e-07"}
    assert report.tested_gpu == HOST.gpus[0]
    assert report.got("control")["refused"]


def test_every_recorded_sabotage_was_refused_for_its_cause() -> None:
    runs = {name.partition("-")[2] for name in RECORDED["runs"] if name.startswith("sabotaged-")}
    assert runs == set(CAUSES)
    for name, cause in CAUSES.items():
        report = recorded(f"sabotaged-{name}")
        assert (report.contents, report.gpu, report.verdict) == ("pass", "fail", "fail"), name
        assert cause in next(c.detail for c in report.checks if c.name == "cuda_tensor"), name
        assert policy.gates(_tests(report, sha256(b""))).channel is None


def test_another_gpu_or_driver_than_the_hosts_is_no_pass() -> None:
    text = RECORDED["runs"]["driver"]["stdout"]
    for old, new in ((HOST.gpus[0].uuid, "GPU-1"), ("580.159.04", "580.159.05")):
        RECORDED["runs"]["changed"] = {
            **RECORDED["runs"]["driver"],
            "stdout": text.replace(old, new),
        }
        assert recorded("changed").gpu == "fail"


def test_there_are_reports_of_three_frameworks_images() -> None:
    names = {path.name.split("-")[0] for path in REPORTS}
    assert names == {"cupy", "numba", "tensorflow"}


@pytest.mark.parametrize("path", REPORTS, ids=lambda path: path.stem)
def test_images_reports_open_the_stable_channel(path: Path, farm_tree: Tree) -> None:
    data = path.read_bytes()
    report = SmokeReport.parse(data, path.name)
    assert report.data == data
    assert report.verdict == "pass"
    assert policy.gates(_tests(report, sha256(data))).channel == "stable"
    cell = next(cell for cell in matrix.load(farm_tree).cells if cell.id == path.stem)
    assert report.subject.cell == cell.id
    assert report.got("framework")["version"] == cell.version


@pytest.mark.parametrize("path", REPORTS, ids=lambda path: path.stem)
def test_reports_are_coverage(path: Path, farm_tree: Tree) -> None:
    report = SmokeReport.parse(path.read_bytes(), path.name)
    farm, known = matrix.load(farm_tree), facts()
    cell = next(cell for cell in farm.cells if cell.id == path.stem)
    kernels = report.got("kernels")
    label = Label(
        cuda=cell.cuda,
        driver_floor=farm.cuda[cell.cuda].driver_floor,
        cubin=tuple(kernels["cubin"]) or None,
        ptx=tuple(kernels["ptx"]),
    )
    tests = _tests(report, sha256(report.data))
    image = Image(name=path.stem, probe=report.probe_key, label=label, tests=tests)
    found = coverage(image, known.gpus, now="2026-11-24T00:00:00Z", max_age_days=90)
    tested = found.at("9.0", 580)
    assert tested is not None
    assert tested.answer == "tested"
    later = coverage(image, known.gpus, now="2027-11-24T00:00:00Z", max_age_days=90)
    stale = later.at("9.0", 580)
    assert stale is not None
    assert stale.answer == "untested"


def test_what_compiled_a_framework_is_told_where_it_tells() -> None:
    reports = [SmokeReport.parse(path.read_bytes(), path.name) for path in REPORTS]
    assert [built_of(report) for report in reports] == [None, None, "12.5.1"]


def test_libraries_of_recorded_images_have_code_wherever_the_framework_has() -> None:
    for path in REPORTS:
        found = _sm(SmokeReport.parse(path.read_bytes(), path.name))
        assert found is not None
        assert found.gaps is None


def test_rates_are_those_of_the_gpu(farm_tree: Tree) -> None:
    assert farm_tree
    speed = {test.suite: test.speed for test in _tests(recorded("pytorch"), sha256(b""))}
    assert speed["contents"] is None
    rates = speed["gpu"]
    assert rates is not None
    # An H100's tensor cores against its other units: an order of magnitude, as the data sheet says.
    assert rates["matmul_fp16_gflops"] > 5 * rates["matmul_fp32_gflops"]
    assert rates["copy_mb_s"] > 1_000_000


def test_recorded_evidence_is_a_stable_entry_of_an_index(farm_tree: Tree) -> None:
    """The report of CuPy's image, from the gates to what a reader finds; no registry is asked."""
    report = SmokeReport.parse((EVIDENCE / f"{CUPY}.json").read_bytes(), CUPY)
    tests = _tests(report, sha256(report.data))
    made = entry(cuda="13.0", digest=report.subject.image, tests=tests)
    admitted = policy.admitted(made)
    assert (admitted.channel, admitted.status.state) == ("stable", "active")
    assert admitted.repository == "cupy"
    whole = completed(
        admitted, matrix.load(farm_tree), probe=report.probe_key, now="2026-11-24T00:00:00Z"
    )
    (found,) = committed(Memory(), whole).entries
    assert found == whole
    assert found.driver.verified_on == ("580.159.04",)
    assert found.coverage is not None
    assert "tested" in {group.answer for group in found.coverage.groups}
    (gpu,) = (test for test in found.tests if test.suite == "gpu")
    assert (gpu.gpu, gpu.sm, gpu.verdict) == ("NVIDIA H100 80GB HBM3", "9.0", "pass")
