"""The command line: exit codes, streams, and one JSON document whatever happens."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from curator.cli import main
from tests.trees import tiny_tree
from tests.unit.test_matrix import BROKEN

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


FULL = "error: the answer cannot be written: No space left on device"


@dataclass(frozen=True)
class Said:
    """How a call of the command line ended."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        return json.loads(self.out)["data"]


def lay(tree: Mapping[str, str], root: Path) -> Path:
    for name, text in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture
def curator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Said]:
    """Run the command line in a farm's directory, away from the user's own things."""
    monkeypatch.setenv("CURATOR_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CURATOR_REGISTRY", raising=False)
    monkeypatch.delenv("CURATOR_STORE", raising=False)

    def call(*arguments: str, tree: Mapping[str, str] | None = None) -> Said:
        root = lay(tree or tiny_tree(), tmp_path / "farm")
        monkeypatch.chdir(root)
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        captured = capsys.readouterr()
        return Said(code=int(ended.value.code or 0), out=captured.out, err=captured.err)

    return call


@pytest.mark.parametrize("name", BROKEN)
def test_broken_input_exits_with_2_and_a_position(name: str, curator: Callable[..., Said]) -> None:
    said = curator("validate", tree=BROKEN[name].tree)
    assert said.code == 2
    assert said.out == ""
    assert BROKEN[name].place in said.err
    assert "Traceback" not in said.err


@pytest.mark.parametrize("verb", ["validate", "plan", "matrix", "run", "render x", "index show"])
def test_errors_are_one_json_document(verb: str, curator: Callable[..., Said]) -> None:
    said = curator("--json", *verb.split(), tree=BROKEN["unquoted version"].tree)
    document = json.loads(said.out)
    assert (said.code, document["status"], document["data"]) == (2, "error", None)
    (finding, *_) = document["diagnostics"]
    assert (finding["file"], finding["line"], finding["column"]) == ("matrix/demo.yaml", 6, 10)


def test_plan_says_what_and_why(curator: Callable[..., Said]) -> None:
    said = curator("plan")
    assert said.code == 0
    assert said.out.splitlines() == [
        "  + demo-1.0-cuda12.8-py3.11  build  new cell (matrix/demo.yaml:5)",
        "  + demo-2.0-cuda12.8-py3.11  build  new cell (matrix/demo.yaml:5)",
        "  + demo-2.0-cuda13.0-py3.11  build  new cell (matrix/demo.yaml:5)",
        "  ! demo-1.0-cuda13.0-py3.11  rejected too old for CUDA 13",
        "Plan: 3 to add, 0 to rebuild, 0 to test again, 0 unchanged.",
    ]
    assert curator("plan").out == said.out
    assert curator("plan", "--check").code == 1


def test_a_plan_file_has_the_keys(curator: Callable[..., Said], tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    curator("plan", "*-cuda13*", "-o", str(path))
    (cell,) = json.loads(path.read_text())["cells"]
    assert (cell["id"], cell["action"]) == ("demo-2.0-cuda13.0-py3.11", "build")
    assert len(cell["recipe"]) == len(cell["probe"]) == 64


def test_matrix_prints_ids(curator: Callable[..., Said]) -> None:
    assert curator("matrix", "*2.0*", "!*13.0*").out == "demo-2.0-cuda12.8-py3.11\n"
    rejected = curator("matrix", "--rejected").out
    assert rejected == (
        "demo-1.0-cuda13.0-py3.11\n    too old for CUDA 13\n    source: release notes\n"
    )
    assert [cell["cuda"] for cell in curator("matrix", "--json").data] == ["12.8", "12.8", "13.0"]
    github = json.loads(curator("matrix", "--emit", "github").out)
    assert len(github[0]["include"]) == 3


def test_an_empty_selection_exits_with_3(curator: Callable[..., Said]) -> None:
    said = curator("plan", "demo-3.0-cuda12.8-py3.11")
    assert said.code == 3
    assert "nearest: demo-2.0-cuda12.8-py3.11" in said.err


def test_usage_exits_with_2(curator: Callable[..., Said]) -> None:
    said = curator("plan", "--no-such-option")
    assert said.code == 2
    assert "curator plan --help" in said.err


def test_render_writes_what_is_built(curator: Callable[..., Said], tmp_path: Path) -> None:
    cell = "demo-2.0-cuda12.8-py3.11"
    shown = curator("render", cell).out
    assert shown.startswith("FROM base\nCOPY layers/")
    curator("render", cell, "-o", str(tmp_path / "out"))
    assert (tmp_path / "out/Dockerfile").read_text() == shown
    assert (tmp_path / "out/constraints.txt").read_text() == "demo-pkg==2.0\n"


def test_no_farm_says_where_to_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["plan"])
    assert ended.value.code == 2
    assert "-C DIR" in capsys.readouterr().err


def test_files_that_are_no_text_are_told(curator: Callable[..., Said], tmp_path: Path) -> None:
    root = lay(tiny_tree(), tmp_path / "farm")
    (root / "matrix/latin.yaml").write_bytes(b"framework: caf\xe9\n")
    (root / "matrix/out.yaml").symlink_to("/etc/hostname")
    (root / "matrix/huge.yaml").write_bytes(b"#" * 10_000_000)
    said = curator("plan")
    assert said.code == 2
    assert "matrix/latin.yaml:1:1: not UTF-8 at byte 14" in said.err
    assert "matrix/out.yaml:1:1: a link out of the farm" in said.err
    assert "matrix/huge.yaml:1:1: 10000000 bytes" in said.err


