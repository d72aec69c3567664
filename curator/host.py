"""What this machine is: its kernel, architecture, NVIDIA driver and GPUs."""

from __future__ import annotations

import os
import shutil
import subprocess

from curator.errors import HostError
from curator.smoke import Gpu, HostFacts

QUERY = "name,uuid,compute_cap,memory.total,driver_version"
MIB = 1024**2
TIMEOUT_S = 30


def host_facts() -> HostFacts:
    """Return the facts of this machine; no `nvidia-smi` means no GPU.

    Raises:
        HostError: there is a driver, but it does not answer.
    """
    machine = os.uname()
    rows = _nvidia_smi()
    return HostFacts(
        gpus=tuple(
            Gpu(name=name, uuid=uuid, sm=sm, memory_bytes=int(memory) * MIB)
            for name, uuid, sm, memory, _ in rows
        ),
        driver=rows[0][4] if rows else None,
        kernel=machine.release,
        architecture=machine.machine,
    )


def _nvidia_smi() -> list[list[str]]:
    """Return a row per GPU; asked by field, since the table for people changes its words."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, f"--query-gpu={QUERY}", "--format=csv,noheader,nounits"]
    try:
        result = subprocess.run(  # noqa: S603 - NVIDIA's own program
            command, capture_output=True, text=True, check=True, timeout=TIMEOUT_S
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise HostError(f"nvidia-smi is there but fails ({error}): check the driver") from error
    rows = [[cell.strip() for cell in line.split(",")] for line in result.stdout.splitlines()]
    return [row for row in rows if len(row) == len(QUERY.split(","))]
