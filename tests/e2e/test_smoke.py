"""The verbs about tests, as people type them: smoke, probe, publish."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from curator.smoke import Check, Gpu, HostFacts, Outcome, SmokeReport
from tests.e2e.conftest import CELLS, Farm

if TYPE_CHECKING:
    from curator.ports import EngineAddress

ONE = CELLS[0]
# No such GPU exists: what a test says of one must not be taken for evidence.
STAND_IN = Gpu(name="a stand-in for a GPU", uuid="GPU-0", sm="9.0", memory_bytes=1)


@pytest.fixture
def published(farm: Farm) -> str:
    """The reference of one published image of the farm."""
    farm.outcomes(ONE)
    entry = farm.entries()[ONE]
    return f"{farm.registry}/{entry['repository']}@{entry['digest']}"


def report_of(farm: Farm, image: str, file: Path) -> SmokeReport:
    """Test an image as a cell and return the report that was written."""
    result = farm.curator("smoke", image, "--cell", ONE, "--result", str(file))
    assert result.returncode == 75, result.stdout + result.stderr
    return SmokeReport.parse(file.read_bytes(), file.name)


def on_a_stand_in(report: SmokeReport) -> SmokeReport:
    """Return the report as a host with a GPU would have made it."""
    told = {"device": "cuda", "driver": "580.95.05", "gpu": {"uuid": "GPU-0", "sm": "9.0"}}
    checks = [
        replace(check, outcome=Outcome.PASS, got=told, detail="")
        if check.name in {"cuda_tensor", "speed"}
        else check
        for check in report.checks
    ]
    host = HostFacts(gpus=(STAND_IN,), driver="580.95.05", kernel="6.1", architecture="x86_64")
    return replace(report, checks=tuple(checks), host=host)


def test_an_image_is_tested_as_its_cell(farm: Farm, published: str, tmp_path: Path) -> None:
    report = report_of(farm, published, tmp_path / "report.json")
    assert (report.contents, report.gpu, report.verdict) == ("pass", "not-run", "not-run")
    assert report.subject.cell == ONE
    assert report.subject.recipe_key is not None
    assert report.got("packages")["constraints"] == ["PIP_CONSTRAINT", "UV_CONSTRAINT"]
    assert report.got("control")["refused"]


def test_any_image_is_asked_by_the_driver_alone(farm: Farm, published: str) -> None:
    document = farm.json("smoke", published, code=75)
    assert [check["name"] for check in document["checks"]] == ["control", "cuda_tensor", "speed"]
    control, computed, _ = document["checks"]
    assert control["outcome"] == "pass"
    assert "libcuda.so.1" in control["got"]["refused"]
    assert (computed["outcome"], computed["detail"]) == ("not-run", "this host has no GPU")


def test_an_image_is_named_by_its_digest(farm: Farm, published: str) -> None:
    result = farm.curator("smoke", published.partition("@")[0] + ":latest")
    assert result.returncode == 2
    assert "@sha256:" in result.stderr


def test_an_image_that_is_not_there_is_no_verdict(farm: Farm, published: str) -> None:
    missing = published.partition("@")[0] + "@sha256:" + "0" * 64
    document = farm.json("smoke", missing, code=75)
    assert {check["outcome"] for check in document["checks"]} == {"not-run"}
    assert "pulling" in document["checks"][0]["detail"]


def test_a_layout_is_tested_without_docker(
    farm: Farm, base_layout: Path, programs: Path, tmp_path: Path
) -> None:
    digest = json.loads((base_layout / "index.json").read_text())["manifests"][0]["digest"]
    sbin = programs / "engine" / "prefix" / "usr" / "sbin"
    result = farm.curator(
        "--json",
        "smoke",
        f"base@{digest}",
        "--oci",
        str(base_layout),
        PATH=f"{os.environ['PATH']}:{sbin}",
        CURATOR_CACHE=str(tmp_path / "cache"),
    )
    assert result.returncode == 75, result.stdout + result.stderr
    document: dict[str, Any] = json.loads(result.stdout)["data"]
    assert document["verdict"] == {"contents": "pass", "gpu": "not-run"}
    assert list((tmp_path / "cache/bundles").glob("*/root")) == []


def test_an_image_is_tested_on_the_engine_of_a_docker_context(
    farm: Farm, published: str, engine_address: EngineAddress, tmp_path: Path
) -> None:
    host = engine_address.host or "unix:///var/run/docker.sock"
    environment = {
        "DOCKER_CONFIG": str(tmp_path / "docker"),
        "PATH": f"{Path(engine_address.docker).parent}:{os.environ['PATH']}",
    }
    create = [engine_address.docker, "context", "create", "box", "--docker", f"host={host}"]
    subprocess.run(create, env={**os.environ, **environment}, check=True, capture_output=True)
    result = farm.curator("--json", "smoke", published, "--context", "box", **environment)
    assert result.returncode == 75, result.stdout + result.stderr
    document: dict[str, Any] = json.loads(result.stdout)["data"]
    assert document["verdict"] == {"contents": "pass", "gpu": "not-run"}
    # Told from inside a container there.
    assert document["host"]["kernel"] == os.uname().release


def test_the_printed_program_is_the_one_that_runs(farm: Farm) -> None:
    program = farm.curator("probe", ONE, "--nonce", "mine").stdout
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    )
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("mine "))
    outcomes = {check["name"]: check["outcome"] for check in json.loads(line[5:])["checks"]}
    # This machine's Python is not the cell's image.
    assert outcomes["python"] == "fail"
    assert outcomes["control"] == "pass"


def test_a_report_of_another_machine_is_published(
    farm: Farm, published: str, tmp_path: Path
) -> None:
    file = tmp_path / "report.json"
    report = on_a_stand_in(report_of(farm, published, file))
    file.write_bytes(report.data)
    before = farm.json("index", "status")
    planned = farm.json("publish", str(file), "--dry-run", "--expect", "tiny:1.16=absent")
    assert {line.split()[0] for line in planned["writes"]} == {"copy", "add", "replace", "tag"}
    assert farm.json("index", "status") == before
    refused = farm.curator("publish", str(file), "--expect", f"tiny:1.16=sha256:{'0' * 64}")
    assert (refused.returncode, "it is absent" in refused.stdout) == (1, True)
    (cell,) = farm.json("publish", str(file), "--expect", "tiny:1.16=absent")["cells"]
    assert (cell["outcome"], cell["channel"]) == ("published", "stable")
    changes = farm.json("index", "diff")
    assert ONE in changes["changed"][0]
    assert "tiny:1.16" in changes["tags"]
    assert farm.json("index", "verify")["findings"] == []
    # The candidate's moving tags lost their last image: the protocol cannot take them back.
    left = farm.json("audit", code=1)["left"]
    assert {(item["code"], item["subject"].split(":")[0]) for item in left} == {
        ("unknown-tag", "candidate/tiny")
    }
    entry = farm.entries()[ONE]
    assert (entry["repository"], entry["status"]["state"]) == ("tiny", "active")
    assert entry["digest"] == report.subject.image
    assert entry["driver"]["verified_on"] == ["580.95.05"]
    answers = {group["answer"] for group in entry["coverage"]["groups"]}
    assert "tested" in answers
    # The host here has no GPU: what the other one saw stays.
    assert farm.json("plan", ONE)["summary"].endswith("1 unchanged.")
    planned = farm.json("smoke", "--plan", ONE, "--host", "9.0/580")
    assert planned["tests"] == []


def test_what_a_plan_of_tests_says(farm: Farm, published: str) -> None:
    assert published
    planned = farm.json("smoke", "--plan", "--host", "9.0/580", "--host", "sm_75/535.54.03")
    assert {(test["sm"], test["driver"]) for test in planned["tests"]} <= {
        ("9.0", 580),
        ("7.5", 535),
    }
    assert planned["tests"]
    nobody = farm.curator("smoke", "--plan")
    assert nobody.returncode == 2
    assert "--host 9.0/580" in nobody.stderr


WRONG = [
    ('"probe":"', '"probe":"0', 1, "another probe"),
    ('"recipe":"', '"recipe":"0', 1, "another recipe"),
    ('"gpu":"not-run"', '"gpu":"pass"', 2, "does not say what its checks say"),
    (f'"cell":"{ONE}"', '"cell":"tiny-9-cuda9.9-py3.11"', 2, "this farm does not have"),
    ('"kind":"', '"kind":"x', 2, "does not say"),
    ("{", "[", 2, "no smoke report"),
]


def test_what_is_no_report_of_this_farm_is_refused(
    farm: Farm, published: str, tmp_path: Path
) -> None:
    file = tmp_path / "report.json"
    text = report_of(farm, published, file).data.decode()
    before = farm.entries()
    for old, new, code, told in WRONG:
        file.write_text(text.replace(old, new, 1))
        result = farm.curator("publish", str(file))
        assert result.returncode == code, result.stderr
        assert told in result.stdout + result.stderr
    assert farm.entries() == before


def test_checks_are_read_back_as_they_were_written() -> None:
    check = Check(name="a", outcome=Outcome.PASS, expected={}, got={"b": "c"}, detail="", ms=1)
    assert Check.from_json(check.to_json()) == check
