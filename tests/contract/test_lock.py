"""Locks against the real package index, and against indexes that do not answer.

The index is the one that uv is configured for. What is asked of it is asked at the cut-off that a
committed lock records. A mirror can still learn late of a release from before it, so a resolution
is compared with another of the same day, and with the committed lock wheel by wheel.
"""

from __future__ import annotations

import http.server
import subprocess
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from uv import find_uv_bin

from curator.errors import CuratorError, RefusedError, TemporaryError
from curator.lock import judge, lock
from curator.lockfile import (
    Lock,
    LockedWheel,
    Rejection,
    dump_lock,
    dump_rejections,
    parse_lock,
    parse_rejections,
)
from curator.matrix import candidates
from curator.settings import read_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from curator.matrix import Cell

ROOT = Path(__file__).parents[2]
TREE = read_tree(ROOT)
REJECTED = "matrix/locks/cupy/rejected.json"


def cell_of(prefix: str) -> Cell:
    return next(cell for cell in candidates(TREE) if cell.id.startswith(prefix))


CELL = next(c for c in candidates(TREE) if c.framework == "cupy" and c.lock_path in TREE)
COMMITTED = parse_lock(TREE[CELL.lock_path], file=CELL.lock_path)
NONE_BEFORE = {name: text for name, text in TREE.items() if not name.startswith("matrix/locks/")}


@pytest.fixture(scope="module")
def today() -> Lock:
    """The cell's lock as the index gives it now, at the committed cut-off."""
    files = lock(NONE_BEFORE, [CELL.id], cutoff=COMMITTED.cutoff, jobs=1)
    return parse_lock(str(files[CELL.lock_path]), file=CELL.lock_path)


def test_a_committed_lock_names_the_wheels_of_the_index(today: Lock) -> None:
    committed = {wheel.name: wheel for wheel in COMMITTED.wheels}
    assert [wheel.name for wheel in today.wheels] == list(committed)
    same = [wheel for wheel in today.wheels if wheel.version == committed[wheel.name].version]
    assert len(same) >= len(committed) - 2
    assert same == [committed[wheel.name] for wheel in same]
    assert replace(today, wheels=COMMITTED.wheels) == COMMITTED


def test_an_unchanged_resolution_keeps_its_file_with_the_old_cut_off(today: Lock) -> None:
    before = dump_lock(replace(today, cutoff="2026-11-21T00:00:00Z", uv="0.1.0"))
    tree = {**NONE_BEFORE, CELL.lock_path: before}
    assert lock(tree, [CELL.id], cutoff=COMMITTED.cutoff, jobs=1)[CELL.lock_path] == before


def test_a_cell_that_is_locked_now_is_no_longer_rejected_and_others_stay() -> None:
    other = cell_of("cupy-14.2.0-cuda11.8-py3.13").id
    stale = [Rejection(id=name, because="was not there", source="me") for name in (CELL.id, other)]
    tree = {**NONE_BEFORE, REJECTED: dump_rejections(stale)}
    written = lock(tree, [CELL.id], cutoff=COMMITTED.cutoff, jobs=1)[REJECTED]
    assert parse_rejections(str(written), file=REJECTED) == (stale[1],)


def test_what_the_index_cannot_serve_is_rejected_in_its_words_and_its_lock_removed() -> None:
    cell = cell_of("cupy-14.2.0-cuda11.8-py3.11")
    tree = {**NONE_BEFORE, cell.lock_path: "an older lock"}
    files = lock(tree, [cell.id], cutoff=COMMITTED.cutoff, jobs=1)
    (found,) = parse_rejections(str(files[REJECTED]), file=REJECTED)
    assert found.because == "there is no version of cupy-cuda11x==14.2.0"
    assert found.source == f"package index, as of {COMMITTED.cutoff[:10]}"
    assert files[cell.lock_path] is None


