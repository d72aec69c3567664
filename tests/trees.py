"""Small farms as text, for tests that need no machine."""

from __future__ import annotations

from curator.lockfile import BaseLock, Lock, LockedWheel, dump_base, dump_lock, inputs_digest
from curator.oci import sha256

FARM = """\
epoch: 1700000000
demo: ["demo-*"]
"""
CUDA = """\
releases:
  "12.8": {toolkit: "12.8.1", driver_floor: "525.60.13", source: s, read: "2026-11-23"}
  "13.0": {toolkit: "13.0.2", driver_floor: "580.65.06", source: s, read: "2026-11-23"}
"""
BASES = """\
bases:
  debian: {kind: mmdebstrap, include: [python3]}
  debian-12: {extends: debian, suite: bookworm, python: "3.11"}
"""
DEMO = """\
framework: demo
package: demo-pkg
bases: {"3.11": debian-12}
axes:
  version: ["1.0", "2.0"]
  cuda: ["12.8", "13.0"]
  python: ["3.11"]
  platform: [linux/amd64]
requirements: ["demo-pkg=={version}", "cuda-toolkit=={cuda_toolkit}"]
constrain: [demo-pkg]
exclude:
  - {version: "<2", cuda: ">=13", because: too old for CUDA 13, source: release notes}
"""
PROBE = """\
def check_framework(expected):
    return dict(expected)


def check_cuda_tensor(expected):
    return dict(expected)


CHECKS["framework"] = check_framework
CHECKS["cuda_tensor"] = check_cuda_tensor
"""
TEMPLATE = """\
FROM base
{% for layer in layers %}
COPY {{ layer.file }} /
{% endfor %}
"""
TOOLKITS = {"12.8": ("12.8.1", "12.8.90"), "13.0": ("13.0.2", "13.0.96")}


def lock_text(
    version: str, cuda: str, *, python: str = "3.11", framework: str = "demo", extra: int = 0
) -> str:
    """Return the lock of a demo cell, with as many further wheels as asked for."""
    toolkit, runtime = TOOLKITS[cuda]
    name = "nvidia-cuda-runtime" + ("-cu12" if cuda.startswith("12") else "")
    wheels = [
        _wheel(f"{framework}-pkg", version),
        _wheel(name, runtime),
        *(_wheel(f"part-{number:02}", "1.0") for number in range(extra)),
    ]
    requirements = (f"{framework}-pkg=={version}", f"cuda-toolkit=={toolkit}")
    lock = Lock(
        cell=f"{framework}-{version}-cuda{cuda}-py{python}",
        python=python,
        platform="linux/amd64",
        cutoff="2026-11-22T00:00:00Z",
        uv="0.13.9",
        inputs=inputs_digest(requirements, python, "linux/amd64"),
        wheels=tuple(sorted(wheels, key=lambda wheel: wheel.name)),
    )
    return dump_lock(lock)


def _wheel(name: str, version: str) -> LockedWheel:
    digest = sha256(f"{name} {version}".encode()).removeprefix("sha256:")
    return LockedWheel(name=name, version=version, sha256=digest, size_bytes=1000)


def base_text(name: str = "debian-12") -> str:
    """Return the lock of a base."""
    packages = (("libc6", "2.36"), ("python3", "3.11"))
    lock = BaseLock(
        name=name,
        platform="linux/amd64",
        packages=packages,
        diff_id=sha256(name.encode()),
        size_bytes=1000,
    )
    return dump_base(lock)


def tiny_tree() -> dict[str, str]:
    """Return a whole farm: 3 cells and one rejected combination of the framework `demo`."""
    tree = {
        "matrix/farm.yaml": FARM,
        "matrix/cuda.yaml": CUDA,
        "matrix/bases.yaml": BASES,
        "matrix/demo.yaml": DEMO,
        "matrix/locks/bases/debian-12-linux-amd64.json": base_text(),
        "dockerfiles/demo/Dockerfile.j2": TEMPLATE,
        "dockerfiles/demo/probe.py": PROBE,
    }
    for version, cuda in (("1.0", "12.8"), ("2.0", "12.8"), ("2.0", "13.0")):
        tree[f"matrix/locks/demo/demo-{version}-cuda{cuda}-py3.11.txt"] = lock_text(version, cuda)
    return tree


def synthetic_tree(cells: int) -> dict[str, str]:
    """Return a farm of about as many cells: versions of `demo`, each for two CUDA releases."""
    versions = [f"{2 + number // 1000}.{number % 1000}" for number in range((cells + 1) // 2)]
    listed = ", ".join(f'"{version}"' for version in versions)
    framework = DEMO.replace('["1.0", "2.0"]', f"[{listed}]").partition("exclude:")[0]
    tree = {name: text for name, text in tiny_tree().items() if "/locks/demo/" not in name}
    tree["matrix/demo.yaml"] = framework
    for version in versions:
        for cuda in TOOLKITS:
            name = f"matrix/locks/demo/demo-{version}-cuda{cuda}-py3.11.txt"
            tree[name] = lock_text(version, cuda, extra=10)
    return tree
