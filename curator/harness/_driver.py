"""The NVIDIA driver, asked directly: what GPU this is, and what stands in its memory.

A framework may say anything; what this module reports comes from `libcuda.so.1` alone.

Source of names, numbers and versioned symbols: CUDA Driver API reference (cuda.h) and NVML API
reference (nvml.h).
"""

from __future__ import annotations

import ctypes
import platform
import uuid
from typing import Any, List

from curator.harness._contents import dotted
from curator.harness._run import CHECKS, Facts

CC_MAJOR, CC_MINOR = 75, 76  # CUdevice_attribute
POINTER_MEMORY_TYPE = 2  # CUpointer_attribute
MEMORY_DEVICE = 2  # CUmemorytype
NVML_VERSION_BYTES = 80


class DriverError(RuntimeError):
    """The driver is missing, sees no GPU, or refused a call."""


class Driver:
    """The driver's first visible GPU, in the primary context that frameworks share.

    It can be made where there is no GPU: then each use of it raises `DriverError`. So a framework
    is tried all the same, and has to fail on its own account.
    """

    def __init__(self) -> None:
        self.missing = ""
        self.device = ctypes.c_int()
        try:
            self._cuda = ctypes.CDLL("libcuda.so.1")
            self._start()
        except (OSError, DriverError) as error:
            self.missing = str(error)

    def _start(self) -> None:
        self.call("cuInit", 0)
        self.call("cuDeviceGet", ctypes.byref(self.device), 0)
        context = ctypes.c_void_p()
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), self.device)
        self.call("cuCtxSetCurrent", context)

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function of the driver by its name.

        Raises:
            DriverError: there is no driver or no GPU, or it returned an error, by its name.
        """
        if self.missing:
            raise DriverError(self.missing)
        status = getattr(self._cuda, name)(*arguments)
        if status:
            text = ctypes.c_char_p()
            self._cuda.cuGetErrorName(status, ctypes.byref(text))
            raise DriverError(f"{name}: {(text.value or b'error').decode()} ({status})")

    def facts(self) -> Facts:
        """Return the GPU's name, UUID, compute capability and memory, and the driver's versions.

        `cuda` is the newest CUDA the driver runs, `driver` its release.
        """
        version = ctypes.c_int()
        self.call("cuDriverGetVersion", ctypes.byref(version))
        gpu = self.describe(self.device)
        return {"gpu": gpu, "cuda": dotted(version.value), "driver": driver_release()}

    def every_gpu(self) -> List[Facts]:
        """Return every visible GPU's facts, in the driver's order."""
        count = ctypes.c_int()
        self.call("cuDeviceGetCount", ctypes.byref(count))
        return [self.describe(ctypes.c_int(number)) for number in range(count.value)]

    def describe(self, device: ctypes.c_int) -> Facts:
        """Return one GPU's name, UUID as tools print it, compute capability and bytes of memory."""
        name = ctypes.create_string_buffer(256)
        identity = (ctypes.c_ubyte * 16)()
        major, minor, memory = ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t()
        self.call("cuDeviceGetName", name, len(name), device)
        self.call("cuDeviceGetUuid", identity, device)
        self.call("cuDeviceGetAttribute", ctypes.byref(major), CC_MAJOR, device)
        self.call("cuDeviceGetAttribute", ctypes.byref(minor), CC_MINOR, device)
        self.call("cuDeviceTotalMem_v2", ctypes.byref(memory), device)
        return {
            "name": name.value.decode(errors="replace"),
            "uuid": f"GPU-{uuid.UUID(bytes=bytes(identity))}",
            "sm": f"{major.value}.{minor.value}",
            "memory": memory.value,
        }

    def memory_used(self) -> int:
        """Return how many bytes of the GPU's memory are taken."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self.call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return total.value - free.value

    def read(self, pointer: int, size: int) -> bytes:
        """Copy `size` bytes out of the GPU's memory, when all work has ended.

        Raises:
            DriverError: the address is not in a GPU's memory.
        """
        self.call("cuCtxSynchronize")
        kind = ctypes.c_uint()
        address = ctypes.c_uint64(pointer)
        self.call("cuPointerGetAttribute", ctypes.byref(kind), POINTER_MEMORY_TYPE, address)
        if kind.value != MEMORY_DEVICE:
            raise DriverError(f"the result is not in a GPU's memory (memory type {kind.value})")
        data = ctypes.create_string_buffer(size)
        self.call("cuMemcpyDtoH_v2", data, address, ctypes.c_size_t(size))
        return data.raw


def driver_release() -> str:
    """Return the driver's release such as `580.95.05`, as NVML tells it; empty if it cannot."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return ""
    text = ctypes.create_string_buffer(NVML_VERSION_BYTES)
    if nvml.nvmlInit_v2() or nvml.nvmlSystemGetDriverVersion(text, len(text)):
        return ""
    return text.value.decode(errors="replace")


def check_host(expected: Facts) -> Facts:  # noqa: ARG001 - every check is called alike
    """Return what the machine is: its GPUs and driver, its kernel and architecture."""
    driver = Driver()
    return {
        "gpus": [] if driver.missing else driver.every_gpu(),
        "driver": None if driver.missing else driver_release(),
        "kernel": platform.release(),
        "architecture": platform.machine(),
    }


CHECKS["host"] = check_host
