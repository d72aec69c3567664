"""Runs a program in an image where there is no docker: an OCI runtime on an unpacked image layout.

- The image comes from an OCI image layout, a directory or a .tar archive of one. Every blob is
  checked against its digest before it is used, every layer against the image's config.
- Each run unpacks the image anew, so no run sees what another one wrote; what it left is removed
  whatever happens, and `sweep` does the same for killed runs.
- A container has no network, no capabilities, the devices of the GPUs it was given and, read-only,
  the driver's libraries: nothing else of the host.
- It takes root, for layers hold files of several users. Control groups are used where they are: the
  limit of processes needs them, and the rule that no other device can be opened.

Source: OCI runtime specification; crun(1), runc(8)
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from curator.errors import CancelledError, HostError
from curator.oci import Platform
from curator.runner import _layout, _runs, _spec, _users
from curator.runner._driver import Access, Host
from curator.runner._output import Tails
from curator.runner._results import STOPPED, now, said, unstarted
from curator.runner._streams import reading
from curator.runner._unpack import Tree, unpack
from curator.smoke import ProbeRun

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from curator.oci import Reference
    from curator.runner._layout import Settings
    from curator.runner._slots import Slots

RUNTIMES = ("crun", "runc")
MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
POLL_S = 0.1
GRACE_S = 10.0
MAX_LOG_BYTES = 64 * 1024
MAX_NAMES_BYTES = 1024 * 1024

# A mount namespace without control groups; what comes after it is run in there.
HIDING = (
    "unshare", "--mount", "sh", "-c",
    'mount -t tmpfs none /sys/fs/cgroup && exec "$@"', "sh",
)  # fmt: skip

# What runtimes say where control groups are missing, mixed, or not ours to use.
_CONTROL = re.compile(r"cgroup|RLIM_MEMLOCK|bpf", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bundle:
    """An unpacked image that is ready to run: its directory, and how it wants to be run."""

    path: Path
    settings: Settings
    identity: _users.Identity

    def write(self, way: _Way, program: str, access: Access) -> None:
        """Write what the runtime reads, and for `sweep` which runtime it is."""
        path, settings = self.path, self.settings
        (path / _runs.RUNTIME).write_text(way.runtime)
        (path / "hosts").write_text(_spec.HOSTS)
        (path / "hosts").chmod(0o644)
        (path / "log").unlink(missing_ok=True)
        config = _spec.configuration(
            ["python3", "-c", program],
            environment=_spec.environment(
                settings.env or (), self.identity, access.edits, access.library_path
            ),
            directory="/" + (settings.directory or "").strip("/"),
            identity=self.identity,
            hosts=path / "hosts",
            edits=access.edits,
            limited=way.limited,
        )
        (path / "config.json").write_text(json.dumps(config))


@dataclass(frozen=True, slots=True)
class BundleRunner:
    """`curator.ports.Runner` over the images of a layout; `cancelled` ends a run early.

    `work` is a directory on a local disk with room for unpacked images; `runtime` a program to be
    used instead of crun or runc on PATH. Without `slots` there are no GPUs.
    """

    source: Path
    work: Path
    cancelled: threading.Event = field(default_factory=threading.Event)
    slots: Slots | None = None
    runtime: str | None = None
    host: Host = field(default_factory=Host)

    def run(self, image: Reference, program: str, *, gpus: int, timeout_s: int) -> ProbeRun:
        """Run `python3 -c program` in the image at its digest, and leave nothing behind."""
        begun = now()
        ways = self._ways()
        if gpus and self.slots is None:
            raise HostError(f"{gpus} GPUs were asked for, and this runner has none")
        try:
            with _runs.directory(self.work) as path:
                bundle = self._unpacked(image, path)
                with self._gpus(gpus) as taken:
                    return self._run(ways, bundle, program, taken, timeout_s)
        except CancelledError:
            return unstarted(begun, STOPPED)
        except _layout.AbsentError as error:
            return unstarted(begun, f"the image is not there: {error}")
        except _UnstartedError as error:
            return unstarted(begun, str(error), error.gpus)

    def on(self, gpus: Collection[str]) -> BundleRunner:
        """Return this runner for these of its GPUs alone."""
        return replace(self, slots=self.slots.only(gpus)) if self.slots else self

    def sweep(self) -> None:
        """Remove the containers and files of runs whose process is gone."""
        _runs.sweep(self.work)

    def _ways(self) -> list[_Way]:
        """Return how to run a container here, the best way first."""
        if os.geteuid():
            raise HostError(
                "running an unpacked image takes root: layers hold several users' files"
            )
        named = [self.runtime] if self.runtime else map(shutil.which, RUNTIMES)
        runtimes = [name for name in named if name]
        if not runtimes:
            raise HostError("neither crun nor runc is on PATH: install one (Debian: crun)")
        ways = [_Way(runtime=name) for name in runtimes]
        crun = [way for way in ways if Path(way.runtime).name.startswith("crun")]
        ways += [replace(way, limited=False) for way in crun]
        return ways + [replace(way, limited=False, hidden=True) for way in crun]

    def _unpacked(self, image: Reference, path: Path) -> _Bundle:
        assert image.digest is not None  # noqa: S101 - as the port says
        machine = os.uname().machine
        platform = Platform(os="linux", architecture=MACHINES.get(machine, machine))
        (path / "root").mkdir(mode=0o755)
        with _layout.opened(self.source) as layout:
            found = layout.image(image.digest, platform)
            unpack(layout, found, path / "root", self.cancelled)
        self._check_cancelled()
        settings = found.settings
        with reading(f"image {image.digest}"), Tree(path / "root") as tree:
            tree.make(settings.directory or "/")
            passwd, group = (
                tree.read(name, MAX_NAMES_BYTES).decode(errors="replace")
                for name in ("etc/passwd", "etc/group")
            )
        try:
            identity = _users.resolve(settings.user or "", passwd, group)
        except ValueError as error:
            raise _UnstartedError(str(error)) from error
        return _Bundle(path=path, settings=settings, identity=identity)

    @contextlib.contextmanager
    def _gpus(self, count: int) -> Iterator[tuple[str, ...]]:
        if self.slots is None:
            yield ()
            return
        with self.slots.take(count, self.cancelled) as taken:
            # A killed run's container may still compute on a GPU whose slot is free again.
            self.sweep()
            yield taken

    def _run(
        self,
        ways: Sequence[_Way],
        bundle: _Bundle,
        program: str,
        gpus: tuple[str, ...],
        timeout_s: int,
    ) -> ProbeRun:
        """Run the container, in another way if this machine lacks what the first one takes."""
        access = self.host.access(gpus)
        told = ""
        for way in ways:
            for pivot in (True, False):
                bundle.write(way, program, access)
                result = self._attempt(
                    way.command(bundle.path, pivot=pivot), bundle.path, timeout_s
                )
                told = _errors(bundle.path / "log") if result.exit_code else ""
                if not told:
                    return replace(result, gpus=gpus)
                # A root file system in memory cannot be pivoted (pivot_root(2)).
                if "pivot_root" not in told:
                    break
            if not _CONTROL.search(told):
                break
        raise _UnstartedError(f"the container did not start: {said(told)}", gpus)

    def _attempt(self, command: Sequence[str], path: Path, timeout_s: int) -> ProbeRun:
        begun, deadline = now(), time.monotonic() + timeout_s
        with subprocess.Popen(  # noqa: S603 - an OCI runtime
            command,
            cwd=path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        ) as process:
            tails = Tails(process)
            try:
                while (code := process.poll()) is None and time.monotonic() < deadline:
                    if self.cancelled.wait(POLL_S):
                        raise CancelledError(STOPPED)
            finally:
                _runs.stop(path)
            stdout, stderr = tails.read(GRACE_S)
        return ProbeRun(
            exit_code=code,
            stdout=stdout,
            stderr=stderr,
            flooded=tails.flooded,
            started=begun,
            ended=now(),
        )

    def _check_cancelled(self) -> None:
        if self.cancelled.is_set():
            raise CancelledError(STOPPED)


class _UnstartedError(Exception):
    """The program never started; the message says why."""

    def __init__(self, message: str, gpus: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.gpus = gpus


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    """How a runtime is called: `limited` by control groups, or with those `hidden` from it.

    crun refuses to start where it cannot make sense of the groups, even if it is to use none.
    """

    runtime: str
    limited: bool = True
    hidden: bool = False

    def command(self, path: Path, *, pivot: bool) -> list[str]:
        """Return the command line that runs a bundle."""
        log = ["--log", str(path / "log"), "--log-format", "json"]
        return [
            *(HIDING if self.hidden else ()),
            *(self.runtime, "--root", str(path / _runs.STATE), *log),
            *(() if self.limited else ("--cgroup-manager=disabled",)),
            *("run", *(() if pivot else ("--no-pivot",)), "--bundle", str(path), path.name),
        ]


def _errors(log: Path) -> str:
    """Return what the runtime itself, not the program, reported as an error."""
    if not log.is_file():
        return ""
    with log.open("rb") as file:
        lines = file.read(MAX_LOG_BYTES).decode(errors="replace").splitlines()
    told = []
    for line in lines:
        with contextlib.suppress(ValueError, AttributeError):
            entry = json.loads(line)
            if entry.get("level") in {"error", "fatal"}:
                told.append(str(entry.get("msg")))
    return " ".join(told)
