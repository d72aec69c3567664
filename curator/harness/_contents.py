"""What the image holds, read from its files and by its own interpreter."""

from __future__ import annotations

import ctypes
import glob
import json
import os
import platform
import re
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from importlib import metadata
from typing import Dict, Iterable, Iterator, List, Optional, Tuple

from curator.harness._run import CHECKS, Facts

# Transports of multi-node libraries and profiler parts, which want hardware or its drivers.
OPTIONAL = (
    "libmlx5", "libibverbs", "librdmacm", "libucp", "libucs", "libfabric", "libpmix", "libmpi",
    "libefa", "liboshmem", "libgdrapi", "nvshmem_transport", "nvshmem_bootstrap", "libcufile_rdma",
    "libpcsamplingutil", "libnvperf", "libcheckpoint", "libcupti",
)  # fmt: skip
DRIVER = ("libcuda.so", "libnvidia-ml.so")
LIBRARY = re.compile(r"\.so(\.\d+)*$")
# Libraries of which an image has one major version, or it has two CUDAs. CUPTI is none of them:
# Triton brings its own.
SINGLE = re.compile(
    r"(lib(?:cudart|cublas|cublasLt|cudnn|cufft|curand|cusolver|cusparse|nccl|nvrtc|nvJitLink))"
    r"\.so\.(\d+)(\.0)?"
)
TOOLKIT = "/usr/local/cuda"
FORWARD = re.compile(r"libcuda\.so\.(\d{3,4}(?:\.\d+){1,3})")
SUFFIX = re.compile(r"(nvidia-.+)-cu(\d\d)")
# From CUDA 13 on NVIDIA's distributions have no suffix, and this one CUDA's version.
RUNTIME = "nvidia-cuda-runtime"
FAR = "9999"
DEPENDENT = "curator-dependent"
PIP_SECONDS = 60


