"""What people type of GPUs, drivers and machines: names as they are sold, and nonsense."""

from __future__ import annotations

import doctest
from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from curator.facts import facts
from curator.resolve import (
    Gpu,
    _names,
    _words,
    architecture,
    architecture_of,
    called,
    driver,
    gpu,
    pasted,
)


def test_the_examples_in_the_documentation_hold() -> None:
    for module in (_names, _words):
        found = doctest.testmod(module)
        assert (found.attempted, found.failed) == (1, 0)


# What is typed


@pytest.mark.parametrize(
    ("typed", "name", "sm"),
    [
        ("A100", "A100", "8.0"),
        ("a100-sxm4-80gb", "A100", "8.0"),
        ("NVIDIA A100 80GB PCIe", "A100", "8.0"),
        ("NVIDIA H100 80GB HBM3", "H100", "9.0"),
        ("h100 nvl", "H100", "9.0"),
        ("NVIDIA GH200 480GB", "GH200", "9.0"),
        ("GB200 NVL72", "GB200", "10.0"),
        ("DGX Spark", "GB10", "12.1"),
        ("Tesla T4", "T4", "7.5"),
        ("P100-PCIE-16GB", "P100", "6.0"),
        ("rtx 4090", "GeForce RTX 4090", "8.9"),
        ("RTX4090", "GeForce RTX 4090", "8.9"),
        ("4090", "GeForce RTX 4090", "8.9"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "GeForce RTX 4090", "8.9"),
        ("NVIDIA GeForce RTX 2080 Super with Max-Q Design", "GeForce RTX 2080 SUPER", "7.5"),
        ("3070ti", "GeForce RTX 3070 Ti", "8.6"),
        ("RTX 3080 12GB", "GeForce RTX 3080", "8.6"),
        ("rtx 5090d", "GeForce RTX 5090 D", "12.0"),
        ("gtx 1080 ti", "GeForce GTX 1080 Ti", "6.1"),
        ("GeForce GTX 960M", "GeForce GTX 960M", "5.0"),
        ("A6000", "RTX A6000", "8.6"),
        ("A1000", "RTX A1000", "8.6"),
        ("RTX 6000 Ada Generation", "RTX 6000 Ada", "8.9"),
        ("Quadro RTX 6000", "Quadro RTX 6000", "7.5"),
        ("rtx pro 6000", "RTX PRO 6000 Blackwell Workstation Edition", "12.0"),
        ("TITAN X (Pascal)", "TITAN X (Pascal)", "6.1"),
        ("Jetson Orin", "Jetson AGX Orin", "8.7"),
        ("sm_80", None, "8.0"),
        ("SM80", None, "8.0"),
        ("sm_90a", None, "9.0"),
        ("compute_120", None, "12.0"),
        ("8.0", None, "8.0"),
        (" 10.3 ", None, "10.3"),
        ("\ufeffRTX\u2009\xa0 4090\x85", "GeForce RTX 4090", "8.9"),
    ],
)
def test_a_gpu_by_the_names_people_give_it(typed: str, name: str | None, sm: str) -> None:
    found = gpu(typed)
    assert (found.name, found.sm) == (name, sm)


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("RTX 6000", r"RTX 6000 Ada \(sm_89\).* or Quadro RTX 6000 \(sm_75\): say which"),
        ("Titan X", r"TITAN X \(Pascal\) \(sm_61\) or GeForce GTX TITAN X \(sm_52\)"),
        ("RTX 4900", "near: .*GeForce RTX 4090"),
        ("H10O", "near: H100"),
        ("8.8", "no GPU of compute capability 8.8 is known; near: 8.6, 8.7, 8.9"),
        ("80", "such as sm_80 or 8.0"),
        ("Radeon", "no GPU called 'Radeon' is known"),
        ("", "no GPU called ''"),
        ("A100" * 1000, "no GPU called 'A100A100"),
    ],
)
def test_what_is_no_one_gpu_is_told_with_the_nearest(typed: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as error:
        gpu(typed)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    ("shown", "name", "sm", "kind"),
    [
        ("Tesla V100-SXM2...", "V100", "7.0", "datacenter"),
        ("NVIDIA A100 80G...", "A100", "8.0", "datacenter"),
        ("NVIDIA A100-PCI...", "A100", "8.0", "datacenter"),
        ("GeForce GTX 108...", "GeForce GTX 108...", "6.1", "geforce"),
        ("NVIDIA RTX 6000 Ada Gene...", "RTX 6000 Ada", "8.9", "workstation"),
        ("NVIDIA RTX PRO 6000 Blac...", "NVIDIA RTX PRO 6000 Blac...", "12.0", None),
        ("NVIDIA GeForce GTX 960...", "NVIDIA GeForce GTX 960...", None, "geforce"),
        ("NVIDIA GeForce ...", "NVIDIA GeForce ...", None, "geforce"),
        ("NVIDIA X900", "NVIDIA X900", None, None),
    ],
)
def test_a_name_that_a_driver_cut_tells_what_all_it_can_be_share(
    shown: str, name: str, sm: str | None, kind: str | None
) -> None:
    found = called(shown)
    assert (found.name, found.sm, found.kind) == (name, sm, kind)


