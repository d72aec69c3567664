"""Running the programs that are looked at: bounded in time, and never raising."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TIMEOUT_S = 10.0
BEGINNING, END = 100, 300
TIMED_OUT = 124


def run(
    command: Sequence[str],
    environ: Mapping[str, str],
    *,
    timeout_s: float = TIMEOUT_S,
    data: bytes | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program; one that cannot start or does not end fails, and says so on stderr."""
    try:
        done = subprocess.run(  # noqa: S603 - docker's client, as it was found
            command,
            input=data,
            stdin=subprocess.DEVNULL if data is None else None,
            capture_output=True,
            check=False,
            timeout=timeout_s,
            env=dict(environ),
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(
            command, TIMED_OUT, "", f"no answer in {timeout_s:.0f} s"
        )
    except OSError as error:
        return subprocess.CompletedProcess(command, 127, "", f"{command[0]}: {error.strerror}")
    out, err = (stream.decode(errors="replace") for stream in (done.stdout, done.stderr))
    return subprocess.CompletedProcess(command, done.returncode, out, err)


def document(text: str) -> dict[str, Any]:
    """Return the JSON object that a program printed, empty if it printed none."""
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def said(result: subprocess.CompletedProcess[str]) -> str:
    """Return what a program said of its failure, on one line; causes stand at the end."""
    words = " ".join((result.stderr or result.stdout).split())
    if len(words) > BEGINNING + END:
        words = f"{words[:BEGINNING]} ... {words[-END:]}"
    return words or f"it ended with status {result.returncode}"