@pytest.mark.parametrize("release", ["12.6", "13.0"])
def test_the_runtime_in_cuda_yaml_is_the_one_that_the_toolkit_pins(
    release: str, tmp_path: Path
) -> None:
    facts = yaml.safe_load(TREE["matrix/cuda.yaml"])["releases"][release]
    asked = tmp_path / "requirements.in"
    asked.write_text(f"cuda-toolkit[cudart]=={facts['toolkit']}\n")
    command = [find_uv_bin(), "pip", "compile", "--quiet", "--no-header", "--no-annotate"]
    platform = ["--python-platform", "x86_64-manylinux_2_28", "--python-version", "3.11"]
    cutoff = ["--exclude-newer", COMMITTED.cutoff, "--only-binary", ":all:"]
    result = subprocess.run(
        [*command, *platform, *cutoff, str(asked)], capture_output=True, text=True, check=True
    )
    pins = dict(line.split("==") for line in result.stdout.splitlines())
    runtimes = {version for name, version in pins.items() if "cuda-runtime" in name}
    assert runtimes == {facts["runtime"]}


class _Answering(http.server.BaseHTTPRequestHandler):
    """Answers every request with the status that its server was started with."""

    def do_GET(self) -> None:
        assert isinstance(self.server, _Index)
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


class _Index(http.server.ThreadingHTTPServer):
    status = 200


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[_Index]:
    """An index of ours, asked instead of the real one, with nothing cached."""
    with _Index(("127.0.0.1", 0), _Answering) as index:
        thread = threading.Thread(target=index.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{index.server_port}/simple"
        for name in ("UV_INDEX_URL", "UV_DEFAULT_INDEX"):
            monkeypatch.setenv(name, url)
        monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
        monkeypatch.setenv("UV_HTTP_RETRIES", "0")
        yield index
        index.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, RefusedError),
        (403, RefusedError),
        (429, TemporaryError),
        (500, TemporaryError),
        (503, TemporaryError),
    ],
)
def test_an_index_that_fails_is_an_error_and_never_a_rejection(
    elsewhere: _Index, status: int, error: type[CuratorError]
) -> None:
    elsewhere.status = status
    with pytest.raises(error):
        lock(NONE_BEFORE, [CELL.id], cutoff=COMMITTED.cutoff, jobs=1)


def test_an_index_that_cannot_be_reached_is_temporary(
    elsewhere: _Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), _Answering) as closed:
        port = closed.server_port
    assert port != elsewhere.server_port
    for name in ("UV_INDEX_URL", "UV_DEFAULT_INDEX"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{port}/simple")
    with pytest.raises(TemporaryError):
        lock(NONE_BEFORE, [CELL.id], cutoff=COMMITTED.cutoff, jobs=1)


@pytest.mark.usefixtures("elsewhere")
def test_uv_without_network_is_temporary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_OFFLINE", "1")
    with pytest.raises(TemporaryError):
        lock(NONE_BEFORE, [CELL.id], cutoff=COMMITTED.cutoff, jobs=1)


def _wheels(**versions: str) -> tuple[LockedWheel, ...]:
    return tuple(
        LockedWheel(name=name.replace("_", "-"), version=version, sha256="a" * 64, size_bytes=1)
        for name, version in sorted(versions.items())
    )


@pytest.mark.parametrize(
    ("wheels", "because"),
    [
        ({"nvidia_cuda_runtime_cu12": "12.1.105"}, "for CUDA 12.1"),
        ({"numpy": "2.4.6"}, "without CUDA"),
        ({"nvidia_cuda_runtime_cu12": "12.9.79", "nvidia_cuda_runtime": "13.0.96"}, "two CUDA"),
        ({"nvidia_cuda_runtime_cu12": "12.9.79", "nvidia_nccl_cu13": "2.30.7"}, "nvidia-nccl-cu13"),
    ],
)
def test_a_resolution_of_another_cuda_is_rejected(wheels: dict[str, str], because: str) -> None:
    cell = cell_of("cupy-14.2.0-cuda12.9-py3.11")
    found = judge(cell, _wheels(**wheels), COMMITTED.cutoff)
    assert isinstance(found, Rejection)
    assert because in found.because


def test_a_resolution_of_the_cells_cuda_is_its_lock() -> None:
    cell = cell_of("cupy-14.2.0-cuda12.9-py3.11")
    wheels = _wheels(nvidia_cuda_runtime_cu12="12.9.79", nvidia_cublas_cu12="12.9.1.4")
    found = judge(cell, wheels, COMMITTED.cutoff)
    assert isinstance(found, Lock)
    assert (found.cell, found.cuda) == (cell.id, "12.9")