def test_a_run_without_an_engine_says_how_to_get_one(
    curator: Callable[..., Said], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    said = curator("run")
    assert said.code == 1
    assert "curator engine up" in said.err
    assert Path(tmp_path / "cache" / "engine").exists() is False


def ended(*arguments: str, redirect: str, root: Path) -> subprocess.CompletedProcess[str]:
    """Run the command line in a shell, which redirects its streams."""
    program = "from curator.cli import main; main()"
    command = shlex.join([sys.executable, "-c", program, *arguments])
    return subprocess.run(
        ["bash", "-c", f"{command} {redirect}"],
        env={"CURATOR_CACHE": str(root / "cache"), "PATH": os.environ["PATH"]},
        cwd=lay(tiny_tree(), root / "farm"),
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_reader_that_leaves_ends_us_as_it_ends_git(tmp_path: Path) -> None:
    for verb in ("--help", "plan --json"):
        done = ended(*verb.split(), redirect="| true; exit ${PIPESTATUS[0]}", root=tmp_path)
        assert (done.returncode, done.stderr) in {(141, ""), (0, "")}, verb
    left = "| (exec <&-; sleep 3); exit ${PIPESTATUS[0]}"
    assert ended("matrix", redirect=left, root=tmp_path).returncode == 141
    assert ended("plan", "nothing", redirect=f"2>&1 {left}", root=tmp_path).returncode == 141
    first = ended("matrix", redirect="| head -1; exit ${PIPESTATUS[0]}", root=tmp_path)
    assert (first.returncode, first.stdout) == (0, "demo-1.0-cuda12.8-py3.11\n")


@pytest.mark.parametrize(
    "verb", ["matrix", "plan --json", "--help", "--version", "index --help", "plan -h"]
)
def test_an_answer_that_cannot_be_written_is_an_error(verb: str, tmp_path: Path) -> None:
    done = ended(*verb.split(), redirect=">/dev/full", root=tmp_path)
    assert done.returncode == 1
    assert done.stderr == f"{FULL}\n"


def test_an_error_that_cannot_be_written_as_json_is_told(tmp_path: Path) -> None:
    done = ended("plan", "nothing", "--json", redirect=">/dev/full", root=tmp_path)
    assert done.returncode == 3
    first, second = done.stderr.splitlines()
    assert (first.startswith("error: no cell matches 'nothing'"), second) == (True, FULL)


@pytest.mark.parametrize("verb", ["plan -o /nope/x", "render demo-2.0-cuda12.8-py3.11 -o /proc/x"])
def test_a_file_that_cannot_be_written_is_named(verb: str, curator: Callable[..., Said]) -> None:
    said = curator(*verb.split())
    assert (said.code, said.out) == (1, "")
    assert f"error: cannot write {verb.rpartition(' ')[2]}: No such file or directory\n" == said.err


def test_what_is_no_plan_is_told(curator: Callable[..., Said], tmp_path: Path) -> None:
    (tmp_path / "no.json").write_text('{"cells": [1]}')
    for file, told in (("no.json", "not a plan"), ("none.json", "No such file or directory")):
        said = curator("run", str(tmp_path / file))
        assert said.code == 2
        assert f"{tmp_path / file}: " in said.err
        assert told in said.err


def test_what_an_error_repeats_cannot_steer_a_terminal(curator: Callable[..., Said]) -> None:
    said = curator("plan", "x\x1b[2J\u202e*")
    assert said.code == 3
    assert all(line.isprintable() for line in said.err.splitlines())


def test_closed_streams_are_no_internal_error(tmp_path: Path) -> None:
    done = ended("resolve", "--nvidia-smi", "-", redirect="<&-", root=tmp_path)
    assert done.returncode == 2
    assert "stdin is closed" in done.stderr
    assert ended("plan", redirect=">&-", root=tmp_path).returncode == 0


@pytest.mark.parametrize("verb", ["", "index", "engine"])
def test_a_verb_that_is_not_named_is_helped_once(verb: str, curator: Callable[..., Said]) -> None:
    said = curator(*verb.split())
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith(f"Usage: curator {verb}".rstrip())
    assert "--help`" not in said.err
    (finding,) = json.loads(curator("--json", *verb.split()).out)["diagnostics"]
    assert finding["message"] in {"no verb is named", "Missing command."}


@pytest.mark.parametrize(
    ("flags", "environ", "coloured"),
    [
        ("", {}, False),
        ("", {"FORCE_COLOR": "1"}, True),
        ("", {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        ("--color always", {"NO_COLOR": "1", "TERM": "dumb"}, True),
        ("--color never", {"FORCE_COLOR": "1"}, False),
    ],
)
def test_flag_and_environment_decide_colours(
    flags: str,
    environ: dict[str, str],
    *,
    coloured: bool,
    curator: Callable[..., Said],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.setenv(name, environ.get(name, ""))
    assert ("\x1b[32m+\x1b[0m" in curator(*flags.split(), "plan").out) is coloured
    assert ("\x1b[" in curator(*flags.split(), "plan", "nothing").err) is coloured


@pytest.mark.parametrize(
    ("environ", "coloured"),
    [({"TERM": "xterm"}, True), ({"TERM": "dumb"}, False), ({"TERM": "x", "NO_COLOR": "1"}, False)],
)
def test_a_terminal_has_colours_unless_it_is_dumb(
    environ: dict[str, str], *, coloured: bool, tmp_path: Path
) -> None:
    shell = f"{sys.executable} -c 'from curator.cli import main; main([\"plan\"])'"
    program = f"import pty, sys; sys.exit(pty.spawn(['sh', '-c', {shell!r}]))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"CURATOR_CACHE": str(tmp_path / "cache"), "PATH": os.environ["PATH"], **environ},
        cwd=lay(tiny_tree(), tmp_path / "farm"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Plan: 3 to add" in done.stdout
    assert ("\x1b[32m+" in done.stdout) is coloured
