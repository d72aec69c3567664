"""The facts of a machine, by a small `nvidia-smi` that answers as NVIDIA's does."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from curator.errors import HostError
from curator.host import host_facts
from curator.smoke import Gpu

if TYPE_CHECKING:
    from pathlib import Path

TWO = """\
NVIDIA H200, GPU-0f6b2c4e, 9.0, 143771, 580.95.05
NVIDIA A100-SXM4-80GB, GPU-5d3c1a7b, 8.0, 81920, 580.95.05
"""


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose only programs are those that a test puts there."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def nvidia_smi(tools: Path, prints: str, *, status: int = 0) -> None:
    """Install one that answers the query this package makes, and no other."""
    query = "--query-gpu=name,uuid,compute_cap,memory.total,driver_version"
    form = "--format=csv,noheader,nounits"
    script = f"""#!/bin/sh
[ "$*" = "{query} {form}" ] || exit 2
echo '{prints.strip()}'
exit {status}
"""
    (tools / "nvidia-smi").write_text(script)
    (tools / "nvidia-smi").chmod(0o755)


@pytest.mark.usefixtures("tools")
def test_a_machine_without_a_driver_has_no_gpu() -> None:
    facts = host_facts()
    assert (facts.gpus, facts.driver) == ((), None)
    assert (facts.kernel, facts.architecture) == (os.uname().release, os.uname().machine)


def test_gpus_in_the_driver_s_order(tools: Path) -> None:
    nvidia_smi(tools, TWO)
    facts = host_facts()
    assert facts.driver == "580.95.05"
    assert facts.gpus == (
        Gpu(name="NVIDIA H200", uuid="GPU-0f6b2c4e", sm="9.0", memory_bytes=143771 * 1024**2),
        Gpu(
            name="NVIDIA A100-SXM4-80GB",
            uuid="GPU-5d3c1a7b",
            sm="8.0",
            memory_bytes=81920 * 1024**2,
        ),
    )


def test_a_driver_without_gpus(tools: Path) -> None:
    nvidia_smi(tools, "No devices were found")
    assert (host_facts().gpus, host_facts().driver) == ((), None)


def test_a_driver_that_does_not_answer_is_said(tools: Path) -> None:
    nvidia_smi(tools, "NVIDIA-SMI has failed", status=9)
    with pytest.raises(HostError, match="check the driver"):
        host_facts()
