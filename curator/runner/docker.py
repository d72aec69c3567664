"""Runs a program in an image on a docker engine (python-on-whales).

- The image is pulled and run by its digest, without network, with bounded memory for output.
- The container is removed whatever happens, and so is the image if this run brought it: a farm's
  disk is for builds.
- A container carries its owner's process id, so that `sweep` finds what a killed run left; it also
  ends by itself, since its program has deadlines of its own.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from curator.smoke import ProbeRun

if TYPE_CHECKING:
    from python_on_whales import DockerClient

    from curator.oci import Reference
    from curator.ports import EngineAddress

OWNER = "dev.curator.owner"
PULL_TIMEOUT_S = 1800
POLL_S = 0.2
MAX_OUTPUT_BYTES = 1024 * 1024
PIDS_LIMIT = 4096


@dataclass(frozen=True, slots=True)
class DockerRunner:
    """`curator.ports.Runner` over the engine at an address; `cancelled` ends a run early."""

    address: EngineAddress
    cancelled: threading.Event = field(default_factory=threading.Event)

    def run(self, image: Reference, program: str, *, gpus: int, timeout_s: int) -> ProbeRun:
        """Run `python3 -c program` in the image at its digest, and leave nothing behind."""
        started = _now()
        had = self._has(image)
        failure = None if had else self._pull(image)
        try:
            if failure is not None:
                return _unstarted(started, failure)
            return self._run(image, program, gpus, timeout_s, started)
        finally:
            if not had:
                self._command("image", "rm", "--force", str(image))

    def sweep(self) -> None:
        """Remove the containers of runs whose process is gone."""
        listed = self._command(
            "ps",
            "--all",
            "--filter",
            f"label={OWNER}",
            "--format",
            f'{{{{.ID}}}} {{{{.Label "{OWNER}"}}}}',
        )
        for line in listed.stdout.splitlines():
            identity, _, owner = line.partition(" ")
            if not Path(f"/proc/{owner}").exists():
                self._command("rm", "--force", "--volumes", identity)

    def _client(self) -> DockerClient:
        from python_on_whales import DockerClient  # noqa: PLC0415 - 340 ms

        address = self.address
        return DockerClient(client_call=[address.docker], config=address.config, host=address.host)

    def _command(self, *arguments: str, timeout_s: int = 60) -> subprocess.CompletedProcess[str]:
        command = [*self.address.command, *arguments]
        return subprocess.run(  # noqa: S603 - the engine's own client
            command, capture_output=True, text=True, check=False, timeout=timeout_s
        )

    def _has(self, image: Reference) -> bool:
        return self._command("image", "inspect", "--format", "{{.Id}}", str(image)).returncode == 0

    def _pull(self, image: Reference) -> str | None:
        """Pull, and return why it failed, if it did."""
        try:
            result = self._command("pull", "--quiet", str(image), timeout_s=PULL_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return f"pulling {image} took more than {PULL_TIMEOUT_S} s"
        if result.returncode == 0:
            return None
        return f"pulling {image} failed: {' '.join(result.stderr.split())[-300:]}"

    def _run(
        self, image: Reference, program: str, gpus: int, timeout_s: int, started: str
    ) -> ProbeRun:
        from python_on_whales.exceptions import DockerException  # noqa: PLC0415

        # The name is ours from before the start: an engine that cannot start a container, for want
        # of a GPU, say, leaves it created.
        name = f"curator-{uuid.uuid4().hex}"
        try:
            self._client().run(
                str(image),
                ["-c", program],
                detach=True,
                entrypoint="python3",
                gpus=gpus or None,
                labels={OWNER: str(os.getpid())},
                name=name,
                networks=["none"],
                pids_limit=PIDS_LIMIT,
                pull="never",
            )
            return self._watch(name, timeout_s, started)
        except DockerException as error:
            return _unstarted(started, f"the container did not start: {_said(error.stderr)}")
        finally:
            self._command("rm", "--force", "--volumes", name)

    def _watch(self, container: str, timeout_s: int, started: str) -> ProbeRun:
        """Wait for a container's end or deadline, and read its bounded output."""
        deadline = time.monotonic() + timeout_s
        command = [*self.address.command, "wait", container]
        with subprocess.Popen(  # noqa: S603 - the engine's own client
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as waiting:
            try:
                while waiting.poll() is None and time.monotonic() < deadline:
                    if self.cancelled.wait(POLL_S):
                        return _unstarted(started, "the run was stopped")
                code = waiting.communicate()[0].strip() if waiting.poll() is not None else ""
            finally:
                waiting.kill()
        stdout, stderr = self._output(container)
        return ProbeRun(
            exit_code=int(code) if code.isdecimal() else None,
            stdout=stdout,
            stderr=stderr,
            started=started,
            ended=_now(),
        )

    def _output(self, container: str) -> tuple[str, str]:
        """Return the last bytes of both streams; a container may have printed gigabytes."""
        command = [*self.address.command, "logs", container]
        tails = {"stdout": b"", "stderr": b""}
        with subprocess.Popen(  # noqa: S603 - the engine's own client
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:

            def drain(name: str) -> None:
                stream = getattr(process, name)
                while chunk := stream.read(65536):
                    tails[name] = (tails[name] + chunk)[-MAX_OUTPUT_BYTES:]

            readers = [threading.Thread(target=drain, args=(name,)) for name in tails]
            for reader in readers:
                reader.start()
            for reader in readers:
                reader.join()
        return tails["stdout"].decode(errors="replace"), tails["stderr"].decode(errors="replace")


def _unstarted(started: str, failure: str) -> ProbeRun:
    return ProbeRun(
        exit_code=None, stdout="", stderr="", started=started, ended=_now(), failure=failure
    )


def _said(stderr: str | None) -> str:
    return " ".join((stderr or "").split())[-300:]


def _now() -> str:
    return datetime.now(UTC).replace(microsecond=0).isoformat().replace("+00:00", "Z")
