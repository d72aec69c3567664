"""What doctor says to errors that are known by their words; each is a public report's."""

from __future__ import annotations

import doctest

import pytest

from curator.doctor import _texts, advice


@pytest.mark.parametrize(
    ("told", "fix"),
    [
        # docker/cli#2425
        (
            (
                'docker: Error response from daemon: could not select device driver "" with '
                "capabilities: [[gpu]]."
            ),
            "nvidia-ctk runtime configure --runtime=docker",
        ),
        # NVIDIA/nvidia-container-toolkit#1537
        (
            (
                "OCI runtime create failed: could not apply required modification to OCI "
                "specification: error modifying OCI spec: failed to inject CDI devices: "
                "unresolvable CDI devices runtime.nvidia.com/gpu=all: unknown"
            ),
            "nvidia-ctk cdi generate",
        ),
        # ShaneIsrael/fireshare#689
        (
            (
                "docker: Error response from daemon: failed to discover GPU vendor from CDI: no"
                " known GPU vendor found"
            ),
            "nvidia-ctk cdi generate",
        ),
        (
            (
                "Auto-detected mode as 'legacy' nvidia-container-cli: initialization error: "
                "load library failed: libnvidia-ml.so.1: cannot open shared object file: no "
                "such file or directory: unknown"
            ),
            "sudo ldconfig",
        ),
        (
            (
                "nvidia-container-cli: initialization error: nvml error: driver/library version"
                " mismatch: unknown"
            ),
            "reboot",
        ),
        ("nvidia-container-cli: initialization error: nvml error: driver not loaded", "modprobe"),
        (
            (
                "nvidia-container-cli: initialization error: WSL environment detected but no "
                "adapters were found: unknown."
            ),
            "wsl --update",
        ),
        ("nvidia-container-cli: initialization error: privilege change failed", "--load-kmods"),
        # NVIDIA/nvidia-docker#688
        (
            "nvidia-container-cli: requirement error: unsatisfied condition: cuda >= 9.0",
            "curator resolve",
        ),
        (
            (
                "nvidia-container-cli: requirement error: unsatisfied condition: cuda>=12.8, "
                "please update your driver to a newer version, or use an earlier cuda container"
            ),
            "too old for the image",
        ),
        ("Failed to initialize NVML: Unknown Error", "native.cgroupdriver=cgroupfs"),
        # microsoft/onnxruntime#21435
        (
            "Error 804: forward compatibility was attempted on non supported HW",
            "which this GPU does not take",
        ),
        (
            (
                "RuntimeError: Unexpected error from cudaGetDeviceCount(). Error 803: system "
                "has unsupported display driver / cuda driver combination"
            ),
            "libraries of two drivers are mixed",
        ),
        # NVIDIA/nvidia-container-toolkit#434
        (
            (
                'docker: Error response from daemon: could not select device driver "cdi" with '
                "capabilities: []."
            ),
            '{"features": {"cdi": true}}',
        ),
        # NVIDIA/libnvidia-container#154
        (
            (
                "Auto-detected mode as 'legacy' nvidia-container-cli: mount error: failed to add "
                "device rules: unable to find any existing device filters attached to the cgroup: "
                "bpf_prog_query(BPF_CGROUP_DEVICE) failed: operation not permitted: unknown."
            ),
            "--set nvidia-container-cli.no-cgroups",
        ),
        # moby/moby#38729
        (
            (
                "nvidia-container-cli: mount error: open failed: "
                "/sys/fs/cgroup/devices/user.slice/devices.allow: permission denied"
            ),
            "--set nvidia-container-cli.no-cgroups",
        ),
        # NVIDIA/nvidia-docker#1283
        ("stderr: nvidia-container-cli: device error: 1: unknown device", "nvidia-smi -L"),
        # NVIDIA/nvidia-container-toolkit#147
        (
            (
                "nvidia-container-cli: ldcache error: process /sbin/ldconfig.real failed with "
                "error code: 1: unknown."
            ),
            'ldconfig = "@/sbin/ldconfig"',
        ),
        # NVIDIA/nvidia-container-toolkit#289
        (
            (
                "nvidia-container-cli: mount error: file creation failed: /var/lib/docker/overlay2/"
                "706b/merged/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1: file exists: unknown."
            ),
            "RUN rm -f",
        ),
        # NVIDIA/nvidia-docker#1337
        (
            'exec: "nvidia-container-runtime-hook": executable file not found in $PATH.',
            "install-guide.html",
        ),
        # NVIDIA/nvidia-docker#1690
        (
            (
                "nvidia-container-cli: mount error: file creation failed: xxx/merged/run/"
                "nvidia-persistenced/socket: no such device or address: unknown."
            ),
            "troubleshooting.html",
        ),
    ],
)
def test_errors_that_are_known_by_their_words(told: str, fix: str) -> None:
    assert fix in (advice(told) or "")


def test_an_error_that_nobody_knows() -> None:
    assert advice("docker: invalid reference format") is None
    found = doctest.testmod(_texts)
    assert (found.attempted, found.failed) == (1, 0)


def test_no_known_error_is_answered_with_a_new_installation() -> None:
    told = "nvidia-container-cli: container error: cgroup subsystem devices not found: unknown"
    assert "apt-get install" not in (advice(told) or "")
