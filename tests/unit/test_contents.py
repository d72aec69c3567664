"""What the harness finds in an image: environments of this Python, broken in small ways."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from importlib.metadata import version
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import uv

from curator.harness._contents import second_cuda, second_library, write_wheel
from curator.lockfile import parse_lock
from curator.smoke._program import harness
from tests.libraries import write_library

HARNESS = harness("_run", "_contents")
NONCE = "0123456789abcdef"
LOCKS = Path(__file__).parents[2] / "matrix/locks"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A Python environment with nothing in it, which stands for an image."""
    venv.create(tmp_path / "env", symlinks=True)
    return tmp_path / "env"


@pytest.fixture
def with_pip(image: Path) -> Path:
    """An image with pip and a framework `demo`, held by a constraints file as our images do."""
    spec = find_spec("pip")
    assert spec is not None, "the tests are installed by pip"
    assert spec.origin is not None
    (packages(image) / "pip").symlink_to(Path(spec.origin).parent)
    distribution(image, "pip", version("pip"))
    distribution(image, "demo", "1.0")
    constrain(image, "demo==1.0\n")
    return image


def packages(image: Path) -> Path:
    return next(image.glob("lib/python3*/site-packages"))


def libraries(image: Path) -> Path:
    return packages(image) / "nvidia/cublas/lib"


def distribution(image: Path, name: str, number: str, *needs: str) -> None:
    """Install what `importlib.metadata` finds."""
    folder = packages(image) / f"{name.replace('-', '_')}-{number}.dist-info"
    folder.mkdir()
    about = f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n"
    needed = "".join(f"Requires-Dist: {need}\n" for need in needs)
    (folder / "METADATA").write_text(about + needed)


def constrain(image: Path, text: str) -> None:
    (image / "constraints.txt").write_text(text)


def checked(image: Path, name: str, expected: dict[str, Any] | None = None) -> dict[str, Any]:
    """Run one check in an image, where its environment says what a recipe makes it say."""
    toolkit = str(image / "usr/local/cuda")
    text = f"{HARNESS}\nTOOLKIT = {toolkit!r}\nEXPECT.update({{{name!r}: {expected or {}!r}}})\n"
    constraints = str(image / "constraints.txt")
    set_there = {"PIP_CONSTRAINT": constraints, "UV_CONSTRAINT": constraints}
    passed_on = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "UV_"))}
    done = subprocess.run(
        [image / "bin/python3", "-c", f"{text}main({NONCE!r}, ({name!r},), '')"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**passed_on, **(set_there if Path(constraints).exists() else {}), "HOME": "/dev/null"},
    )
    (line,) = (line for line in done.stdout.splitlines() if line.startswith(NONCE))
    (found,) = json.loads(line.removeprefix(NONCE))["checks"]
    assert isinstance(found, dict)
    return found


def loaded(image: Path) -> dict[str, Any]:
    return checked(image, "libraries")


def test_libraries_that_load_are_counted(image: Path) -> None:
    for name in ("libcublas.so.12", "libcublasLt.so.12", "libnvblas.so"):
        write_library(libraries(image) / name)
    found = loaded(image)
    assert (found["outcome"], found["got"]) == ("pass", {"count": 3, "skipped": 0})


def test_a_library_may_need_one_that_stands_later(image: Path) -> None:
    write_library(libraries(image) / "libfirst.so.1", needs=("libmiddle.so.1",))
    write_library(libraries(image) / "libmiddle.so.1", needs=("libzlast.so.1",))
    write_library(packages(image) / "nvidia/z/lib/libzlast.so.1")
    found = loaded(image)
    assert (found["outcome"], found["got"]) == ("pass", {"count": 3, "skipped": 0})


def test_a_forward_compatibility_package_tells_its_driver(image: Path) -> None:
    package = image / "usr/local/cuda-12.4/compat"
    package.mkdir(parents=True)
    (package / "libcuda.so.1").symlink_to("libcuda.so.550.54.15")
    (package / "libcuda.so.550.54.15").write_bytes(b"a driver")
    assert loaded(image)["got"] == {"count": 0, "skipped": 0, "forward": "550.54.15"}


def test_what_comes_with_the_host_may_be_missing(image: Path) -> None:
    for missing in ("libcuda.so.1", "libnvidia-ml.so.1", "libibverbs.so.1"):
        write_library(libraries(image) / f"libwants-{missing}", needs=(missing,))
    found = loaded(image)
    assert (found["outcome"], found["got"]) == ("pass", {"count": 3, "skipped": 3})


def test_what_the_image_has_to_bring_may_not(image: Path) -> None:
    brought = ("libcudart.so.12", "libcudnn.so.9", "libcublasLt.so.12")
    for missing in brought:
        write_library(libraries(image) / f"libwants-{missing}", needs=(missing,))
    write_library(libraries(image) / "libwaits.so.1", needs=("libwants-libcudnn.so.9",))
    found = loaded(image)
    assert found["outcome"] == "fail"
    assert all(missing in found["detail"] for missing in brought)


