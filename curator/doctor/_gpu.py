"""The GPU: its driver, what gives it to containers, and whether a container has it.

The container that is tried is made here, of this machine's own C library: nothing is pulled. The
program in it is the `nvidia-smi` that NVIDIA's runtime brings.
"""

from __future__ import annotations

import io
import re
import shutil
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from curator.doctor._docker import container_name
from curator.doctor._run import run, said
from curator.doctor._texts import advice
from curator.doctor._values import TOOLKIT, Docker, Finding, Look
from curator.errors import HostError
from curator.host import driver_and_gpus

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from curator.resolve import Host

DRIVER = (
    "sudo ubuntu-drivers install --gpgpu, or docs.nvidia.com/datacenter/tesla/"
    "driver-installation-guide; then reboot"
)
START_S = 120.0
NVIDIA: Final = "0x10de"
# What programs linked with glibc need; the loader's place is part of the program.
LIBRARIES: Final = ("libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1")
LOADERS: Final = {"ld-linux-x86-64.so.2": "lib64", "ld-linux-aarch64.so.1": "lib"}
SEARCHED: Final = (
    "/curator",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/lib/wsl/lib",
)
_LIBC = re.compile(r" (/\S+)/libc[.-][0-9a-z.]{1,20}$", re.MULTILINE)


def look_at_driver(look: Look) -> tuple[Host | None, Finding]:
    """Ask the driver which GPUs there are; overrides are no facts of this machine."""
    try:
        host = driver_and_gpus()
    except HostError as error:
        fix = advice(str(error)) or "see `nvidia-smi` and `dmesg | grep -i nvrm`"
        return None, Finding(name="driver", state="fail", text=str(error), fix=fix)
    if host.driver is None:
        return None, _without_driver(look)
    if not host.gpus:
        text = f"driver {host.driver} sees no GPU"
        fix = "dmesg | grep NVRM says why: a GPU too old or too new for it, or no power"
        return None, Finding(name="driver", state="fail", text=text, fix=fix)
    lost = [number for number, gpu in enumerate(host.gpus) if gpu.name is None]
    names = ", ".join(str(gpu) for gpu in host.gpus if gpu.name is not None)
    if lost:
        text = f"driver {host.driver}: GPU {lost[0]} does not answer; others: {names or 'none'}"
        fix = "reboot; see `dmesg | grep Xid`, and reseat it if that stays"
        return host, Finding(name="driver", state="fail", text=text, fix=fix)
    return host, Finding(name="driver", state="ok", text=f"driver {host.driver}: {names}")


def _without_driver(look: Look) -> Finding:
    if (look.root / "dev/dxg").exists():
        text = "Windows gives this system no NVIDIA GPU"
        fix = "install NVIDIA's driver on Windows, then: wsl --update && wsl --shutdown"
        return Finding(name="driver", state="warn", text=text, fix=fix)
    if _has_gpu(look.root):
        text = "there is an NVIDIA GPU, but no driver that works"
        return Finding(name="driver", state="fail", text=text, fix=DRIVER)
    return Finding(name="driver", state="skip", text="this machine has no NVIDIA GPU")


def _has_gpu(root: Path) -> bool:
    """Whether a display or 3D controller of NVIDIA's is on the PCI bus."""
    for device in (root / "sys/bus/pci/devices").glob("*"):
        try:
            vendor, kind = ((device / name).read_text().strip() for name in ("vendor", "class"))
        except OSError:
            continue
        if vendor == NVIDIA and kind.startswith(("0x0300", "0x0302")):
            return True
    return False


def look_at_toolkit(look: Look, docker: Docker) -> Finding:
    """Say by which way the engine gives GPUs to containers."""
    ways = []
    if "nvidia" in (docker.info.get("Runtimes") or {}):
        ways.append("the runtime nvidia")
    path = look.environ.get("PATH")
    if docker.is_here and shutil.which("nvidia-container-runtime-hook", path=path):
        ways.append("nvidia-container-runtime-hook")
    if specification := _specified(docker):
        ways.append(f"CDI ({specification})")
    if ways:
        return Finding(name="container toolkit", state="ok", text=f"docker has {', '.join(ways)}")
    text = "docker has no way to give a container a GPU: no nvidia runtime, no CDI specification"
    return Finding(name="container toolkit", state="fail", text=text, fix=TOOLKIT)


