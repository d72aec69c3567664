"""What a run asks of the disk before it begins, and what it passes on of an image's words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from curator.errors import TemporaryError
from curator.farm._bases import directory, sweep
from curator.farm._entry import _difference
from curator.smoke import Check, Outcome

if TYPE_CHECKING:
    from pathlib import Path


def test_a_build_without_room_does_not_begin(tmp_path: Path) -> None:
    with (
        pytest.raises(TemporaryError, match=r"MiB left, cell wants \d+: make room"),
        directory(tmp_path / "work", "cell", wheels_bytes=10**15),
    ):
        pass
    assert list((tmp_path / "work").iterdir()) == []


def test_what_killed_runs_left_is_swept(tmp_path: Path) -> None:
    dead, alive = tmp_path / "4194303999", tmp_path / "1"
    for folder in (dead, alive):
        (folder / "cell.x").mkdir(parents=True)
    sweep(tmp_path / "2")
    assert (dead.exists(), alive.exists()) == (False, True)


def test_what_an_image_says_cannot_speak_to_a_terminal() -> None:
    check = Check(
        name="framework",
        outcome=Outcome.FAIL,
        expected={"version": "1.0"},
        got={"version": "\x1b[31mred"},
        detail="differs in version",
        ms=1,
    )
    told = _difference(check)
    assert told == "version is \N{REPLACEMENT CHARACTER}[31mred, not 1.0"
