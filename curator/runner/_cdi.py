"""CDI specifications of this machine: what a container needs to see a GPU, as its vendor wrote it.

Only `nvidia.com/gpu` is read. A file that is no such specification is as if it were not there.

Source: https://github.com/cncf-tags/container-device-interface, SPEC.md
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

KIND = "nvidia.com/gpu"
FOLDERS = (Path("/etc/cdi"), Path("/var/run/cdi"))
MAX_SPEC_BYTES = 4 * 1024 * 1024
SUFFIXES = {".json", ".yaml", ".yml"}

Edits = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """One specification: the edits of every container, and those of each device by its name."""

    edits: Edits
    devices: dict[str, Edits]


def names(folders: Iterable[Path]) -> frozenset[str]:
    """Return the full names of all GPUs, such as `nvidia.com/gpu=GPU-…`."""
    return frozenset(f"{KIND}={name}" for spec in specs(folders) for name in spec.devices)


def edits_for(gpu: str, node: str, folders: Iterable[Path] = FOLDERS) -> tuple[Edits, ...]:
    """Return a GPU's edits, the common ones first; nothing if no specification can be used.

    A GPU is known by its UUID or, where devices are named by number, by its device `node`. A
    specification is of no use if a program that it wants to be run is not on this machine.
    """
    for spec in specs(folders):
        edits = spec.devices.get(gpu)
        if edits is None:
            alone = (e for e in spec.devices.values() if _gpu_nodes(e) == [node])
            edits = next(alone, None)
        if edits is not None and all(map(_is_whole, (spec.edits, edits))):
            return spec.edits, edits
    return ()


def specs(folders: Iterable[Path]) -> Iterator[Spec]:
    """Give the specifications of GPUs in some folders."""
    for folder in folders:
        for path in sorted(folder.glob("*")) if folder.is_dir() else ():
            if path.suffix in SUFFIXES and (spec := _read(path)) is not None:
                yield spec


def _read(path: Path) -> Spec | None:
    import yaml  # noqa: PLC0415 - JSON is YAML too

    try:
        if path.stat().st_size > MAX_SPEC_BYTES:
            return None
        document = yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - a safe loader
        if document["kind"] != KIND:
            return None
        devices = {str(d["name"]): dict(d["containerEdits"]) for d in document["devices"]}
        return Spec(edits=dict(document.get("containerEdits") or {}), devices=devices)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, yaml.YAMLError):
        return None


def _gpu_nodes(edits: Edits) -> list[str]:
    """Return the device files of GPUs among edits, not those that all share."""
    paths = [str(node.get("path")) for node in edits.get("deviceNodes") or ()]
    return [path for path in paths if path.removeprefix("/dev/nvidia").isdecimal()]


def _is_whole(edits: Edits) -> bool:
    hooks = edits.get("hooks") or ()
    return all(os.access(str(hook.get("path")), os.X_OK) for hook in hooks)