def test_a_library_that_was_cut_off_does_not_load(image: Path) -> None:
    cut = {f"libcut{keep_bytes}.so.12": keep_bytes for keep_bytes in (0, 3, 100)}
    for name, keep_bytes in cut.items():
        path = libraries(image) / name
        write_library(path)
        path.write_bytes(path.read_bytes()[:keep_bytes])
    found = loaded(image)
    assert found["outcome"] == "fail"
    assert all(name in found["detail"] for name in cut)


def test_a_link_that_points_nowhere_does_not_load(image: Path) -> None:
    libraries(image).mkdir(parents=True)
    (libraries(image) / "libcublas.so.12").symlink_to("/nowhere")
    assert loaded(image)["outcome"] == "fail"


def test_files_that_are_no_libraries_are_left_alone(image: Path) -> None:
    libraries(image).mkdir(parents=True)
    for name in ("libcublas.so.12.txt", "libcublas.a", "libcublas.so.json", "libcublas.sources"):
        (libraries(image) / name).write_text("text")
    assert loaded(image)["got"] == {"count": 0, "skipped": 0}


def test_a_second_cuda_is_found_by_its_files(image: Path) -> None:
    write_library(libraries(image) / "libcublas.so.12")
    write_library(packages(image) / "framework/lib/libcublas.so.13")
    found = loaded(image)
    assert found["outcome"] == "fail"
    assert "nvidia/cublas/lib/libcublas.so.12 beside " in found["detail"]
    assert found["detail"].endswith("framework/lib/libcublas.so.13")


def test_a_second_cuda_is_found_in_a_toolkit(image: Path) -> None:
    write_library(libraries(image) / "libcublas.so.12")
    write_library(image / "usr/local/cuda-12.9/lib64/libcublas.so.12")
    assert loaded(image)["outcome"] == "pass"
    write_library(image / "usr/local/cuda-13.0/lib64/libcublas.so.13")
    assert loaded(image)["detail"].endswith("usr/local/cuda-13.0/lib64/libcublas.so.13")


def test_a_second_cuda_is_found_by_its_distributions(image: Path) -> None:
    distribution(image, "nvidia-cublas-cu12", "12.9.1.4")
    distribution(image, "nvidia-cuda-runtime", "13.0.96")
    found = loaded(image)
    assert found["outcome"] == "fail"
    assert "nvidia-cublas-cu12 12.9.1.4 beside nvidia-cuda-runtime 13.0.96" in found["detail"]


@pytest.mark.parametrize(
    ("names", "named"),
    [
        (("nvidia-cublas-cu11", "nvidia-cufft-cu12"), "nvidia-cublas-cu11 1 beside nvidia-cufft"),
        (("nvidia-cublas", "nvidia-cublas-cu12"), "nvidia-cublas 1 beside nvidia-cublas-cu12 1"),
        (("nvidia-cudnn-cu12", "nvidia-cudnn-cu13"), "nvidia-cudnn-cu12 1 beside nvidia-cudnn-cu1"),
        (("nvidia-cublas-cu12", "nvidia-cudnn-cu12", "nvidia-ml-py"), ""),
        (("nvidia-cublas", "nvidia-cudnn-cu13", "nvidia-nccl-cu13"), ""),
        (("cupy-cuda12x", "torch", "nvidia-modelopt"), ""),
    ],
)
def test_names_tell_for_which_cuda_distributions_are(names: tuple[str, ...], named: str) -> None:
    found = second_cuda(dict.fromkeys(names, "1"))
    assert found.startswith(named)
    assert bool(found) == bool(named)


def test_no_lock_of_the_farm_has_a_second_cuda() -> None:
    files = sorted(LOCKS.glob("*/*.txt"))
    locks = [parse_lock(file.read_text(), file=file.name) for file in files]
    assert len(locks) > 100
    installed = [{wheel.name: wheel.version for wheel in lock.wheels} for lock in locks]
    assert {second_cuda(held) for held in installed} == {""}


def test_any_two_locks_of_different_cuda_majors_have_one_when_installed_together() -> None:
    files = sorted(LOCKS.glob("*/*.txt"))
    locks = [parse_lock(file.read_text(), file=file.name) for file in files]
    of = {(lock.cuda or "").partition(".")[0]: lock for lock in locks}
    assert len(of) >= 3
    for one, other in pairwise(of.values()):
        both = {wheel.name: wheel.version for wheel in (*one.wheels, *other.wheels)}
        assert second_cuda(both), (one.cell, other.cell)


@pytest.mark.parametrize(
    ("names", "is_second"),
    [
        (("libcudart.so.12", "libcudart.so.13"), True),
        (("libcudart.so.11.0", "libcudart.so.12"), True),
        (("libnvrtc.so.12", "libnvrtc.so.13"), True),
        (("libcudart.so", "libcudart.so.12", "libcudart.so.12.9.79"), False),
        (("libnvrtc.so.12", "libnvrtc-builtins.so.12.9", "libnvrtc.alt.so.12"), False),
        (("libcufft.so.11", "libcurand.so.10", "libcublas.so.12", "libcublasLt.so.12"), False),
        (("libcupti.so.12", "libcupti.so.2025.3.1"), False),
    ],
)
def test_files_are_one_library_in_two_majors(names: tuple[str, ...], *, is_second: bool) -> None:
    found = second_library(f"/here/{name}" for name in names)
    assert found == (f"/here/{names[0]} beside /here/{names[1]}" if is_second else "")


