"""The OCI runtime's configuration of one run, as a value.

- A container sees nothing of the host but what the edits of its GPUs name, read-only.
- It has no network, no capability, and no way to more rights than it starts with.

Source: OCI runtime specification, config.md and config-linux.md; for what is masked, Docker's
default container.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from curator.runner._cdi import Edits
    from curator.runner._users import Identity

PIDS_LIMIT = 4096
HOSTNAME = "curator"
HOSTS = f"127.0.0.1 localhost {HOSTNAME}\n::1 localhost\n"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

NAMESPACES = ("pid", "network", "ipc", "uts", "mount")
MASKED = (
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
    "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list",
    "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
)  # fmt: skip
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
PLAIN = ("nosuid", "noexec", "nodev")
MOUNTS = (
    ("/proc", "proc", "proc", PLAIN),
    ("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
    ("/dev/pts", "devpts", "devpts", ("nosuid", "noexec", "newinstance", "ptmxmode=0666")),
    ("/dev/shm", "tmpfs", "shm", (*PLAIN, "mode=1777", "size=65536k")),  # noqa: S108 - a mount
    ("/dev/mqueue", "mqueue", "mqueue", PLAIN),
    ("/sys", "sysfs", "sysfs", (*PLAIN, "ro")),
)


def environment(
    settings: Iterable[str], identity: Identity, edits: Iterable[Edits], library_path: str
) -> dict[str, str]:
    """Return a program's variables: the image's, the GPUs', and where the driver's libraries are.

    The image's own library path comes first, as it does before the loader's cache in docker.
    """
    found = {"PATH": PATH, "HOSTNAME": HOSTNAME, "HOME": identity.home}
    for line in (*settings, *(str(line) for edit in edits for line in edit.get("env") or ())):
        name, _, value = line.partition("=")
        found[name] = value
    if library_path:
        own = found.get("LD_LIBRARY_PATH")
        found["LD_LIBRARY_PATH"] = f"{own}:{library_path}" if own else library_path
    return found


def configuration(  # noqa: PLR0913 - everything that a container is
    arguments: Sequence[str],
    *,
    environment: Mapping[str, str],
    directory: str,
    identity: Identity,
    hosts: Path,
    edits: Sequence[Edits],
    limited: bool,
) -> dict[str, Any]:
    """Return `config.json`; without `limited` it asks nothing of control groups."""
    nodes = [_node(node) for edit in edits for node in edit.get("deviceNodes") or ()]
    groups = {*identity.groups, *(int(g) for e in edits for g in e.get("additionalGids") or ())}
    return {
        "ociVersion": "1.0.2",
        "hostname": HOSTNAME,
        "process": {
            "terminal": False,
            "user": {"uid": identity.uid, "gid": identity.gid, "additionalGids": sorted(groups)},
            "args": list(arguments),
            "env": [f"{name}={value}" for name, value in environment.items()],
            "cwd": directory,
            "capabilities": {},
            "noNewPrivileges": True,
        },
        "root": {"path": "root", "readonly": False},
        "mounts": [
            *({"destination": d, "type": t, "source": s, "options": o} for d, t, s, o in MOUNTS),
            _mount({"hostPath": str(hosts), "containerPath": "/etc/hosts"}),
            *(_mount(mount) for edit in edits for mount in edit.get("mounts") or ()),
        ],
        "hooks": _hooks(edits),
        "linux": {
            "namespaces": [{"type": name} for name in NAMESPACES],
            "devices": nodes,
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
            **({"resources": _resources(nodes)} if limited else {}),
        },
    }


def _resources(nodes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    allowed = [
        {"allow": True, "type": n["type"], "major": n["major"], "minor": n["minor"], "access": "rw"}
        for n in nodes
    ]
    return {
        "devices": [{"allow": False, "access": "rwm"}, *allowed],
        "pids": {"limit": PIDS_LIMIT},
    }


def _node(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return a device file; what its edit does not say is as on the host."""
    path = str(node["path"])
    found = os.stat(str(node.get("hostPath") or path))  # noqa: PTH116 - beside the numbers
    return {
        "path": path,
        "type": "b" if stat.S_ISBLK(found.st_mode) else "c",
        "major": node.get("major", os.major(found.st_rdev)),
        "minor": node.get("minor", os.minor(found.st_rdev)),
        "fileMode": node.get("fileMode", stat.S_IMODE(found.st_mode)),
        "uid": node.get("uid", found.st_uid),
        "gid": node.get("gid", found.st_gid),
    }


def _mount(mount: Mapping[str, Any]) -> dict[str, Any]:
    """Return a bind mount, whatever its edit says read-only."""
    options = [str(option) for option in mount.get("options") or ("nosuid", "nodev")]
    binds = [] if {"bind", "rbind"}.intersection(options) else ["rbind"]
    return {
        "destination": str(mount["containerPath"]),
        "type": "bind",
        "source": str(mount["hostPath"]),
        "options": [*binds, *(o for o in options if o not in {"rw", "ro"}), "ro"],
    }


def _hooks(edits: Iterable[Edits]) -> dict[str, list[dict[str, Any]]]:
    hooks: dict[str, list[dict[str, Any]]] = {}
    for hook in (hook for edit in edits for hook in edit.get("hooks") or ()):
        kept = {name: hook[name] for name in ("path", "args", "env", "timeout") if name in hook}
        hooks.setdefault(str(hook["hookName"]), []).append(kept)
    return hooks
