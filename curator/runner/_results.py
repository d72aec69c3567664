"""What runs have in common: their times, and the words for what kept one from starting."""

from __future__ import annotations

from datetime import UTC, datetime

from curator.smoke import ProbeRun

STOPPED = "the run was stopped"
SAID = 300


def now() -> str:
    """Return the time as documents hold it."""
    return datetime.now(UTC).replace(microsecond=0).isoformat().replace("+00:00", "Z")


def unstarted(begun: str, failure: str, gpus: tuple[str, ...] = ()) -> ProbeRun:
    """Return the run of a program that never started, or that nobody waited for."""
    return ProbeRun(
        exit_code=None,
        stdout="",
        stderr="",
        started=begun,
        ended=now(),
        failure=failure,
        gpus=gpus,
    )


def said(text: str | None) -> str:
    """Return the end of what a program said, on one line."""
    return " ".join((text or "").split())[-SAID:]
