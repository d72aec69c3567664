"""What goes wrong with GPUs in containers, by the words it is told in. Each is a public report's.

>>> advice('could not select device driver "cdi" with capabilities: []')[:30]
'{"features": {"cdi": true}} in'
"""

from __future__ import annotations

import re
from typing import Final

from curator.doctor._values import TOOLKIT

_SPECIFY = "sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"
_REBOOT = "reboot: the driver's libraries and the loaded driver are of different versions"

_MORE = (
    "sudo nvidia-container-cli --load-kmods --debug=/dev/tty info, which says what is missing; "
    "docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/troubleshooting.html"
)

# The first that is found counts: what is told by name stands before what is told in general.
_KNOWN: Final = (
    # NVIDIA/nvidia-container-toolkit#434; moby/moby#49963: from Docker 28.2 on it is so already
    (
        r'could not select device driver "?cdi"?',
        '{"features": {"cdi": true}} in /etc/docker/daemon.json and restart Docker',
    ),
    # NVIDIA/libnvidia-container#154, moby/moby#38729, NVIDIA/nvidia-container-toolkit#1487
    (
        r"failed to add device rules.*bpf_prog_query|/sys/fs/cgroup/devices\S*: permission denied",
        (
            "Docker without root may give no rights to devices: update nvidia-container-toolkit, "
            "and: sudo nvidia-ctk config --set nvidia-container-cli.no-cgroups --in-place"
        ),
    ),
    # NVIDIA/nvidia-docker#1283, NVIDIA/nvidia-container-toolkit#203
    (
        r"device error: .*unknown device",
        "that GPU is not on this machine: `nvidia-smi -L` lists those that are; or: --gpus all",
    ),
    # NVIDIA/nvidia-docker#587, NVIDIA/nvidia-container-toolkit#147
    (
        r"ldcache error",
        (
            'ldconfig = "@/sbin/ldconfig" (on Ubuntu "@/sbin/ldconfig.real") in '
            "/etc/nvidia-container-runtime/config.toml"
        ),
    ),
    # NVIDIA/nvidia-container-toolkit#289, #176
    (
        r"file creation failed: \S*lib(?:cuda|nv)\S*: file exists",
        (
            "the image holds libraries of a driver, which have to come from the host: in its "
            "Dockerfile, RUN rm -f /usr/lib/x86_64-linux-gnu/lib{cuda,nvidia-}*.so.*"
        ),
    ),
    # docker/cli#2425
    (r"could not select device driver .* with capabilities: \[\[.*gpu", TOOLKIT),
    # NVIDIA/nvidia-container-toolkit#146, #1537
    (r"unresolvable CDI devices|no known GPU vendor", _SPECIFY),
    # A specification that was written for another driver names files that are gone:
    # NVIDIA/nvidia-container-toolkit#450, #856, HaveAGitGat/Tdarr#1423
    (r"error mounting .*nvidia|gathering device information .*nvidia", _SPECIFY),
    # NVIDIA/nvidia-container-toolkit#394
    (r"driver/library version mismatch|RM version mismatch", _REBOOT),
    # NVIDIA/nvidia-docker#1711, canonical/docker-snap#148
    (
        r"libnvidia-ml\.so\.1: cannot open shared object|ERROR_LIBRARY_NOT_FOUND",
        (
            "install the driver's libraries of the version that is loaded "
            "(cat /proc/driver/nvidia/version), then sudo ldconfig; Docker from snap does not see "
            "them: sudo snap remove docker, and install docker-ce"
        ),
    ),
    # NVIDIA/nvidia-docker#688
    (
        r"requirement error: unsatisfied condition: cuda ?>=",
        (
            "this driver is too old for the image: `curator resolve` names one that fits, "
            "or update the driver"
        ),
    ),
    (
        r"requirement error: unsatisfied condition",
        "the image asks for another GPU or driver: `curator resolve` names one that fits",
    ),
    # microsoft/onnxruntime#21435
    (
        r"forward compatibility was attempted on non supported|error 804",
        (
            "the image brings a newer driver's libraries, which this GPU does not take: `curator "
            "resolve` names an image that fits the driver; after an update of the driver, reboot"
        ),
    ),
    # NVIDIA/nvidia-docker#1256
    (
        r"error 803|unsupported display driver / cuda driver combination",
        (
            "libraries of two drivers are mixed: leave /usr/local/cuda/compat out of "
            "LD_LIBRARY_PATH; after an update of the driver, reboot"
        ),
    ),
    # NVIDIA/nvidia-container-toolkit#48
    (
        r"Failed to initialize NVML: Unknown Error",
        (
            "the container lost its GPUs, as `systemctl daemon-reload` takes them: start it again; "
            'for good: {"exec-opts": ["native.cgroupdriver=cgroupfs"]} in /etc/docker/daemon.json'
        ),
    ),
    # NVIDIA/nvidia-container-toolkit#155
    (
        r"WSL environment detected but no adapters were found",
        "update the NVIDIA driver of Windows, then: wsl --update && wsl --shutdown",
    ),
    # NVIDIA/nvidia-docker#1393
    (
        r"driver not loaded|couldn't communicate with the NVIDIA driver",
        "load the driver (sudo modprobe nvidia), or install it again for this kernel; then reboot",
    ),
    # NVIDIA/nvidia-docker#1337, #1190, #1364
    (r'nvidia-container-[a-z-]+[\\"]*: executable file not found', TOOLKIT),
    # NVIDIA/nvidia-docker#1245
    (r"nvidia-container-(?:cli|runtime)|nvidia-ctk", _MORE),
)


def advice(text: str) -> str | None:
    """Return what helps against an error that is known by its words, else None."""
    return next((fix for pattern, fix in _KNOWN if re.search(pattern, text, re.IGNORECASE)), None)
