"""GPU slots: who may use which GPU of this machine now, across processes.

- A slot is a file that its owner holds by `flock`: a killed owner's slots are free at once, since
  the kernel drops its locks, and there is nothing to clean up.
- Whoever waits holds no GPU: all that were asked for are taken together or none is, so two that
  want several never wait for each other.
- Those that wait take turns: many that want one GPU do not starve one that wants several.

The directory has to be on a local file system, and the same for everybody who shares the GPUs.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from curator.errors import CancelledError, HostError

if TYPE_CHECKING:
    import threading
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

POLL_S = 0.1
TURN = "turn"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, slots=True)
class Slots:
    """The GPUs of a host by UUID, each with room for `per_gpu` programs at once.

    Raises:
        HostError: a name that is no GPU's, or one that is listed twice.
    """

    directory: Path
    gpus: Sequence[str]
    per_gpu: int = 1

    def __post_init__(self) -> None:
        for gpu in self.gpus:
            if not _NAME.fullmatch(gpu) or gpu == TURN:
                raise HostError(f"not a GPU's UUID: {gpu!r}")
        if len(set(self.gpus)) != len(self.gpus) or self.per_gpu < 1:
            raise HostError(f"not GPUs with slots: {list(self.gpus)}, {self.per_gpu} for each")

    def only(self, gpus: Collection[str]) -> Slots:
        """Return the slots of these GPUs alone; who holds one holds it of all."""
        return replace(self, gpus=[gpu for gpu in self.gpus if gpu in gpus])

    @contextlib.contextmanager
    def take(self, count: int, cancelled: threading.Event) -> Iterator[tuple[str, ...]]:
        """Wait for `count` different GPUs, and hold a slot of each; give their UUIDs.

        Raises:
            HostError: there are not as many GPUs, so waiting would never end.
            CancelledError: `cancelled` was set while waiting.
        """
        if count > len(self.gpus):
            raise HostError(f"{count} GPUs were asked for, and this runner has {len(self.gpus)}")
        if count < 1:
            yield ()
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as held:
            yield self._wait(count, cancelled, held)

    def _wait(
        self, count: int, cancelled: threading.Event, held: contextlib.ExitStack
    ) -> tuple[str, ...]:
        """Wait for a turn, then until enough GPUs are free; only who has the turn takes any."""
        with contextlib.ExitStack() as turn:
            while not self._lock(TURN, turn):
                _pause(cancelled)
            while not (taken := self._try(count, held)):
                _pause(cancelled)
            return taken

    def _try(self, count: int, held: contextlib.ExitStack) -> tuple[str, ...]:
        """Take slots of `count` GPUs, or of none."""
        with contextlib.ExitStack() as found:
            taken: list[str] = []
            for gpu in self._least_used_first():
                names = (f"{gpu}.{number}" for number in range(self.per_gpu))
                if any(self._lock(name, found) for name in names):
                    taken.append(gpu)
                if len(taken) == count:
                    held.push(found.pop_all())
                    return tuple(taken)
        return ()

    def _least_used_first(self) -> list[str]:
        """Return the GPUs in the order to try: with room for several, an idle one comes first."""
        if self.per_gpu == 1:
            return list(self.gpus)
        used = {gpu: self.per_gpu - self._free(gpu) for gpu in self.gpus}
        return sorted(self.gpus, key=lambda gpu: used[gpu])

    def _free(self, gpu: str) -> int:
        with contextlib.ExitStack() as tried:
            return sum(self._lock(f"{gpu}.{number}", tried) for number in range(self.per_gpu))

    def _lock(self, name: str, held: contextlib.ExitStack) -> bool:
        """Lock a file until `held` ends, if nobody has it."""
        path = self.directory / name
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        held.callback(os.close, descriptor)
        return True


def _pause(cancelled: threading.Event) -> None:
    if cancelled.wait(POLL_S):
        raise CancelledError("the run was stopped while it waited for a GPU")
