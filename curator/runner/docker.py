"""Runs a program in an image on a docker engine (python-on-whales), here or far away.

- The image is pulled and run by its digest, without network. What it prints is bounded while it is
  printed: in the engine's log, and again when it is read.
- GPUs are taken from `slots` and asked for by UUID, through CDI where the engine lists them so.
- The container is removed whatever happens, and so is the image if this run brought it: a farm's
  disk is for builds.
- A container carries its owner and a date, so that `sweep` finds what a killed run left, also on an
  engine that other machines use; it ends by itself too, since its program has its own deadlines.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import threading
import time
import uuid
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curator.errors import CancelledError, TemporaryError
from curator.runner import _cdi
from curator.runner._output import Tails
from curator.runner._owner import Owner
from curator.runner._results import STOPPED, now, said, unstarted
from curator.smoke import ProbeRun

if TYPE_CHECKING:
    from collections.abc import Collection

    from python_on_whales import DockerClient

    from curator.oci import Reference
    from curator.ports import EngineAddress
    from curator.runner._slots import Slots

LABEL = "dev.curator.owner"
FIELDS = (LABEL, f"{LABEL}.machine", f"{LABEL}.started", f"{LABEL}.until")
PULL_TIMEOUT_S = 1800
POLL_S = 0.2
ATTEMPTS = 3
PIDS_LIMIT = 4096
LOG_OPTIONS = ("max-size=16m", "max-file=2")

# A container whose time is over by this much is nobody's, whatever machine its owner ran on.
KEPT_S = 3600


@dataclass(frozen=True, slots=True)
class DockerRunner:
    """`curator.ports.Runner` over the engine at an address; `cancelled` ends a run early.

    Without `slots` the engine chooses among its GPUs, and nothing keeps runs apart.
    """

    address: EngineAddress
    cancelled: threading.Event = field(default_factory=threading.Event)
    slots: Slots | None = None

    def run(self, image: Reference, program: str, *, gpus: int, timeout_s: int) -> ProbeRun:
        """Run `python3 -c program` in the image at its digest, and leave nothing behind."""
        for _ in range(ATTEMPTS):
            result = self._pull_and_run(image, program, gpus, timeout_s)
            # Another run of the same image may have removed it as its own between two steps.
            if "No such image" not in (result.failure or ""):
                break
        return result

    def on(self, gpus: Collection[str]) -> DockerRunner:
        """Return this runner for these of its GPUs alone."""
        return replace(self, slots=self.slots.only(gpus)) if self.slots else self

    def sweep(self) -> None:
        """Remove the containers of runs whose process is gone."""
        shown = "\t".join(["{{.ID}}", *(f'{{{{.Label "{name}"}}}}' for name in FIELDS)])
        listed = self._command("ps", "--all", "--filter", f"label={LABEL}", "--format", shown)
        for line in listed.stdout.splitlines():
            identity, *values = line.split("\t")
            if _is_left(values):
                self._command("rm", "--force", "--volumes", identity)

    def _client(self) -> DockerClient:
        from python_on_whales import DockerClient  # noqa: PLC0415 - 340 ms

        address = self.address
        return DockerClient(
            client_call=[address.docker],
            config=address.config,
            host=address.host,
            context=address.context,
        )

    def _command(self, *arguments: str, timeout_s: int = 60) -> subprocess.CompletedProcess[str]:
        command = [*self.address.command, *arguments]
        try:
            return subprocess.run(  # noqa: S603 - the engine's own client
                command, capture_output=True, text=True, check=False, timeout=timeout_s
            )
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(command, 124, "", f"no answer in {timeout_s} s")

    def _has(self, image: Reference) -> bool:
        return self._command("image", "inspect", "--format", "{{.Id}}", str(image)).returncode == 0

    def _pull_and_run(self, image: Reference, program: str, gpus: int, timeout_s: int) -> ProbeRun:
        begun = now()
        had = self._has(image)
        failure = None if had else self._pull(image)
        try:
            if failure is not None:
                return unstarted(begun, failure)
            return self._with_gpus(image, program, gpus, timeout_s)
        finally:
            if not had:
                self._command("image", "rm", "--force", str(image))

    def _pull(self, image: Reference) -> str | None:
        """Pull, and return why it failed, if it did."""
        command = [*self.address.command, "pull", "--quiet", str(image)]
        deadline = time.monotonic() + PULL_TIMEOUT_S
        with subprocess.Popen(  # noqa: S603 - the engine's own client
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        ) as process:
            try:
                while True:
                    if self.cancelled.is_set():
                        return STOPPED
                    if time.monotonic() > deadline:
                        return f"pulling {image} took more than {PULL_TIMEOUT_S} s"
                    try:
                        stderr = process.communicate(timeout=POLL_S)[1]
                        break
                    except subprocess.TimeoutExpired:
                        continue
            finally:
                process.kill()
        if process.returncode == 0:
            return None
        return f"pulling {image} failed: {said(stderr.decode(errors='replace'))}"

    def _with_gpus(self, image: Reference, program: str, gpus: int, timeout_s: int) -> ProbeRun:
        if self.slots is None or gpus < 1:
            return self._run(image, program, {"gpus": gpus} if gpus else _no_gpu(), timeout_s, ())
        begun = now()
        try:
            with self.slots.take(gpus, self.cancelled) as taken:
                # A killed run's container may still compute on a GPU whose slot is free again.
                self.sweep()
                return self._run(image, program, self._devices(taken), timeout_s, taken)
        except CancelledError:
            return unstarted(begun, STOPPED)

    def _devices(self, gpus: tuple[str, ...]) -> dict[str, Any]:
        """Return how to ask this engine for exactly these GPUs."""
        names = [f"{_cdi.KIND}={gpu}" for gpu in gpus]
        if _cdi_names(self.address).issuperset(names):
            return {"devices": names, **_no_gpu()}
        # The client reads a list of values with commas: an inner comma has to be quoted.
        return {"gpus": f'"device={",".join(gpus)}"'}

    def _run(
        self,
        image: Reference,
        program: str,
        devices: dict[str, Any],
        timeout_s: int,
        gpus: tuple[str, ...],
    ) -> ProbeRun:
        from python_on_whales.exceptions import DockerException  # noqa: PLC0415

        # The name is ours from before the start: an engine that cannot start a container, for want
        # of a GPU, say, leaves it created.
        name = f"curator-{uuid.uuid4().hex}"
        begun = now()
        try:
            self._client().run(
                str(image),
                ["-c", program],
                detach=True,
                entrypoint="python3",
                labels=_labels(timeout_s),
                log_driver="json-file",
                log_options=LOG_OPTIONS,
                name=name,
                networks=["none"],
                pids_limit=PIDS_LIMIT,
                pull="never",
                **devices,
            )
            return self._watch(name, timeout_s, begun, gpus)
        except DockerException as error:
            return unstarted(begun, f"the container did not start: {said(error.stderr)}", gpus)
        finally:
            self._command("rm", "--force", "--volumes", name)

    def _watch(self, container: str, timeout_s: int, begun: str, gpus: tuple[str, ...]) -> ProbeRun:
        """Wait for a container's end or deadline, and read its bounded output."""
        deadline = time.monotonic() + timeout_s
        command = [*self.address.command, "wait", container]
        with subprocess.Popen(  # noqa: S603 - the engine's own client
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as waiting:
            try:
                while (ended := waiting.poll()) is None and time.monotonic() < deadline:
                    if self.cancelled.wait(POLL_S):
                        return unstarted(begun, STOPPED, gpus)
            finally:
                waiting.kill()
            code, error = (text.strip() for text in waiting.communicate())
        if ended is not None and not code.isdecimal():
            return unstarted(begun, f"the engine lost the container: {said(error)}", gpus)
        tails = self._output(container)
        stdout, stderr = tails.read()
        return ProbeRun(
            exit_code=int(code) if ended is not None else None,
            stdout=stdout,
            stderr=stderr,
            flooded=tails.flooded,
            started=begun,
            ended=now(),
            gpus=gpus,
        )

    def _output(self, container: str) -> Tails:
        """Return the ends of both streams, read to their end."""
        command = [*self.address.command, "logs", container]
        with subprocess.Popen(  # noqa: S603 - the engine's own client
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            tails = Tails(process)
            tails.read()
            return tails


def _no_gpu() -> dict[str, Any]:
    """Return what keeps NVIDIA's runtime, where it is the default, from giving every GPU.

    Source: NVIDIA Container Toolkit, NVIDIA_VISIBLE_DEVICES: `void` is as without the toolkit.
    """
    return {"envs": {"NVIDIA_VISIBLE_DEVICES": "void"}}


def _labels(timeout_s: int) -> dict[str, str]:
    owner = Owner.current()
    until = int(time.time()) + timeout_s + KEPT_S
    values = (owner.pid, owner.machine, owner.started, until)
    return {name: str(value) for name, value in zip(FIELDS, values, strict=True)}


def _is_left(values: list[str]) -> bool:
    """Whether nobody waits for a container with these values of `FIELDS` any more."""
    try:
        pid, machine, started, until = values
        owner = Owner(machine=machine, pid=int(pid), started=int(started))
        return owner.is_gone() or time.time() > int(until)
    except ValueError:
        return False


@functools.cache
def _cdi_names(address: EngineAddress) -> frozenset[str]:
    """Return the full CDI names of the GPUs that an engine offers; asked once.

    Engines from 28.2 on list them. Older ones only say where their specifications are, which can be
    read if the engine is on this machine; no directory means that CDI is off.
    Source: Docker Engine API, SystemInfo: DiscoveredDevices (1.50), CDISpecDirs (1.44).
    """
    command = [*address.command, "info", "--format", "{{json .}}"]
    result = subprocess.run(  # noqa: S603 - the engine's own client
        command, capture_output=True, text=True, check=False, timeout=60
    )
    if result.returncode:
        raise TemporaryError(f"the engine does not answer: {said(result.stderr)}")
    info = json.loads(result.stdout)
    listed = info.get("DiscoveredDevices")
    if listed:
        return frozenset(item.get("ID", "") for item in listed if item.get("Source") == "cdi")
    if info.get("Name") != os.uname().nodename:
        return frozenset()
    return _cdi.names(Path(folder) for folder in info.get("CDISpecDirs") or ())
