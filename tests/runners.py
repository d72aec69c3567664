"""The runners that one contract is tested on, each able to say what runs have left behind.

`python -m tests.runners SPEC PROGRAM` makes one run in a process of its own that can be killed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curator.oci import Reference
from curator.ports import EngineAddress
from curator.runner import BundleRunner, DockerRunner, Slots
from curator.runner._runs import place_of

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parent.parent
LABEL = "dev.curator.owner"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A runner by its parts: a docker engine's address, or a layout, a directory and a runtime."""

    image: str
    address: dict[str, Any] | None = None
    layout: str = ""
    work: str = ""
    runtime: str = ""

    @property
    def reference(self) -> Reference:
        return Reference.parse(self.image)

    def runner(self, cancelled: threading.Event | None = None) -> DockerRunner | BundleRunner:
        cancelled = cancelled or threading.Event()
        if self.address is not None:
            return DockerRunner(EngineAddress(**self.address), cancelled)
        return BundleRunner(Path(self.layout), Path(self.work), cancelled, runtime=self.runtime)

    def left(self) -> list[str]:
        """Return the containers, files and control groups that runs have left."""
        if self.address is not None:
            return self.containers("--all")
        names = [path.name for path in Path(self.work).glob("run-*")]
        groups = subprocess.run(
            ["find", "/sys/fs/cgroup", "-name", f"run-{place_of(Path(self.work))}-*", "-type", "d"],
            capture_output=True,
            text=True,
            check=True,
        )
        return [*names, *groups.stdout.split(), *_processes(self.work)]

    def containers(self, *which: str) -> list[str]:
        """Return the containers of this image; others may use the same engine."""
        assert self.address is not None
        shown = ("--quiet", "--no-trunc", "--filter", f"label={LABEL}")
        command = [
            *EngineAddress(**self.address).command,
            "inspect",
            "--format",
            "{{.Config.Image}}",
        ]
        found = listed(self.address, "ps", *which, *shown)
        images = {
            identity: subprocess.run(
                [*command, identity], capture_output=True, text=True, check=False
            )
            for identity in found
        }
        return [name for name, image in images.items() if image.stdout.strip() == self.image]

    def start(self, program: str, *, slots: Path, gpus: Sequence[str]) -> subprocess.Popen[str]:
        """Start a run in a process of its own, which holds a slot of one of the GPUs meanwhile."""
        spec = json.dumps({**asdict(self), "slots": str(slots), "gpus": list(gpus)})
        command = [sys.executable, "-m", "tests.runners", spec, program]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def listed(address: dict[str, Any], *arguments: str) -> list[str]:
    command = [*EngineAddress(**address).command, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def _processes(work: str) -> list[str]:
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            texts = [
                (place / name).read_text(errors="replace") for name in ("cmdline", "mountinfo")
            ]
        except OSError:
            continue
        if int(place.name) != os.getpid() and any(f"{work}/run-" in text for text in texts):
            found.append(place.name)
    return found


def main() -> None:
    """Make the run that the command line describes, and print how it went as JSON."""
    spec = json.loads(sys.argv[1])
    slots, gpus = Path(spec.pop("slots")), spec.pop("gpus")
    subject = Subject(**spec)
    never = threading.Event()
    with Slots(slots, gpus).take(1, never) if gpus else nullcontext():
        run = subject.runner().run(subject.reference, sys.argv[2], gpus=0, timeout_s=120)
    sys.stdout.write(json.dumps(asdict(run)))


if __name__ == "__main__":
    main()
