"""The harness in a Python of its own, with checks that break in every way."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from curator.smoke import MAX_PROGRAM_BYTES, Probes, _program, run_program
from curator.smoke._program import harness

if TYPE_CHECKING:
    from curator.matrix import Tree

HARNESS = harness("_run")
NONCE = "0123456789abcdef"
GPU_CHECK = "CHECKS['cuda_tensor'] = check_cuda_tensor\n"
DEFINITIONS = (ast.FunctionDef, ast.ClassDef)
LEAVES_A_CHILD = """\
import os, time
if not os.fork():
    os.closerange(0, 3)
    time.sleep(5)
return {}"""


def checked(
    *checks: str,
    python: str | Path = sys.executable,
    text: str = "",
    expect: dict[str, Any] | None = None,
    environment: dict[str, str] | None = None,
    no_gpu: str = "",
) -> list[dict[str, Any]]:
    """Run the harness with some of its checks on a host with a GPU, and return its report."""
    table = "".join(f"CHECKS[{name!r}] = check_{name}\n" for name in checks if name != "control")
    program = f"{HARNESS}\n{text}\n{table}EXPECT.update({expect or {}!r})\n"
    program += f"main({NONCE!r}, {checks!r}, {no_gpu!r})\n"
    done = subprocess.run(
        [str(python), "-c", program],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**os.environ, **(environment or {})},
    )
    (line,) = (line for line in done.stdout.splitlines() if line.startswith(NONCE))
    assert done.stdout == f"\n{line}\n", "nothing but the report on stdout"
    found: list[dict[str, Any]] = json.loads(line.removeprefix(NONCE))["checks"]
    return found


def answers(
    *bodies: str, expected: dict[str, Any] | None = None, head: str = ""
) -> list[dict[str, Any]]:
    """Run a check for each of these bodies, all in one program."""
    text = head + "\n"
    for number, body in enumerate(bodies):
        lines = "".join(f"    {line}\n" for line in body.splitlines())
        text += f"def check_{number}(expected):\n{lines}\n"
    names = [str(number) for number in range(len(bodies))]
    return checked(*names, text=text, expect=dict.fromkeys(names, expected or {}))


def test_ways_to_end_without_an_answer() -> None:
    ways = {
        "class Odd(Exception):\n    __str__ = None\nraise Odd": "without an answer, status 1",
        "import os; os.closerange(0, 256); return {'a': '1'}": "without an answer",
        "import sys; sys.setrecursionlimit(60); return check_2(expected)": "RecursionError",
        "return {'a': b'1'}": "TypeError",
        "x = {}; x['a'] = x; return x": "ValueError",
        "import os; os.kill(os.getpid(), 15)": "killed by signal 15",
        "raise KeyboardInterrupt": "KeyboardInterrupt",
        "raise MemoryError": "MemoryError",
        "import nowhere": "ModuleNotFoundError: No module named 'nowhere'",
    }
    for found, (way, told) in zip(answers(*ways, expected={"a": "1"}), ways.items(), strict=True):
        assert found["outcome"] == "fail", way
        assert told in found["detail"], way


def test_only_what_is_expected_is_a_pass() -> None:
    others = ("{'a': True}", "{'a': 1}", "{'a': 'one'}", "{'b': '1'}", "['a']", "None", "'1'")
    found = answers(*(f"return {got}" for got in others), expected={"a": "1"})
    assert {check["outcome"] for check in found} == {"fail"}


def test_facts_are_compared_as_they_were_written() -> None:
    liar = "class Liar(str):\n    def __eq__(self, other): return True\n    __hash__ = None\n"
    wrong, right = answers(
        f"{liar}return {{'a': Liar('2')}}",
        f"{liar}return {{'a': Liar('1')}}",
        expected={"a": "1"},
    )
    assert (wrong["outcome"], right["outcome"]) == ("fail", "pass")


def test_prints_of_every_kind_stay_out_of_the_report() -> None:
    body = (
        "import os, sys, ctypes\n"
        "print('printed'); os.write(1, b'written'); sys.__stdout__.write('kept')\n"
        "ctypes.CDLL(None).puts(b'by a library'); os.system('echo by a process')\n"
        "return {'a': '1'}"
    )
    (found,) = answers(body, expected={"a": "1"})
    assert found["outcome"] == "pass"


def test_one_check_cannot_harm_the_next() -> None:
    text = (
        "def check_first(expected):\n"
        "    import json, os, signal\n"
        "    os.environ.clear(); os.chdir('/'); json.dumps = None; CHECKS.clear()\n"
        "    expected['a'] = '2'; signal.signal(signal.SIGPIPE, signal.SIG_DFL)\n"
        "    return {'a': '2'}\n"
        "def check_second(expected):\n"
        "    import os\n"
        "    return {'home': os.environ['HOME']}\n"
    )
    first, second = checked(
        "first",
        "second",
        text=text,
        expect={"first": {"a": "1"}, "second": {"home": "/here"}},
        environment={"HOME": "/here"},
    )
    assert (first["outcome"], first["expected"]) == ("fail", {"a": "1"})
    assert second["outcome"] == "pass"


def test_a_process_that_is_left_behind_does_not_outlast_the_deadline() -> None:
    (found,) = answers(LEAVES_A_CHILD, head="CHECK_SECONDS = 1")
    assert found["outcome"] == "fail"
    assert found["ms"] < 4000


@pytest.mark.parametrize("fact", ["0.5", "float('nan')", "float('inf')", "[{'a': 1e3}]"])
def test_a_float_is_no_fact_and_fails_its_check_alone(fact: str) -> None:
    wrong, right = answers(f"return {{'a': '1', 'rate': {fact}}}", "return {'a': '1'}")
    assert (wrong["outcome"], wrong["got"], right["outcome"]) == ("fail", None, "pass")
    assert "is a float, which no fact may be" in wrong["detail"]


@pytest.mark.parametrize(
    "written", ["5", "null", "[]", '"got"', "{}", '{"more": 1}', '{"got": 1}{"got": 1}', "[" * 5000]
)
def test_what_else_is_written_to_the_harness_fails_its_check_alone(written: str) -> None:
    body = (
        "for number in range(3, 16):\n"
        "    try: os.write(number, TEXT)\n"
        "    except OSError: pass\n"
        "os._exit(0)"
    )
    wrong, right = answers(body, "return {}", head=f"TEXT = {written.encode()!r}")
    assert (wrong["outcome"], right["outcome"]) == ("fail", "pass")
    assert wrong["detail"] == "ended without an answer, status 0"


def test_a_check_that_returns_twice_has_failed() -> None:
    (found,) = answers("os.fork(); return {'a': '1'}", expected={"a": "1"})
    assert found["outcome"] == "fail"


def test_details_are_bounded() -> None:
    detailed, flooding = answers("raise ValueError('x' * 60_000)", "return {'a': 'x' * 10_000_000}")
    assert len(detailed["detail"]) <= 2000
    assert len(json.dumps(flooding)) < 100_000


def defined_once(tree: ast.Module) -> set[str]:
    """Return what a program defines at its top, having found that nothing is defined twice."""
    names = [node.name for node in tree.body if isinstance(node, DEFINITIONS)]
    imported: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            imported |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        if isinstance(node, ast.Assign | ast.AnnAssign):
            parts = (part for part in ast.walk(node) if isinstance(part, ast.Name))
            names += [part.id for part in parts if isinstance(part.ctx, ast.Store)]
    twice = [name for name, count in Counter([*names, *imported]).items() if count > 1]
    assert not twice, "the modules of a program share their names"
    return set(names)


def test_the_drivers_program_is_python_of_every_image() -> None:
    for probe in (Probes({}).bare(), Probes({}).host()):
        program = run_program(probe, NONCE)
        assert len(program.encode()) < MAX_PROGRAM_BYTES
        assert "check_host" in defined_once(ast.parse(program, feature_version=(3, 8)))


def test_programs_are_python_of_every_image(farm_tree: Tree) -> None:
    probes = {name: text for name, text in farm_tree.items() if name.endswith("/probe.py")}
    assert len(probes) == 5
    for name, text in probes.items():
        program = f"{harness(*_program.HARNESS)}\n{text}"
        assert "check_framework" in defined_once(ast.parse(program, name, feature_version=(3, 8)))
        calls = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call))
        assert not [call for call in calls if getattr(call.func, "id", "") == "print"]


def test_every_name_in_a_program_is_there(farm_tree: Tree, tmp_path: Path) -> None:
    for name, text in farm_tree.items():
        if name.endswith("/probe.py"):
            file = tmp_path / f"{Path(name).parent.name}.py"
            file.write_text(f"{harness(*_program.HARNESS)}\n{text}")
    (tmp_path / "bare.py").write_text(harness(*_program.HARNESS, "_bare"))
    ruff = Path(sys.executable).with_name("ruff")
    command = [str(ruff), "check", "--isolated", "--select", "F821,F823", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_a_control_that_misses_the_gpu_passes() -> None:
    text = (
        "def check_cuda_tensor(expected):\n    raise RuntimeError('no CUDA GPUs are available')\n"
    )
    (found,) = checked("control", text=text + GPU_CHECK)
    assert (found["outcome"], found["got"]) == (
        "pass",
        {"refused": "RuntimeError: no CUDA GPUs are available"},
    )


def test_a_control_hides_the_gpus_from_itself_alone() -> None:
    text = (
        "def check_cuda_tensor(expected):\n"
        "    if os.environ.get('CUDA_VISIBLE_DEVICES') == '-1': raise OSError('hidden')\n"
        "    return {'device': 'cuda'}\n"
    )
    control, computed = checked("control", "cuda_tensor", text=text)
    assert (control["outcome"], control["got"]["refused"]) == ("pass", "OSError: hidden")
    assert computed["outcome"] == "pass"


def test_a_control_that_passes_is_a_fault() -> None:
    text = "def check_cuda_tensor(expected):\n    return {'device': 'cuda'}\n"
    (found,) = checked("control", text=text + GPU_CHECK, expect={"cuda_tensor": {"device": "cuda"}})
    assert (found["outcome"], found["got"]) == ("fail", {"passed": {"device": "cuda"}})


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("os.abort()", "killed by signal 6"),
        ("import ctypes; ctypes.string_at(0)", "killed by signal 11"),
        ("time.sleep(20)", "no answer within 1 s"),
        ("os._exit(3)", "ended without an answer, status 3"),
        ("sys.exit(1)", "SystemExit: 1"),
    ],
)
def test_a_control_that_crashes_or_hangs_has_not_passed(body: str, told: str) -> None:
    text = f"CHECK_SECONDS = 1\ndef check_cuda_tensor(expected):\n    {body}\n"
    (found,) = checked("control", text=text + GPU_CHECK)
    assert (found["outcome"], found["got"]) == ("pass", {"refused": told})


def test_a_control_of_nothing_is_a_failure_and_no_end_of_the_rest() -> None:
    control, other = checked("control", "other", text="def check_other(expected): return {}\n")
    assert (control["outcome"], control["got"]) == ("fail", None)
    assert control["detail"] == "this probe defines no such check"
    assert other["outcome"] == "pass"


def test_a_control_expects_what_the_gpu_check_does_and_says_so_once() -> None:
    text = "def check_cuda_tensor(expected):\n    raise OSError(str(expected))\n"
    (found,) = checked("control", text=text + GPU_CHECK, expect={"cuda_tensor": {"device": "cuda"}})
    assert (found["expected"], found["got"]["refused"]) == ({}, "OSError: {'device': 'cuda'}")


def test_a_control_that_returns_another_device_has_not_passed() -> None:
    text = "def check_cuda_tensor(expected):\n    return {'device': 'cpu'}\n"
    (found,) = checked("control", text=text + GPU_CHECK, expect={"cuda_tensor": {"device": "cuda"}})
    assert (found["outcome"], found["got"]) == ("pass", {"refused": "differs in device"})


@pytest.mark.parametrize("error", ["AttributeError", "ImportError", "NameError", "TypeError"])
def test_a_control_that_breaks_says_nothing_of_gpus(error: str) -> None:
    text = f"def check_cuda_tensor(expected):\n    raise {error}('broken')\n"
    (found,) = checked("control", text=text + GPU_CHECK)
    assert (found["outcome"], found["got"]) == ("fail", None)
    assert f"broke before it missed the GPU: {error}: broken" in found["detail"]


def test_gpu_checks_are_not_run_without_a_gpu() -> None:
    text = "def check_cuda_tensor(expected):\n    return {}\ncheck_other = check_cuda_tensor\n"
    tensor, other, unknown = checked(
        "cuda_tensor", "other", "nowhere", text=text + "check_nowhere = None\n", no_gpu="none here"
    )
    assert (tensor["outcome"], tensor["detail"]) == ("not-run", "none here")
    assert other["outcome"] == "pass"
    assert unknown["outcome"] == "fail"
