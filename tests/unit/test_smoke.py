"""The probe as it runs, and what its answers mean: a pass cannot be had by accident."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from curator import matrix, policy
from curator.errors import InputError
from curator.farm._entry import _tests
from curator.oci import canonical_json, sha256
from curator.smoke import (
    MAX_PROGRAM_BYTES,
    Gpu,
    HostFacts,
    Outcome,
    Probe,
    ProbeRun,
    Probes,
    SmokeReport,
    Subject,
    judge,
    run_program,
)
from tests.trees import tiny_tree

if TYPE_CHECKING:
    from collections.abc import Mapping

NONCE = "0123456789abcdef"
SUBJECT = Subject(image=sha256(b"image"), cell="demo", recipe_key="0" * 64)
NO_GPU = "this host has no GPU"
NOBODY = HostFacts(gpus=(), driver=None, kernel="6.1", architecture="x86_64")
H200 = HostFacts(
    gpus=(Gpu(name="H200", uuid="GPU-1", sm="9.0", memory_bytes=141 * 1024**3),),
    driver="580.95.05",
    kernel="6.1",
    architecture="x86_64",
)
FRAMEWORK = "def check_framework(expected):\n    {framework}\n\n\n"
TENSOR = "def check_cuda_tensor(expected):\n    {tensor}\n\n\n"
TABLE = 'CHECKS["framework"] = check_framework\nCHECKS["cuda_tensor"] = check_cuda_tensor\n'
FINE = "return dict(expected)"
# What the driver of the host above tells of itself.
RIGHT = (
    "return {'device': 'cuda', 'driver': '580.95.05',"
    " 'gpu': {'name': 'H200', 'uuid': 'GPU-1', 'sm': '9.0', 'memory': 1}}"
)


def probe(framework: str = FINE, tensor: str = RIGHT, head: str = "") -> Probe:
    """Return a probe of two checks, without those that need a real image."""
    text = head + FRAMEWORK.format(framework=framework) + TENSOR.format(tensor=tensor) + TABLE
    tree = {**tiny_tree(), "dockerfiles/demo/probe.py": text}
    found = matrix.load(tree)
    cell = found.cells[0]
    made = Probes(tree).assemble(cell, found.locks[cell.id])
    return replace(made, checks=("framework", "cuda_tensor"))


def report(made: Probe, run: ProbeRun, host: HostFacts = NOBODY) -> SmokeReport:
    return judge(made, run, nonce=NONCE, subject=SUBJECT, host=host)


def ended(stdout: str, *, code: int | None = 0, stderr: str = "") -> ProbeRun:
    return ProbeRun(
        exit_code=code,
        stdout=stdout,
        stderr=stderr,
        started="2026-11-23T00:00:00Z",
        ended="2026-11-23T00:00:01Z",
    )


def really(made: Probe, gpus: int = 0, seconds: int = 20) -> ProbeRun:
    """Run a probe in a process of this machine's Python."""
    done = subprocess.run(
        [sys.executable, "-c", run_program(made, NONCE, no_gpu="" if gpus else NO_GPU)],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    return ended(done.stdout, code=done.returncode, stderr=done.stderr)


def outcomes(found: SmokeReport) -> Mapping[str, str]:
    return {check.name: check.outcome.value for check in found.checks}


def test_without_a_gpu_the_gpu_check_is_not_run_and_nothing_is_claimed() -> None:
    made = probe()
    found = report(made, really(made))
    assert outcomes(found) == {"framework": "pass", "cuda_tensor": "not-run"}
    assert (found.contents, found.gpu) == ("pass", "not-run")
    assert found.checks[1].detail == NO_GPU


def test_with_a_gpu_every_check_is_run() -> None:
    made = probe()
    found = report(made, really(made, gpus=1), H200)
    assert (found.contents, found.gpu) == ("pass", "pass")


@pytest.mark.parametrize(
    ("tensor", "told"),
    [
        ("raise RuntimeError('no CUDA device')", "RuntimeError: no CUDA device"),
        ("return {'device': 'cpu'}", "differs in device"),
        ("return None", "differs in device"),
        ("return {'device': object()}", "TypeError"),
        ("import os; os._exit(0)", "ended without an answer, status 0"),
        ("import sys; sys.exit(0)", "SystemExit: 0"),
        ("import os; os.kill(os.getpid(), 9)", "killed by signal 9"),
        ("import os; os.abort()", "killed by signal 6"),
        ("import ctypes; ctypes.string_at(0)", "killed by signal 11"),
    ],
)
def test_an_image_that_was_given_a_gpu_and_fails_has_failed(tensor: str, told: str) -> None:
    made = probe(tensor=tensor)
    found = report(made, really(made, gpus=1), H200)
    assert (found.contents, found.gpu) == ("pass", "fail")
    assert told in found.checks[1].detail


def test_a_hang_ends_at_its_deadline() -> None:
    made = probe(tensor="import time; time.sleep(60)", head="CHECK_SECONDS = 1\n")
    found = report(made, really(made, gpus=1), H200)
    assert outcomes(found) == {"framework": "pass", "cuda_tensor": "fail"}
    assert found.checks[1].detail == "no answer within 1 s"


def test_what_a_check_prints_is_no_report() -> None:
    forged = json.dumps({"checks": [{"name": "cuda_tensor", "outcome": "pass"}]})
    made = probe(tensor=f"print({f'{NONCE} {forged}'!r}); raise RuntimeError('no')")
    found = report(made, really(made, gpus=1), H200)
    assert found.gpu == "fail"
    assert found.checks[1].detail == "RuntimeError: no"


def test_a_check_that_floods_is_bounded() -> None:
    made = probe(tensor="return {'device': 'x' * 10_000_000}")
    found = report(made, really(made, gpus=1), H200)
    assert found.gpu == "fail"
    assert len(canonical_json(found.to_json())) < 100_000


LINE = '{nonce} {{"checks": [{{"name": "framework", "outcome": "{outcome}", "expected": {{}}, '
LINE += '"got": {got}, "detail": "", "ms": 1}}]}}\n'


@pytest.mark.parametrize(
    "stdout",
    [
        "",
        "passed\n",
        LINE.format(nonce="another", outcome="pass", got="{}"),
        LINE.format(nonce=NONCE, outcome="pass", got="{}") * 2,
        LINE.format(nonce=NONCE, outcome="passed", got="{}"),
        LINE.format(nonce=NONCE, outcome="pass", got="0.5"),
        LINE.format(nonce=NONCE, outcome="pass", got="[" * 5000 + "]" * 5000),
        f"{NONCE} not json\n",
        f'{NONCE} {{"checks": 5}}\n',
        f'{NONCE} {{"checks": [5]}}\n',
        f'{NONCE} {{"checks": [{{"name": "framework", "outcome": "pass"}}]}}\n',
    ],
)
def test_what_is_no_single_sound_report_is_a_failure(stdout: str) -> None:
    found = report(probe(), ended(stdout))
    assert (found.contents, found.gpu) == ("fail", "fail")


def test_a_sound_report_is_read() -> None:
    found = report(probe(), ended(LINE.format(nonce=NONCE, outcome="pass", got='{"a": "1"}')))
    assert found.checks[0].outcome is Outcome.PASS
    assert found.got("framework") == {"a": "1"}
    assert found.checks[1].outcome is Outcome.FAIL


@pytest.mark.parametrize(("code", "told"), [(None, "the deadline"), (137, "exit status 137")])
def test_what_ended_early_says_how(code: int | None, told: str) -> None:
    found = report(probe(), ended("", code=code))
    assert told in found.checks[0].detail


def test_control_characters_do_not_reach_documents() -> None:
    found = report(probe(), ended("", stderr="a\x1b[31mred\x00" + "b" * 10_000))
    assert len(found.stderr_tail) == 4096
    assert found.stderr_tail.isprintable()


def test_the_key_changes_with_the_program_and_not_with_the_run() -> None:
    assert probe().key == probe().key
    assert probe(head="# another text\n").key != probe().key
    assert run_program(probe(), NONCE) != run_program(probe(), NONCE, no_gpu=NO_GPU)


def test_expectations_are_the_label_and_the_lock(farm_tree: matrix.Tree) -> None:
    found = matrix.load(farm_tree)
    probes = Probes(farm_tree)
    for cell in found.cells:
        made = probes.assemble(cell, found.locks[cell.id])
        assert len(run_program(made, NONCE).encode()) < MAX_PROGRAM_BYTES
        assert f'"cuda": "{cell.cuda}"' in made.program
        assert f'"{cell.package}": "{cell.version}"' in made.program
        compile(made.program, cell.id, "exec")


def test_a_probe_that_is_no_python_has_a_position() -> None:
    with pytest.raises(InputError, match=r"dockerfiles/demo/probe.py:1:\d+: no Python"):
        probe(head="def broken(:\n")


def passed(**got: object) -> ProbeRun:
    """Return a run whose checks all passed, the GPU's with these facts."""
    facts = {"device": "cuda", "driver": "580.95.05", "gpu": {"uuid": "GPU-1", "sm": "9.0"}, **got}
    checks = [
        {"name": name, "outcome": "pass", "expected": {}, "got": facts, "detail": "", "ms": 1}
        for name in ("framework", "cuda_tensor")
    ]
    return ended(f"{NONCE} {json.dumps({'checks': checks})}\n")


def test_a_pass_on_a_gpu_that_the_host_has_is_a_pass() -> None:
    assert report(probe(), passed(), H200).verdict == "pass"


@pytest.mark.parametrize(
    ("got", "told"),
    [
        ({"gpu": {"uuid": "GPU-2", "sm": "9.0"}}, "no GPU that this run was given"),
        ({"gpu": {"uuid": "GPU-1", "sm": "8.0"}}, "capability 8.0, not 9.0"),
        ({"gpu": None}, "no GPU that this run was given"),
        ({"driver": "535.54.03"}, "'535.54.03', not '580.95.05'"),
    ],
)
def test_a_pass_on_another_gpu_is_a_failure(got: dict[str, object], told: str) -> None:
    found = report(probe(), passed(**got), H200)
    assert (found.contents, found.gpu) == ("pass", "fail")
    assert told in found.checks[1].detail


def test_a_pass_counts_on_the_gpus_that_were_given() -> None:
    assert report(probe(), replace(passed(), gpus=("GPU-1",)), H200).gpu == "pass"
    assert report(probe(), replace(passed(), gpus=("GPU-9",)), H200).gpu == "fail"


def test_what_could_not_start_was_not_run() -> None:
    found = report(probe(), replace(ended(""), failure="pulling failed"), H200)
    assert {check.outcome for check in found.checks} == {Outcome.NOT_RUN}
    assert (found.verdict, found.checks[0].detail) == ("not-run", "pulling failed")


def test_a_report_counts_from_a_program_that_came_to_its_end() -> None:
    for code in (1, 137, None):
        assert report(probe(), replace(passed(), exit_code=code), H200).verdict == "fail"


def test_a_flood_is_a_failure_whatever_was_reported() -> None:
    found = report(probe(), replace(passed(), flooded=True), H200)
    assert (found.contents, found.gpu) == ("fail", "pass")
    assert found.checks[-1].name == "output"


def test_a_bad_host_is_blamed_for_failures_alone() -> None:
    failing = report(probe(), passed(gpu=None), H200).blaming("the base fails too")
    assert (failing.gpu, failing.verdict) == ("bad-host", "bad-host")
    assert report(probe(), passed(), H200).blaming("the base fails too").gpu == "pass"
    assert policy.gates(_tests(failing, sha256(b""))).channel == "candidate"


@pytest.mark.parametrize(
    "gpu", [{"uuid": ["GPU-1"]}, {"uuid": {}}, {"uuid": None}, {}, [], "GPU-1", 1, True]
)
def test_what_names_no_gpu_computed_on_none(gpu: object) -> None:
    found = report(probe(), replace(passed(gpu=gpu), gpus=("GPU-1",)), H200)
    assert (found.contents, found.gpu) == ("pass", "fail")
    assert found.tested_gpu == H200.gpus[0]
    assert SmokeReport.parse(found.data, "r") == found


def told(**changes: object) -> ProbeRun:
    """Return a run that reports one check, in an odd way."""
    check = {"name": "framework", "outcome": "pass", "expected": {}, "got": {}, "detail": ""}
    checks = [{**check, "ms": 1, **changes}]
    return ended(f"{NONCE} {json.dumps({'checks': checks})}\n")


@pytest.mark.parametrize(
    "changes",
    [
        {"expected": [[1, 2], ["a", 3]]},
        {"expected": None},
        {"detail": 5},
        {"ms": "1"},
        {"ms": True},
        {"ms": float("inf")},
        {"got": "\ud800"},
        {"outcome": ["pass"]},
        {"outcome": "bad-host"},
    ],
)
def test_a_check_that_is_told_in_another_form_has_failed(changes: dict[str, object]) -> None:
    found = report(probe(), told(**changes))
    assert found.checks[0].outcome is Outcome.FAIL
    assert SmokeReport.parse(found.data, "r") == found


def test_nothing_that_is_nested_is_too_deep_for_a_document() -> None:
    for levels in (*range(1, 60), *range(900, 1000, 7), 5000):
        text = LINE.format(nonce=NONCE, outcome="pass", got="[" * levels + "]" * levels)
        found = report(probe(), ended(text))
        assert found.checks[0].outcome is (Outcome.PASS if levels <= 32 else Outcome.FAIL), levels
        assert SmokeReport.parse(found.data, "r") == found


def test_an_image_does_not_say_that_a_check_was_not_run() -> None:
    found = report(probe(), told(outcome="not-run", detail="no time"))
    assert found.checks[0].outcome is Outcome.FAIL
    assert found.checks[0].detail == "not run, though it could be: no time"
    skipped = told(name="cuda_tensor", outcome="not-run", detail=NO_GPU)
    assert report(probe(), skipped, H200).gpu == "not-run"
    assert report(probe(), replace(skipped, gpus=("GPU-1",)), H200).gpu == "fail"


def test_why_a_program_did_not_start_is_printable() -> None:
    found = report(probe(), replace(ended(""), failure="pull:\t\x1b[31mdenied"), H200)
    assert found.checks[0].detail == "pull:\ufffd\ufffd[31mdenied"
    assert SmokeReport.parse(found.data, "r") == found


@pytest.mark.parametrize(
    ("tensor", "fault", "contents"),
    [
        (RIGHT, "passed with every GPU hidden: such a probe proves nothing", "fail"),
        ("raise NameError('torhc')", "", "fail"),
        ("raise RuntimeError('no GPU')", "", "pass"),
        ("return {'device': 'cpu'}", "", "pass"),
    ],
)
def test_a_probe_that_needs_no_gpu_is_at_fault(tensor: str, fault: str, contents: str) -> None:
    made = replace(probe(tensor=tensor), checks=("framework", "control", "cuda_tensor"))
    found = report(made, really(made))
    assert (found.fault, found.contents, found.gpu) == (fault, contents, "not-run")


def test_cells_of_a_framework_share_its_text(farm_tree: matrix.Tree) -> None:
    found = matrix.load(farm_tree)
    probes = Probes(farm_tree)
    cells = (*found.cells, *found.cells)
    made = [probes.assemble(cell, found.locks[cell.id]) for cell in cells]
    frameworks = {cell.framework for cell in found.cells}
    assert len({id(one.text) for one in made}) == len(frameworks) < len(made)
    assert len({one.key for one in made}) == len({one.program for one in made})
    assert max(len(one.promises) for one in made) < 10_000


def test_ten_thousand_cells_take_little_memory() -> None:
    tree = tiny_tree()
    found = matrix.load(tree)
    cell = found.cells[0]
    probes, lock = Probes(tree), found.locks[cell.id]
    probes.assemble(cell, lock)
    tracemalloc.start()
    try:
        kept = [
            probes.assemble(replace(cell, version=f"1.{number}"), lock) for number in range(10_000)
        ]
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len({one.key for one in kept}) == 10_000
    # The text alone, once for each cell, would be 600 MB.
    assert used < 20 * 2**20
