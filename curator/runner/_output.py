"""A program's two streams, of which only the ends are kept while they are printed."""

from __future__ import annotations

import os
import threading
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess

MAX_OUTPUT_BYTES = 1024 * 1024
CHUNK = 65536


class Tails:
    """Reads a process's pipes until they close; at most `MAX_OUTPUT_BYTES` of each are kept."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None  # noqa: S101 - pipes were asked for
        assert process.stderr is not None  # noqa: S101 - as above
        self._tails = (bytearray(), bytearray())
        self._printed = [0, 0]
        self._readers = [
            threading.Thread(target=self._drain, args=(number, stream), daemon=True)
            for number, stream in enumerate((process.stdout, process.stderr))
        ]
        for reader in self._readers:
            reader.start()

    @property
    def flooded(self) -> bool:
        """Whether more was printed on one of the streams than is kept."""
        return max(self._printed) > MAX_OUTPUT_BYTES

    def read(self, timeout_s: float | None = None) -> tuple[str, str]:
        """Wait until both streams have closed, and return the ends of stdout and stderr."""
        for reader in self._readers:
            reader.join(timeout_s)
        stdout, stderr = (
            bytes(t[-MAX_OUTPUT_BYTES:]).decode(errors="replace") for t in self._tails
        )
        return stdout, stderr

    def _drain(self, number: int, stream: IO[bytes]) -> None:
        tail = self._tails[number]
        while chunk := os.read(stream.fileno(), CHUNK):
            tail += chunk
            self._printed[number] += len(chunk)
            if len(tail) > 2 * MAX_OUTPUT_BYTES:
                del tail[:-MAX_OUTPUT_BYTES]
