"""What a run says while it works: a live table on a terminal, a line per change elsewhere."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.live import Live
from rich.table import Table
from rich.text import Text

from curator.errors import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console as RichConsole

    from curator.farm import Event

HEARTBEAT_S = 30.0
ENDED = frozenset({"published", "refused", "failed", "deferred", "cancelled"})
STYLES = {"published": "green", "refused": "red", "failed": "red", "deferred": "yellow"}


@dataclass(slots=True)
class _Row:
    stage: str
    detail: str
    since: float


@dataclass(slots=True)
class Board:
    """The state of each cell in work; safe to use from several threads."""

    console: RichConsole
    total: int
    live: bool
    rows: dict[str, _Row] = field(default_factory=dict)
    ended: int = 0
    started: float = field(default_factory=time.monotonic)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def observe(self, event: Event) -> None:
        """Take an event of the run."""
        with self.lock:
            if event.stage in ENDED:
                self.rows.pop(event.cell, None)
                self.ended += 1
                self._line(event)
                return
            self.rows[event.cell] = _Row(event.stage, event.detail, time.monotonic())
            if not self.live:
                self._line(event)

    def _line(self, event: Event) -> None:
        style = STYLES.get(event.stage, "")
        text = Text(f"[{self._clock():>5}] {event.cell}  ")
        text.append(event.stage, style=style)
        if event.detail:
            text.append(f"  {printable(event.detail.splitlines()[0])}")
        self.console.print(text, soft_wrap=True, highlight=False)

    def _clock(self) -> str:
        return _minutes(time.monotonic() - self.started)

    def heartbeat(self) -> None:
        """Say that work goes on, for logs that would be silent otherwise."""
        with self.lock:
            now = time.monotonic()
            work = ", ".join(
                f"{cell} {row.stage} {_minutes(now - row.since)}" for cell, row in self.rows.items()
            )
            self.console.print(
                f"[{self._clock():>5}] working: {work}", soft_wrap=True, markup=False
            )

    def table(self) -> Table:
        """Draw the cells in work."""
        grid = Table.grid(padding=(0, 2))
        with self.lock:
            now = time.monotonic()
            for cell, row in self.rows.items():
                grid.add_row(cell, row.stage, _minutes(now - row.since), printable(row.detail[:60]))
            grid.add_row(f"{self.ended} of {self.total} done", "", self._clock())
        return grid

    def __rich__(self) -> Table:
        return self.table()


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


@contextmanager
def board(console: RichConsole, total: int, mode: str) -> Iterator[Board]:
    """Show a run's progress while the block runs; `mode` is auto, tty, plain or none."""
    if mode == "none":
        console.quiet = True
    live = mode == "tty" or (mode == "auto" and console.is_terminal)
    shown = Board(console=console, total=total, live=live)
    if live:
        with Live(shown, console=console, refresh_per_second=4, transient=True):
            yield shown
        return
    stop = threading.Event()
    beat = threading.Thread(target=_beat, args=(shown, stop), daemon=True)
    beat.start()
    try:
        yield shown
    finally:
        stop.set()
        beat.join()


def _beat(shown: Board, stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT_S):
        shown.heartbeat()
