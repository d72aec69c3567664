"""`gpus.yaml`: which compute capabilities and driver branches there are, each with its source."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from curator.matrix._model import GpusFile, shape
from curator.matrix._values import Capability, DriverBranch, Gpus

if TYPE_CHECKING:
    from curator.matrix._source import Source

_CAPABILITY = re.compile(r"[1-9]\d?\.\d")
_BRANCH = re.compile(r"[1-9]\d{2,3}")


def gpus(source: Source) -> Gpus:
    """Return the file's facts in ascending order; what is wrong is in the source's findings."""
    file = shape(source, GpusFile)
    if file is None:
        return Gpus()
    for name in file.gpus:
        if not _CAPABILITY.fullmatch(name):
            message = f"{name!r} is no compute capability such as 9.0"
            source.refuse("bad-value", message, ("gpus", name))
    for name in file.branches:
        if not _BRANCH.fullmatch(name):
            source.refuse("bad-value", f"{name!r} is no branch such as 580", ("branches", name))
    for name, row in file.gpus.items():
        for field in ("first_driver", "last_driver"):
            branch = getattr(row, field)
            if branch is not None and str(branch) not in file.branches:
                message = f"driver branch {branch} has no facts below `branches`"
                source.refuse("unknown-branch", message, ("gpus", name, field))
    if source.findings:
        return Gpus()
    capabilities = [Capability(sm=name, **row.model_dump()) for name, row in file.gpus.items()]
    branches = [
        DriverBranch(number=int(name), **row.model_dump()) for name, row in file.branches.items()
    ]
    return Gpus(
        capabilities=tuple(sorted(capabilities, key=lambda found: found.order)),
        branches=tuple(sorted(branches, key=lambda found: found.number)),
    )