def check_python(expected: Facts) -> Facts:
    """Read the interpreter, and each distribution that the lock names."""
    found: Facts = {
        "python": ".".join(platform.python_version_tuple()[:2]),
        "machine": platform.machine(),
        "glibc": platform.libc_ver()[1],
    }
    for name in expected:
        if name not in found:
            try:
                found[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                found[name] = "absent"
    return found


def check_libraries(expected: Facts) -> Facts:  # noqa: ARG001 - every check is called alike
    """Load every CUDA library of the image; only the driver's own may be missing.

    A framework's own libraries are left to its import: some ask for parts that it does without.
    Of a forward compatibility package the driver's version is told.

    Raises:
        OSError: a library does not load.
        AssertionError: there are two CUDAs of different major releases.
    """
    second = second_cuda(installed()) or second_library(path for _, path in library_files())
    if second:
        raise AssertionError(f"a second CUDA in the image: {second}")
    root = sysconfig.get_paths()["purelib"]
    found = glob.glob(root + "/nvidia/**/*.so*", recursive=True)
    paths = sorted(path for path in found if LIBRARY.search(path))
    waiting, failed = list(paths), {"": ""}
    # A library may need another one that stands later in the list: go on while that helps.
    while failed:
        failed = {path: error for path in waiting if (error := _load(path))}
        if len(failed) == len(waiting):
            break
        waiting = list(failed)
    broken = [error for path, error in failed.items() if not _may_fail(path, error)]
    if broken:
        raise OSError("; ".join(broken)[:1500])
    package = forward_driver(glob.glob(TOOLKIT + "*/compat/libcuda.so.*"))
    told = {"forward": package} if package else {}
    return {"count": len(paths), "skipped": len(failed), **told, **versions_loaded()}


def forward_driver(paths: Iterable[str]) -> Optional[str]:
    """Return the version of the driver that a forward compatibility package brings.

    Source: CUDA Compatibility, "Forward Compatibility": the package's files and where they lie.
    """
    found = (FORWARD.fullmatch(os.path.basename(path)) for path in sorted(paths))
    return next((match[1] for match in found if match), None)


def installed() -> Dict[str, str]:
    """Return name -> version of what is installed; what has no name is a leftover."""
    found = ((item.metadata["Name"], item.version) for item in metadata.distributions())
    return {normalised(name): version for name, version in found if name}


def normalised(name: str) -> str:
    """Return a distribution's name as the package index writes it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def second_cuda(packages: Dict[str, str]) -> str:
    """Name two of these distributions (name -> version) for different CUDA majors, if there are.

    Source: NVIDIA's distributions have the suffix `-cu11` or `-cu12`; from CUDA 13 on most have
    none, and those that are released apart from CUDA (cuDNN, NCCL) keep it.
    """
    majors: Dict[str, str] = {}
    for name, version in sorted(packages.items()):
        match = SUFFIX.fullmatch(name)
        if match and match[1] in packages:
            return f"{match[1]} {packages[match[1]]} beside {name} {version}"
        if match or name == RUNTIME:
            major = match[2] if match else version.split(".")[0]
            majors.setdefault(major, f"{name} {version}")
    return " beside ".join(majors[major] for major in sorted(majors)) if len(majors) > 1 else ""


def second_library(paths: Iterable[str]) -> str:
    """Name two of these files that are one library of CUDA in two majors, if there are."""
    found: Dict[str, Dict[str, str]] = {}
    for path in paths:
        match = SINGLE.fullmatch(os.path.basename(path))
        if match:
            found.setdefault(match[1], {}).setdefault(match[2], path)
    pairs = (majors for majors in found.values() if len(majors) > 1)
    pair = next(pairs, {})
    return " beside ".join(pair[major] for major in sorted(pair, key=int))


def library_files() -> Iterator[Tuple[str, str]]:
    """Yield (root, path) of each shared library in site-packages and in CUDA toolkits."""
    paths = sysconfig.get_paths()
    places = {os.path.realpath(path) for path in (paths["purelib"], paths["platlib"])}
    for root in sorted(places) + sorted(glob.glob(f"{TOOLKIT}*")):
        for folder, folders, names in os.walk(root):
            folders.sort()
            for name in sorted(names):
                path = os.path.join(folder, name)
                if LIBRARY.search(name) and os.path.isfile(path):
                    yield root, path


def _load(path: str) -> str:
    try:
        ctypes.CDLL(path)
    except OSError as error:
        return str(error)
    return ""


def _may_fail(path: str, error: str) -> bool:
    missing = error.partition(":")[0]
    return missing.startswith(DRIVER + OPTIONAL) or os.path.basename(path).startswith(OPTIONAL)


def check_packages(expected: Facts) -> Facts:
    """Ask pip whether the packages fit, and whether it keeps `expected["package"]`.

    Two wheels are offered in a directory that is the whole index: one that depends on the
    framework, and a framework of a version far above. An eager upgrade has to keep the installed
    one, which is what the image's constraints are for. It is a dry run.

    Raises:
        AssertionError: there is no pip, packages do not fit, or the framework would be replaced.
    """
    name = str(expected["package"])
    version, pip = _version(name), _version("pip")
    status, told = _pip("check")
    if status:
        raise AssertionError(f"pip check: {told[:1500]}")
    with tempfile.TemporaryDirectory() as folder:
        write_wheel(folder, name, FAR)
        write_wheel(folder, DEPENDENT, "1", name)
        chosen = _would_install(folder, DEPENDENT)
    chosen.pop(DEPENDENT)
    if chosen:
        others = ", ".join(" ".join(item) for item in sorted(chosen.items()))
        raise AssertionError(
            f"pip replaces {name} {version} for a package that depends on it, by {others};"
            f" PIP_CONSTRAINT is {os.environ.get('PIP_CONSTRAINT', 'not set')}"
        )
    return {"package": name, "version": version, "pip": pip, "constraints": _pinned(name, version)}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        raise AssertionError(f"this image has no {name}") from None


def _would_install(folder: str, name: str) -> Dict[str, str]:
    """Return what an eager upgrade would install from a directory: name -> version."""
    report = os.path.join(folder, "report.json")
    how = ("--dry-run", "--no-index", "--find-links", folder, "--report", report)
    eager = ("--upgrade", "--upgrade-strategy", "eager", name)
    status, told = _pip("install", "--quiet", "--no-cache-dir", *how, *eager)
    if status:
        raise AssertionError(f"pip install: {told[-1500:]}")
    with open(report, encoding="utf-8") as file:
        items = [item["metadata"] for item in json.load(file)["install"]]
    return {normalised(item["name"]): item["version"] for item in items}


def _pip(*arguments: str) -> Tuple[int, str]:
    """Run the image's pip, which needs no home that can be written; return status and output."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    done = subprocess.run(
        [*command, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=PIP_SECONDS,
        check=False,
    )
    return done.returncode, done.stdout.decode(errors="replace").strip()


def write_wheel(folder: str, name: str, version: str, *needs: str) -> None:
    """Write a wheel with nothing in it but its name and what it depends on.

    Source: Python packaging specifications, "Binary distribution format".
    """
    stem = f"{re.sub('[-_.]+', '_', name)}-{version}"
    info = f"{stem}.dist-info"
    about = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"]
    about += [f"Requires-Dist: {need}\n" for need in needs]
    files = {
        f"{info}/METADATA": "".join(about),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    with zipfile.ZipFile(os.path.join(folder, f"{stem}-py3-none-any.whl"), "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)


def _pinned(name: str, version: str) -> List[str]:
    """Return the variables, for pip and for uv, whose file pins the framework as installed."""
    pin = f"{name}=={version}"
    found = []
    for variable in ("PIP_CONSTRAINT", "UV_CONSTRAINT"):
        try:
            with open(os.environ.get(variable, ""), encoding="utf-8") as file:
                if pin in file.read().split():
                    found.append(variable)
        except OSError:
            pass
    return found


def cuda_runtime() -> str:
    """Return the version of the CUDA runtime that the image's wheels hold, such as 12.9."""
    found = loaded_version("cudart", "cudaRuntimeGetVersion")
    if found is None:
        raise OSError("the image's wheels hold no libcudart")
    return dotted(found)


def cudnn_loaded() -> str:
    """Return the version of the cuDNN library that the image's wheels hold."""
    path = _wheel_library("cudnn")
    if path is None:
        raise OSError("the image's wheels hold no libcudnn")
    version = ctypes.CDLL(path).cudnnGetVersion
    version.restype = ctypes.c_size_t
    return dotted_cudnn(version())


def loaded_version(name: str, function: str) -> Optional[int]:
    """Return the number by which a library of the image's wheels names its version, if it is there.

    Raises:
        OSError: it does not load, or does not tell.
    """
    path = _wheel_library(name)
    if path is None:
        return None
    number = ctypes.c_int()
    status = getattr(ctypes.CDLL(path), function)(ctypes.byref(number))
    if status:
        raise OSError(f"{path}: {function} returns {status}")
    return number.value


def _wheel_library(name: str) -> Optional[str]:
    pattern = sysconfig.get_paths()["purelib"] + f"/nvidia/**/lib{name}.so.*"
    return next(iter(sorted(glob.glob(pattern, recursive=True))), None)


def versions_loaded() -> Facts:
    """Return the versions of the CUDA libraries that load here, of those that the image has.

    Source: cudaRuntimeGetVersion, cudnnGetVersion and ncclGetVersion in their documentation.
    """
    cudart = loaded_version("cudart", "cudaRuntimeGetVersion")
    nccl = loaded_version("nccl", "ncclGetVersion")
    return {
        **({"cudart": dotted(cudart)} if cudart else {}),
        **({"cudnn": cudnn_loaded()} if _wheel_library("cudnn") else {}),
        **({"nccl": dotted_nccl(nccl)} if nccl else {}),
    }


def dotted(number: int) -> str:
    """Return CUDA's number for a version as text: 12090 is 12.9."""
    return f"{number // 1000}.{number % 1000 // 10}"


def dotted_cudnn(number: int) -> str:
    """Return cuDNN's number for a version as text: 91002 is 9.10.2, 8902 is 8.9.2."""
    step = 10000 if number >= 90000 else 1000
    return f"{number // step}.{number % step // 100}.{number % 100}"


def dotted_nccl(number: int) -> str:
    """Return NCCL's number for a version as text: 22105 is 2.21.5."""
    return f"{number // 10000}.{number % 10000 // 100}.{number % 100}"


CHECKS["python"] = check_python
CHECKS["libraries"] = check_libraries
CHECKS["packages"] = check_packages
