from __future__ import annotations

import contextlib
import json
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator.errors import InputError
from curator.lockfile import (
    BaseLock,
    ImageLock,
    Lock,
    LockedWheel,
    Rejection,
    dump_base,
    dump_lock,
    dump_rejections,
    inputs_digest,
    parse_base,
    parse_lock,
    parse_rejections,
)
from curator.oci import sha256

FILE = "matrix/locks/cupy/cupy-14.2.0-cuda12.9-py3.11.txt"


def wheel(name: str, version: str, size_bytes: int = 1024) -> LockedWheel:
    return LockedWheel(name=name, version=version, sha256="a" * 64, size_bytes=size_bytes)


LOCK = Lock(
    cell="cupy-14.2.0-cuda12.9-py3.11",
    python="3.11",
    platform="linux/amd64",
    cutoff="2026-11-22T00:00:00Z",
    uv="0.13.9",
    inputs=inputs_digest(["cupy-cuda12x==14.2.0"], "3.11", "linux/amd64"),
    wheels=(
        wheel("cuda-toolkit", "12.9.2.0"),
        wheel("cupy-cuda12x", "14.2.0"),
        wheel("nvidia-cuda-runtime-cu12", "12.9.79"),
    ),
)
TEXT = dump_lock(LOCK)
LINES = TEXT.splitlines()


def findings(text: str) -> list[tuple[str, int | None]]:
    with pytest.raises(InputError) as caught:
        parse_lock(text, file=FILE)
    assert all(item.file == FILE and item.column for item in caught.value.diagnostics)
    return [(item.code, item.line) for item in caught.value.diagnostics]


def with_line(number: int, line: str) -> str:
    changed = list(LINES)
    changed[number - 1] = line
    return "\n".join(changed) + "\n"


def test_reading_is_the_inverse_of_writing() -> None:
    assert parse_lock(TEXT, file=FILE) == LOCK
    assert dump_lock(parse_lock(TEXT, file=FILE)) == TEXT


def test_a_line_is_a_requirement_that_pip_takes() -> None:
    assert LINES[8] == f"cupy-cuda12x==14.2.0 --hash=sha256:{'a' * 64}  # 1024 bytes"
    assert LOCK.wheels[1].line == f"cupy-cuda12x==14.2.0 --hash=sha256:{'a' * 64}"


def test_cuda_is_the_release_of_the_runtime_with_or_without_a_suffix() -> None:
    assert LOCK.cuda == "12.9"
    assert replace(LOCK, wheels=(wheel("nvidia-cuda-runtime", "13.0.96"),)).cuda == "13.0"
    assert replace(LOCK, wheels=(wheel("torch", "2.15.0"),)).cuda is None


def test_version_of_a_distribution() -> None:
    assert LOCK.version_of("cupy-cuda12x") == "14.2.0"
    assert LOCK.version_of("torch") is None


def test_inputs_name_everything_that_was_asked() -> None:
    asked = (["a==1", "b"], "3.11", "linux/amd64")
    assert inputs_digest(*asked) == inputs_digest(*asked)
    others = {
        inputs_digest(["b", "a==1"], "3.11", "linux/amd64"),
        inputs_digest(["a==1"], "3.11", "linux/amd64"),
        inputs_digest(["a==1", "b"], "3.13", "linux/amd64"),
        inputs_digest(["a==1", "b"], "3.11", "linux/arm64"),
    }
    assert len(others | {inputs_digest(*asked)}) == 5


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("cupy-cuda12x>=14.2.0", "unpinned"),
        ("cupy-cuda12x", "unpinned"),
        ("cupy-cuda12x==14.2.0", "no-hash"),
        (f"cupy-cuda12x==14.2.0 --hash=sha256:{'a' * 64}", "lock-line"),
        (f"cupy-cuda12x==14.2.0 --hash=sha256:{'a' * 63}  # 1 bytes", "lock-line"),
        (f"cupy-cuda12x==14.2.0 --hash=md5:{'a' * 32}  # 1 bytes", "lock-line"),
        (f"CuPy_cuda12x==14.2.0 --hash=sha256:{'a' * 64}  # 1 bytes", "lock-line"),
        (f"cupy-cuda12x==V14 --hash=sha256:{'a' * 64}  # 1 bytes", "lock-line"),
        (f"cupy-cuda12x==14.2.0 --hash=sha256:{'a' * 64}  # {'9' * 5000} bytes", "lock-line"),
        ("cupy @ file:///tmp/x.whl", "unpinned"),
        ("-r other.txt", "unpinned"),
        ("", "unpinned"),
    ],
)
def test_a_line_that_pins_no_wheel_is_reported_at_its_place(line: str, code: str) -> None:
    assert findings(with_line(9, line)) == [(code, 9)]


