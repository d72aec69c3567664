"""Where an image runs its probe: one contract, several backends."""

from __future__ import annotations

from curator.runner.docker import DockerRunner

__all__ = ["DockerRunner"]
