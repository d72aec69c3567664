"""Where an image runs its probe: one contract, several backends."""

from __future__ import annotations

from curator.runner._slots import Slots
from curator.runner.bundle import BundleRunner
from curator.runner.docker import DockerRunner

__all__ = ["BundleRunner", "DockerRunner", "Slots"]