def test_every_wrong_line_is_reported_at_once() -> None:
    text = TEXT.replace("==14.2.0", ">=14.2.0").replace("cuda-toolkit==", "cuda-toolkit>=")
    assert findings(text) == [("unpinned", 8), ("unpinned", 9)]


@pytest.mark.parametrize("number", range(1, 8))
def test_a_missing_header_line_is_reported(number: int) -> None:
    text = "\n".join(LINES[: number - 1] + LINES[number:]) + "\n"
    assert ("lock-header", number) in findings(text)


@pytest.mark.parametrize("text", ["", "\n", "numpy==1\n", "# curator lock 2\n"])
def test_what_is_no_lock_says_so_on_line_1(text: str) -> None:
    assert findings(text)[0] == ("lock-header", 1)


def test_inputs_must_be_a_digest() -> None:
    assert findings(with_line(7, "# inputs: sha256:abc")) == [("lock-header", 7)]


def test_a_lock_without_wheels_is_refused() -> None:
    assert findings("\n".join(LINES[:7]) + "\n") == [("empty-lock", 7)]


@pytest.mark.parametrize("order", [[8, 7, 9], [7, 7, 8]])
def test_wheels_stand_sorted_each_once(order: list[int]) -> None:
    text = "\n".join(LINES[:7] + [LINES[number] for number in order]) + "\n"
    assert findings(text)[0][0] == "unsorted-lock"


@given(st.integers(0, len(TEXT)), st.integers(0, 40), st.text(max_size=20))
def test_a_damaged_lock_is_read_or_refused_never_a_traceback(
    start: int, length: int, put: str
) -> None:
    text = TEXT[:start] + put + TEXT[start + length :]
    with contextlib.suppress(InputError):
        parse_lock(text, file=FILE)


def test_ten_thousand_locks_are_read_in_two_seconds() -> None:
    many = replace(LOCK, wheels=tuple(wheel(f"part-{n:02}", "1.0") for n in range(12)))
    text = dump_lock(many)
    start = time.process_time()
    for _ in range(1_000):
        parse_lock(text, file=FILE)
    assert time.process_time() - start < 0.2


def test_rejections_are_written_sorted_and_read_back() -> None:
    later = Rejection(id="torch-b", because="no wheel", source="package index, as of 2026-11-22")
    earlier = Rejection(id="torch-a", because="built for CUDA 12.8", source="Requires-Dist")
    text = dump_rejections([later, earlier])
    assert parse_rejections(text, file="rejected.json") == (earlier, later)
    assert dump_rejections(parse_rejections(text, file="rejected.json")) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"a": 1}',
        '{"a": {"because": "x"}}',
        '{"a": {"because": "x", "source": "y", "more": "z"}}',
        '{"a": ' + "9" * 5000 + "}",
        "[" * 100_000,
    ],
)
def test_rejections_of_another_shape_are_refused_with_a_position(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_rejections(text, file="rejected.json")
    found = caught.value.diagnostics[0]
    assert (found.file, bool(found.line), bool(found.column)) == ("rejected.json", True, True)


BASE = BaseLock(
    name="debian-12",
    platform="linux/amd64",
    packages=(("libc6", "2.36-9"), ("python3", "3.11.2-1")),
    diff_id=sha256(b"rootfs"),
    size_bytes=130_000_000,
)
IMAGE = ImageLock(
    name="cuda-12.9",
    platform="linux/amd64",
    reference="nvidia/cuda:12.9.1-cudnn-devel-ubuntu24.04",
    digest=sha256(b"index"),
)


@pytest.mark.parametrize("lock", [BASE, IMAGE])
def test_a_base_is_written_and_read_back(lock: BaseLock | ImageLock) -> None:
    assert parse_base(dump_base(lock), file="base.json") == lock
    assert dump_base(parse_base(dump_base(lock), file="base.json")) == dump_base(lock)


@pytest.mark.parametrize(
    "change",
    [
        {"diff_id": "sha256:abc"},
        {"diff_id": None},
        {"packages": None},
        {"packages": ["libc6"]},
        {"size": "big"},
        {"size": float("inf")},
    ],
)
def test_a_base_of_another_shape_is_refused(change: dict[str, object]) -> None:
    value = json.loads(dump_base(BASE)) | change
    with pytest.raises(InputError):
        parse_base(json.dumps(value), file="base.json")