def _specified(docker: Docker) -> str | None:
    """Return where the engine has its GPUs' names from, if it has them by CDI.

    Source: Docker Engine API, SystemInfo: DiscoveredDevices (1.50), CDISpecDirs (1.44).
    """
    listed = docker.info.get("DiscoveredDevices") or ()
    if any(str(item.get("ID", "")).startswith("nvidia.com/gpu=") for item in listed):
        return "nvidia.com/gpu"
    for folder in docker.info.get("CDISpecDirs") or () if docker.is_here else ():
        for file in sorted(Path(folder).glob("*")):
            try:
                if "nvidia.com/gpu" in file.read_text(errors="replace"):
                    return str(file)
            except OSError:
                continue
    return None


def look_at_access(look: Look, docker: Docker, host: Host) -> Finding:
    """Run `nvidia-smi -L` in a container with all GPUs, and take everything away again."""
    name = "GPU in a container"
    parts = dict(_parts(look.root))
    if not parts or not docker.is_here:
        text = "not tried: the engine is elsewhere" if parts else "not tried: no glibc here"
        return Finding(name=name, state="skip", text=text)
    image = f"{container_name()}:local"
    made = run([*docker.command, "import", "-", image], look.environ, data=_archive(parts))
    if made.returncode:
        text = f"not tried: no image could be made: {said(made)}"
        return Finding(name=name, state="warn", text=text, fix="see the lines on docker and disks")
    try:
        answer = _try(look, docker, image, "--gpus=all")
        if answer.returncode and _specified(docker):
            answer = _try(look, docker, image, "--device=nvidia.com/gpu=all")
    finally:
        run([*docker.command, "image", "rm", "--force", image], look.environ)
    return _judged(name, answer, host)


def _judged(name: str, answer: subprocess.CompletedProcess[str], host: Host) -> Finding:
    given = re.findall(r"^GPU [0-9]+: ", answer.stdout, re.MULTILINE)
    if answer.returncode == 0 and len(given) == len(host.gpus):
        return Finding(name=name, state="ok", text=f"a container has {len(given)} of them")
    if answer.returncode == 0:
        text = f"a container has {len(given)} of {len(host.gpus)} GPUs"
        fix = f"{TOOLKIT}; by CDI: sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"
        return Finding(name=name, state="warn", text=text, fix=fix)
    words = answer.stderr + answer.stdout
    fix = (
        advice(words) or f"docker run --rm --gpus all ubuntu nvidia-smi, and if it fails: {TOOLKIT}"
    )
    return Finding(name=name, state="fail", text=said(answer), fix=fix)


def _try(look: Look, docker: Docker, image: str, devices: str) -> subprocess.CompletedProcess[str]:
    container = container_name()
    options = ("--rm", "--network=none", f"--name={container}", devices)
    settings = (
        "--env=NVIDIA_VISIBLE_DEVICES=all",
        "--env=NVIDIA_DRIVER_CAPABILITIES=utility",
        f"--env=LD_LIBRARY_PATH={':'.join(SEARCHED)}",
        "--env=PATH=/usr/bin:/bin:/usr/local/bin:/usr/lib/wsl/lib",
    )
    command = [*docker.command, "run", *options, *settings, image, "nvidia-smi", "-L"]
    try:
        return run(command, look.environ, timeout_s=START_S)
    finally:
        run([*docker.command, "rm", "--force", container], look.environ)


def _parts(root: Path) -> Iterator[tuple[str, Path]]:
    """Give what a program linked with glibc needs, by its place in the image."""
    maps = root / "proc/self/maps"
    found = _LIBC.search(maps.read_text()) if maps.exists() else None
    if found is None:
        return
    folder = Path(found[1])
    places = dict.fromkeys(LIBRARIES, "curator") | LOADERS
    for name, place in places.items():
        if (folder / name).exists():
            yield f"{place}/{name}", folder / name


def _archive(parts: dict[str, Path]) -> bytes:
    """Return the image's one layer: the files, and the directories that a container needs."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", dereference=True) as archive:
        for folder in ("tmp", "etc", "usr/bin", "usr/lib", "var", "run"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        for name, path in parts.items():
            archive.add(path, arcname=name)
    return data.getvalue()