@pytest.mark.parametrize(
    ("shown", "sm"),
    [
        ("GRID V100D-8Q", "7.0"),
        ("NVIDIA A10-24Q", "8.6"),
        ("NVIDIA A40-48Q", "8.6"),
        ("NVIDIA A100-4-20C", "8.0"),
        ("GRID M60-8Q", "5.2"),
        ("GRID V100D...", "7.0"),
        ("NVIDIA GH200-96C", "9.0"),
    ],
)
def test_a_virtual_gpu_keeps_its_name_and_is_of_no_kind(shown: str, sm: str) -> None:
    assert called(shown) == Gpu(name=shown, sm=sm, kind=None)
    if "..." not in shown:
        assert gpu(shown) == called(shown)


@pytest.mark.parametrize(
    "typed", ["535", "R535", "r535", " v535 ", "nvidia-driver-535-server-open", "\ufeff535\xa0"]
)
def test_a_branch(typed: str) -> None:
    assert driver(typed) == "535"


@pytest.mark.parametrize("typed", ["535.54.03", "v535.54.03", "Driver Version: 535.54.03"])
def test_a_version_keeps_its_zeros(typed: str) -> None:
    assert driver(typed) == "535.54.03"


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("12.4", "reads as a CUDA version"),
        ("CUDA 12.4", "reads as a CUDA version"),
        ("new", "no driver version: 'new'"),
        ("5355", "no driver version"),
        ("535.104.05.1", "no driver version"),
        ("5'35\x07", "no driver version: '5'35\ufffd'"),
        ("\u0665\u0663\u0665", "no driver version"),  # digits, but not ours
    ],
)
def test_what_is_no_driver(typed: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        driver(typed)


# The facts


def test_each_product_is_found_by_its_name_and_by_its_driver_s() -> None:
    known = facts().products
    for product in known.values():
        for shown in (product.name, f"NVIDIA {product.name}", product.name.upper()):
            assert gpu(shown) == Gpu(name=product.name, sm=product.sm, kind=product.kind)  # type: ignore[arg-type]
            assert called(shown) == gpu(shown)


def test_aliases_lead_to_their_product_or_to_a_question() -> None:
    known = facts().products
    owners = Counter(alias for product in known.values() for alias in product.aliases)
    for product in known.values():
        for alias in product.aliases:
            if owners[alias] == 1 and alias not in known:
                assert gpu(alias).sm == product.sm, alias


def test_products_have_a_known_capability_and_a_source() -> None:
    known = facts()
    for product in known.products.values():
        assert product.kind == "embedded" or product.sm in known.capabilities, product.name
        assert product.source
        assert product.read


def test_a_board_s_architecture() -> None:
    assert architecture_of([]) == "x86_64"
    assert architecture_of([gpu("GH200")]) == "aarch64"
    assert architecture_of([gpu("Jetson Thor")]) == "aarch64"
    assert architecture_of([gpu("T4G"), called("NVIDIA T4G")]) == "aarch64"
    assert architecture_of([called("NVIDIA GH200-96C")]) == "aarch64"
    assert architecture_of([gpu("T4")]) == "x86_64"
    assert architecture_of([gpu("H200"), gpu("GH200")]) == "x86_64"


@pytest.mark.parametrize(
    ("typed", "name"),
    [("x86_64", "x86_64"), ("X86_64", "x86_64"), ("amd64", "x86_64"), (" arm64 ", "aarch64")],
)
def test_an_architecture_by_either_name(typed: str, name: str) -> None:
    assert architecture(typed) == name
    with pytest.raises(ValueError, match="'sparc' is none of x86_64, amd64, aarch64, arm64"):
        architecture("sparc")


# Whatever is typed or pasted

PIECES = """| , > " 0 ... rtx sm_ 8.9 On NVIDIA NVIDIA_L4 ERR! 00000000:01:00.0
GPU_00000000:01:00.0 pid GPU_0:_NVIDIA_L4_(UUID:_GPU-1) GPU_1:_x_(UUID:
Driver_Version:_535.54.03 Product_Name_:_NVIDIA_L4
name,_compute_cap --query-gpu=name GeForce_RTX_4090 [N/A]"""
WORDS = st.sampled_from([*(word.replace("_", " ") for word in PIECES.split()), "\n", " ", "\x00"])
ANYTHING = st.one_of(st.text(), st.lists(WORDS).map("".join), st.lists(WORDS).map(" ".join))


@given(ANYTHING)
@example("²")
@example("sm_²0")
@example("\ud800")
@example('"' * 1000)
def test_anything_is_a_value_or_a_value_error(anything: str) -> None:
    for reading in (gpu, driver, pasted):
        try:
            assert reading(anything)
        except ValueError as error:
            assert str(error)  # noqa: PT017 - either is right
    assert called(anything)
