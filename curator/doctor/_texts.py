"""What goes wrong with GPUs in containers, by the words it is told in. Each is a public report's.

>>> advice('could not select device driver "" with capabilities: [[gpu]]')[:40]
'sudo apt-get install -y nvidia-container'
"""

from __future__ import annotations

import re
from typing import Final

from curator.doctor._values import TOOLKIT

_SPECIFY = "sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"
_REBOOT = "reboot: the driver's libraries and the loaded driver are of different versions"

# The first that is found counts: what is told by name stands before what is told in general.
_KNOWN: Final = (
    # docker/cli#2425
    (r"could not select device driver .* with capabilities: \[\[.*gpu", TOOLKIT),
    # NVIDIA/nvidia-container-toolkit#146, #1537
    (r"unresolvable CDI devices|no known GPU vendor", _SPECIFY),
    # A specification that was written for another driver names files that are gone.
    (r"error mounting .*nvidia|gathering device information .*nvidia", _SPECIFY),
    (r"driver/library version mismatch|RM version mismatch", _REBOOT),
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
    (
        r"error 803|unsupported display driver / cuda driver combination",
        (
            "libraries of two drivers are mixed: leave /usr/local/cuda/compat out of "
            "LD_LIBRARY_PATH; after an update of the driver, reboot"
        ),
    ),
    (
        r"Failed to initialize NVML: Unknown Error",
        (
            "the container lost its GPUs, as `systemctl daemon-reload` takes them: start it again; "
            'for good: {"exec-opts": ["native.cgroupdriver=cgroupfs"]} in /etc/docker/daemon.json'
        ),
    ),
    (
        r"WSL environment detected but no adapters were found",
        "update the NVIDIA driver of Windows, then: wsl --update && wsl --shutdown",
    ),
    (
        r"driver not loaded|couldn't communicate with the NVIDIA driver",
        "load the driver (sudo modprobe nvidia), or install it again for this kernel; then reboot",
    ),
    (
        r"nvidia-container-cli: initialization error",
        "sudo nvidia-container-cli --load-kmods info, which says what is missing",
    ),
    (r"nvidia-container-(?:cli|runtime)|nvidia-ctk", TOOLKIT),
)


def advice(text: str) -> str | None:
    """Return what helps against an error that is known by its words, else None."""
    return next((fix for pattern, fix in _KNOWN if re.search(pattern, text, re.IGNORECASE)), None)
