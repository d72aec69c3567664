"""What people paste: real outputs of nvidia-smi, parts of them, several of them, and nonsense."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from curator.facts import facts
from curator.resolve import pasted

if TYPE_CHECKING:
    from collections.abc import Callable

SMI = Path(__file__).parent.parent / "data/smi"
GRACE = {"580-gb10", "query-gb10-no-memory"}
Found = dict[str, tuple[str | None, list[tuple[str | None, str | None]]]]
# A file's driver, and its GPUs: name and compute capability.
HOSTS: Found = {
    "331-three-gtx-680": (
        "331.62",
        [("GeForce GTX 680", None), ("GeForce GTX 680", None), ("GeForce GTX 680", None)],
    ),
    "396-gtx-1070-no-cuda": ("396.24", [("GeForce GTX 1070", "6.1")]),
    "410-k80": ("410.104", [("K80", "3.7")]),
    "418-log-k80": ("418.40.04", [("K80", "3.7")]),
    "418-titan-x-pascal": ("418.39", [("TITAN X (Pascal)", "6.1")]),
    "435-t4": ("435.21", [("T4", "7.5")]),
    "440-log-k40c": ("440.64.00", [("K40", "3.5")]),
    "450-log-gtx-780": ("450.66", [("GeForce GTX 780", "3.5")]),
    "450-smi-on-418-driver": ("418.67", [("V100", "7.0")]),
    "450-three-v100": ("450.80.02", [("V100", "7.0"), ("V100", "7.0"), ("V100", "7.0")]),
    "450-titan-xp": ("450.57", [("TITAN Xp", "6.1")]),
    "460-cuda-not-available": ("460.32.04", [("Quadro P400", "6.1")]),
    "460-wddm-cut": ("460.15", [("GeForce RTX 207...", "7.5")]),
    "465-name-cut-to-the-brand": ("465.19.01", [("NVIDIA GeForce ...", None)]),
    "470-log-a100": ("470.103.01", [("A100", "8.0")]),
    "510-two-a100-mig": ("510.108.03", [("A100", "8.0"), ("A100", "8.0")]),
    "515-t4": ("515.105.01", [("T4", "7.5")]),
    "517-windows-names-cut": (
        "517.48",
        [("NVIDIA GeForce ...", None), ("NVIDIA GeForce ...", None)],
    ),
    "520-two-a100-mig": ("520.61.05", [("A100", "8.0"), ("A100", "8.0")]),
    "525-v100": ("525.105.17", [("V100", "7.0")]),
    "525-vgpu-quoted": ("525.60.13", [("GRID A100-40C", "8.0"), ("GRID A100-40C", "8.0")]),
    "531-windows-quoted": ("531.14", [("GeForce GTX 1080 Ti", "6.1")]),
    "535-laptop-names-cut": (
        "535.104.05",
        [("NVIDIA GeForce RTX 3070 ...", "8.6"), ("NVIDIA GeForce RTX 3080 ...", "8.6")],
    ),
    "535-list-and-table": ("535.129.03", [("Quadro RTX 4000", "7.5"), ("Quadro RTX 4000", "7.5")]),
    "535-mig-list": ("535.216.01", [("A100", "8.0")]),
    "537-wsl-535": ("537.13", [("NVIDIA GeForce GTX 1650 ...", "7.5")]),
    "546-wsl-cuda-err": ("546.80", [("NVIDIA GeForce RTX 3060 ...", "8.6")]),
    "550-p4": ("550.135", [("P4", "6.1")]),
    "550-rtx-4070": ("550.40.07", [("GeForce RTX 4070", "8.9")]),
    "570-rtx-4090": ("570.169", [("GeForce RTX 4090", "8.9")]),
    "575-cuda-not-available": ("575.64.03", [("GeForce RTX 5070", "12.0")]),
    "575-header-alone": ("575.57.08", []),
    "580-exclusive-a100": ("580.126.09", [("A100", "8.0"), ("A100", "8.0")]),
    "580-gb10": ("580.126.09", [("GB10", "12.1")]),
    "580-mixed-5090-4090": (
        "580.82.09",
        [("GeForce RTX 5090", "12.0"), ("GeForce RTX 4090", "8.9")],
    ),
    "590-rtx-6000d": ("590.44.01", [("RTX 6000D", "12.0"), ("RTX 6000D", "12.0")]),
    "595-l40s": ("595.80", [("L40S", "8.9")]),
    "610-h200-mig": ("610.43.02", [("H200", "9.0")]),
    "610-laptop-name-cut": ("610.43.02", [("NVIDIA GeForce RTX 5070 ...", "12.0")]),
    "610-log-h200-mig": ("610.43.02", [("H200", "9.0")]),
    "610-two-5090": ("610.57.04", [("GeForce RTX 5090", "12.0"), ("GeForce RTX 5090", "12.0")]),
    "610-two-b200": ("610.43.02", [("B200", "10.0"), ("B200", "10.0")]),
    "610-version": ("610.43.02", []),
    "list-mig-on-both": (None, [("H100", "9.0"), ("H100", "9.0")]),
    "list-mig-on-one-of-four": (
        None,
        [("A100", "8.0"), ("A100", "8.0"), ("A100", "8.0"), ("A100", "8.0")],
    ),
    "list-mixed": (
        None,
        [
            ("K80", "3.7"),
            ("K80", "3.7"),
            ("GeForce RTX 2080 Ti", "7.5"),
            ("K80", "3.7"),
            ("K80", "3.7"),
        ],
    ),
    "list-on-one-line": (
        None,
        [
            ("GeForce RTX 2080 Ti", "7.5"),
            ("GeForce RTX 2080 Ti", "7.5"),
            ("GeForce RTX 2080 Ti", "7.5"),
            ("GeForce RTX 2080 Ti", "7.5"),
        ],
    ),
    "query-capability-alone": (None, [(None, "8.9")]),
    "query-gb10-no-memory": (None, [("GB10", "12.1")]),
    "query-mixed": ("570.86.15", [("TITAN V", "7.0"), ("RTX 5880 Ada", "8.9")]),
    "rows-power-err": (None, [("V100", "7.0")]),
}
NONE = {
    "fail-field": "does not know a field of the query",
    "fail-lost": "a GPU does not answer any more",
    "fail-mismatch": "updated while an older one is loaded: reboot",
    "fail-no-devices": "found no GPU that works",
    "fail-no-driver": "driver is not loaded: install it and reboot",
    "fail-not-found": "there is no nvidia-smi: install the NVIDIA driver",
    "log-vgpu-license": "nothing of nvidia-smi",
    "mig-devices-alone": "nothing of nvidia-smi",
    "query-processes": "nothing of nvidia-smi",
}


def text(name: str) -> str:
    """Return what was pasted; the first line says where."""
    source, _, plain = (SMI / f"{name}.txt").read_text().partition("\n")
    assert source.startswith("# source: https://"), name
    return plain


def test_each_output_is_expected_to_be_something() -> None:
    assert {path.stem for path in SMI.iterdir()} == HOSTS.keys() | NONE.keys()


@pytest.mark.parametrize("name", HOSTS)
def test_an_output_of_nvidia_smi(name: str) -> None:
    found = pasted(text(name))
    assert (found.driver, [(one.name, one.sm) for one in found.gpus]) == HOSTS[name]
    assert found.architecture == ("aarch64" if name in GRACE else "x86_64")
    known = facts().products
    products = [(one, known.get(one.name or "")) for one in found.gpus]
    assert all(one.kind == product.kind for one, product in products if product)


@pytest.mark.parametrize("name", NONE)
def test_an_output_that_names_no_host_says_what_it_is(name: str) -> None:
    with pytest.raises(ValueError, match=NONE[name]):
        pasted(text(name))


# Ways to paste


def plain(name: str) -> str:
    return text(name)


def quoted(name: str) -> str:
    return "".join(f"> {line}" for line in text(name).splitlines(keepends=True))


def from_windows(name: str) -> str:
    return text(name).replace("\n", "\r\n")


def coloured(name: str) -> str:
    return f"\x1b[1;32m{text(name)}\x1b[0m"


def in_a_report(name: str) -> str:
    return f"It does not work, see:\n```\n{text(name)}\n```\nWhat can I do, please?\n"


def indented(name: str) -> str:
    return "".join(f"      {line}" for line in text(name).splitlines(keepends=True))


def squeezed(name: str) -> str:
    return "\n".join(" ".join(line.split()) for line in text(name).splitlines())


def on_one_line(name: str) -> str:
    return " ".join(text(name).split())


def twice(name: str) -> str:
    return f"{text(name)}\n{text(name)}"


def with_a_byte_order_mark(name: str) -> str:
    return f"\ufeff{text(name)}"


def in_a_web_page(name: str) -> str:
    return text(name).replace(" ", "\xa0").replace("\n", "\u2028")


def after_prose(name: str) -> str:
    return f"NVIDIA GeForce RTX 4090, works. This one does not:\n{text(name)}\nGTX 750, neither\n"


TABLES = [name for name in HOSTS if "Bus-Id" in text(name)]


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize(
    "way",
    [
        quoted, from_windows, coloured, in_a_report, indented, squeezed, on_one_line, twice,
        with_a_byte_order_mark, in_a_web_page, after_prose,
    ],
)  # fmt: skip
def test_a_table_is_read_however_it_was_pasted(name: str, way: Callable[[str], str]) -> None:
    assert pasted(way(name)) == pasted(text(name))


def test_lines_of_a_table_are_enough() -> None:
    lines = text("580-mixed-5090-4090").splitlines()
    rows = [line for line in lines if "00000000:" in line]
    found = pasted("\n".join(rows))
    assert (found.driver, [one.sm for one in found.gpus]) == (None, ["12.0", "8.9"])
    assert pasted(next(line for line in lines if "Driver" in line)).driver == "580.82.09"


@pytest.mark.parametrize(
    ("header", "number"),
    [
        (
            "| NVIDIA-SMI 615.71.09     KMD Version: 615.71.09     CUDA UMD Version: 13.4 |",
            "615.71.09",
        ),
        # On WSL: NVIDIA's library gives the number of the Windows driver.
        (
            "| NVIDIA-SMI 615.71.08     KMD Version: 616.92        CUDA UMD Version: 13.4 |",
            "616.92",
        ),
        (
            "| NVIDIA-SMI 470.57.02    Driver Version: 470.57.02   CUDA Version: 11.4     |",
            "470.57.02",
        ),
        ("DRIVER version      : 570.86.15", "570.86.15"),
        ("535.104.05\n", "535.104.05"),
    ],
)
def test_a_header_tells_the_driver(header: str, number: str) -> None:
    assert pasted(header).driver == number


@pytest.mark.parametrize(
    ("values", "number", "gpus"),
    [
        ("NVIDIA H200, 580.95.05, 9.0\n", "580.95.05", [("H200", "9.0")]),
        (
            "580.95.05, NVIDIA H200\n580.95.05, NVIDIA L4",
            "580.95.05",
            [("H200", "9.0"), ("L4", "8.9")],
        ),
        ("0, NVIDIA A30, GPU-1, 24576 MiB", None, [("A30", "8.0")]),
        ('name, driver_version\n"NVIDIA A40", 535.54.03', "535.54.03", [("A40", "8.6")]),
        ("gpu_name,kmd_version\nNVIDIA B300,610.43.02", "610.43.02", [("B300", "10.3")]),
        ("driver_version\n535.54.03\n535.54.03", "535.54.03", []),
        ("name, compute_cap\nNVIDIA X900, 13.0", None, [("NVIDIA X900", "13.0")]),
        ("name, compute_cap\n[Unknown Error], [Unknown Error]", None, [(None, None)]),
        (
            "name,driver_version\n[GPU is lost],[GPU is lost]\nNVIDIA L4,535.54.03",
            "535.54.03",
            [(None, None), ("L4", "8.9")],
        ),
        ("GPU-5d3c1a7b, NVIDIA L4", None, [("L4", "8.9")]),
        (
            "$ nvidia-smi --query-gpu=compute_cap,name --format=csv,noheader\n9.0, NVIDIA H100 NVL",
            None,
            [("H100", "9.0")],
        ),
    ],
)
def test_values_of_a_query(
    values: str, number: str | None, gpus: list[tuple[str | None, str | None]]
) -> None:
    found = pasted(values)
    assert (found.driver, [(one.name, one.sm) for one in found.gpus]) == (number, gpus)


H200 = "NVIDIA H200, 575.57.08, 9.0"
TABLE = text("531-windows-quoted")  # a GTX 1080 Ti with 531.14


@pytest.mark.parametrize(
    ("several", "says"),
    [
        (f"{H200}\n\n{TABLE}", "two drivers, 575.57.08 and 531.14|531.14 and 575.57.08"),
        (f"{TABLE}\n{H200}\n", "two drivers"),
        (f"{H200}\nNVIDIA L4, 535.54.03, 8.9", "two drivers, 535.54.03 and 575.57.08"),
        (TABLE + text("550-p4"), "two drivers, 531.14 and 550.135"),
        (text("list-mixed") + text("list-mig-on-both"), "two machines, one with H100"),
        ("name\nNVIDIA H200\nname\nNVIDIA L4", "two machines, one with L4 and one with H200"),
        ("0, NVIDIA A30\n" + text("list-mig-on-both"), "two machines, one with A30"),
        (text("418-log-k80") + text("418-log-k80").replace("Tesla K80", "Tesla T4"), "one with T4"),
        (
            "| 0 GeForce ... Off | 00000000:01:00.0 |\n| 0 A100-SXM... Off | 00000000:01:00.0 |",
            "one with GeForce ... and one with A100",
        ),
    ],
)
def test_two_machines_are_never_mixed(several: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        pasted(several)


def test_parts_of_what_one_machine_says_go_together() -> None:
    whole = "NVIDIA A100-SXM4-80GB, 535.104.05, 8.0\nNVIDIA GeForce RTX 4090, 535.104.05, 8.9\n"
    cut = "| 1  NVIDIA GeForce ...  Off | 00000000:02:00.0 Off |\nDriver Version: 535.104\n"
    found = pasted(f"name, driver_version, compute_cap\n{whole}$ nvidia-smi\n{cut}")
    assert (found.driver, [one.sm for one in found.gpus]) == ("535.104.05", ["8.0", "8.9"])
    assert pasted(cut + whole) == found


@pytest.mark.parametrize(
    "prose",
    [
        "NVIDIA GeForce RTX 4090, works",
        "NVIDIA H200, NVIDIA L4, as they are sold",
        "name\nWhat can I do, please?\n",
        "$ nvidia-smi --query-gpu=name --format=csv,noheader\nIt says nothing.\n",
    ],
)
def test_prose_is_no_machine(prose: str) -> None:
    with pytest.raises(ValueError, match="nothing of nvidia-smi"):
        pasted(prose)


def test_a_gpu_that_fails_keeps_its_place() -> None:
    row = "|   {}  {}   Off | 00000000:0{}:00.0 Off |  ERR! |\n"
    rows = [row.format(0, "NVIDIA A10  ", 1), row.format(1, "ERR!  ERR!", 2)]
    assert pasted("".join(rows)).gpus[0].name == "A10"
    assert [one.name for one in pasted("| 0  ERR!   ERR! | 00000000:01:00.0 Off |").gpus] == [None]


def test_what_a_driver_that_fails_says_goes_before_a_machine_without_one() -> None:
    with pytest.raises(ValueError, match="reboot"):
        pasted("Failed to initialize NVML: Driver/library version mismatch\n")
    with pytest.raises(ValueError, match="nothing of nvidia-smi"):
        pasted("")
    with pytest.raises(ValueError, match="characters"):
        pasted("x" * 2_000_000)


@pytest.mark.parametrize(
    "piece",
    ["| 0 ", "|", " ", "\n", "> ", "GPU 0: ", "Driver Version", "a, ", '"', "\x1b[", "0" * 9, "["],
)
def test_a_megabyte_of_anything_is_read_at_once(piece: str) -> None:
    long = (piece * (1_000_000 // len(piece) + 1))[:1_000_000]
    begun = time.process_time()
    with pytest.raises(ValueError, match="nothing of nvidia-smi"):
        pasted(long)
    assert time.process_time() - begun < 2