def test_distributions_are_those_of_the_lock(image: Path) -> None:
    distribution(image, "nvidia-cublas-cu12", "12.9.1.4")
    distribution(image, "demo", "1.0")
    expected = {"nvidia-cublas-cu12": "12.9.1.4", "demo": "1.1", "gone": "2.0"}
    found = checked(image, "python", expected)
    assert found["outcome"] == "fail"
    assert found["detail"] == "differs in demo, gone"
    assert (found["got"]["demo"], found["got"]["gone"]) == ("1.0", "absent")


def test_another_python_or_machine_is_found(image: Path) -> None:
    found = checked(image, "python", {"python": "3.1", "machine": "m68k"})
    assert found["detail"] == "differs in machine, python"
    assert found["got"]["python"] == f"{sys.version_info.major}.{sys.version_info.minor}"


def test_pip_keeps_the_framework_and_installs_nothing(with_pip: Path) -> None:
    before = sorted(packages(with_pip).iterdir())
    found = checked(with_pip, "packages", {"package": "demo"})
    assert (found["outcome"], found["detail"]) == ("pass", "")
    assert found["got"] == {
        "package": "demo",
        "version": "1.0",
        "pip": version("pip"),
        "constraints": ["PIP_CONSTRAINT", "UV_CONSTRAINT"],
    }
    assert sorted(packages(with_pip).iterdir()) == before


def test_constraints_that_do_not_hold_the_framework(with_pip: Path) -> None:
    constrain(with_pip, "other==1.0\ndemo>=1\n")
    found = checked(with_pip, "packages", {"package": "demo"})
    assert found["outcome"] == "fail"
    assert "pip replaces demo 1.0 for a package that depends on it, by demo 9999" in found["detail"]


def test_an_image_without_constraints(with_pip: Path) -> None:
    (with_pip / "constraints.txt").unlink()
    found = checked(with_pip, "packages", {"package": "demo"})
    assert found["outcome"] == "fail"
    assert found["detail"].endswith("by demo 9999; PIP_CONSTRAINT is not set")


def test_constraints_that_are_gone(with_pip: Path) -> None:
    (with_pip / "constraints.txt").unlink()
    (with_pip / "constraints.txt").symlink_to(with_pip)
    found = checked(with_pip, "packages", {"package": "demo"})
    assert found["outcome"] == "fail"
    assert found["detail"].startswith("AssertionError: pip install: ")
    assert "constraints.txt" in found["detail"]


def test_packages_that_do_not_fit(with_pip: Path) -> None:
    distribution(with_pip, "wants", "1.0", "demo>=2", "missing")
    found = checked(with_pip, "packages", {"package": "demo"})
    assert found["outcome"] == "fail"
    assert "wants 1.0 requires missing, which is not installed." in found["detail"]
    assert "wants 1.0 has requirement demo>=2, but you have demo 1.0." in found["detail"]


def test_images_without_pip_or_the_framework(image: Path, with_pip: Path) -> None:
    gone = checked(with_pip, "packages", {"package": "torch"})
    assert gone["detail"] == "AssertionError: this image has no torch"
    (packages(image) / f"pip-{version('pip')}.dist-info/METADATA").unlink()
    (packages(image) / f"pip-{version('pip')}.dist-info").rmdir()
    no_pip = checked(image, "packages", {"package": "demo"})
    assert no_pip["detail"] == "AssertionError: this image has no pip"


def test_names_are_compared_as_the_index_writes_them(with_pip: Path) -> None:
    distribution(with_pip, "Demo_Extra.cuda12x", "2.0")
    constrain(with_pip, "demo-extra-cuda12x==2.0\n")
    found = checked(with_pip, "packages", {"package": "demo-extra-cuda12x"})
    assert (found["outcome"], found["got"]["version"]) == ("pass", "2.0")


@pytest.mark.parametrize(("constraint", "replaces"), [("demo==1.0\n", False), ("\n", True)])
def test_uv_keeps_what_pip_keeps(with_pip: Path, constraint: str, *, replaces: bool) -> None:
    write_wheel(str(with_pip), "demo", "9999")
    write_wheel(str(with_pip), "dependent", "1", "demo")
    constrain(with_pip, constraint)
    how = ["--dry-run", "--no-config", "--no-index", "--find-links", str(with_pip), "--upgrade"]
    done = subprocess.run(
        [
            uv.find_uv_bin(),
            "pip",
            "install",
            *how,
            "--python",
            with_pip / "bin/python",
            "dependent",
        ],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], "UV_CONSTRAINT": str(with_pip / "constraints.txt")},
    )
    assert ("+ demo==9999" in done.stderr) == replaces
