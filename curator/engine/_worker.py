"""One build in a process of its own: `python -m curator.engine._worker < SPEC`.

A build through the client library has no handle and no deadline, so it runs here, in a process
group that its parent can kill. The parent's end of stdin stays open while the parent lives:
when it closes, for whatever reason, the whole group ends, and BuildKit drops a build whose client
is gone.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from typing import Any


def main() -> None:
    """Build what the first line of stdin specifies."""
    spec = json.loads(sys.stdin.readline())
    threading.Thread(target=_die_with_parent, daemon=True).start()
    _build(spec)


def _die_with_parent() -> None:
    sys.stdin.read()
    os.killpg(0, signal.SIGKILL)


def _build(spec: dict[str, Any]) -> None:
    from python_on_whales import DockerClient  # noqa: PLC0415 - 340 ms, after the watch began
    from python_on_whales.exceptions import DockerException  # noqa: PLC0415

    client = DockerClient(
        client_call=[spec["docker"]],
        config=spec["config"],
        host=spec["host"],
        context=spec["docker_context"],
    )
    try:
        client.buildx.build(
            spec["context"],
            build_args=spec["build_args"],
            build_contexts=spec["build_contexts"],
            builder=spec["builder"],
            labels=spec["labels"],
            metadata_file=spec["metadata"],
            network="host",
            output=spec["output"],
            platforms=[spec["platform"]],
            progress="plain",
            provenance={"mode": "max"},
            cache=spec["cache"],
            secrets=spec["secrets"],
        )
    except DockerException as error:
        # What BuildKit said is in the log already; this is the client's own word.
        sys.stderr.write(f"curator: build ended with {error.return_code}\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
