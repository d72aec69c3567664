"""Which image runs where: the gates in order, the ranking, and what would have to change."""

from __future__ import annotations

from typing import Any

import pytest

from curator.compat import Answer
from curator.errors import IntegrityError
from curator.facts import facts
from curator.resolve import (
    Catalogue,
    Gpu,
    Host,
    Judgement,
    Wishes,
    change,
    gpu,
    judge,
    ordered,
    resolve,
    why,
)
from tests.images import GPUS, PYTORCH_128, host, image, label, published, ran

FACTS = facts()


def answers(judgement: Judgement) -> list[tuple[str, str, str]]:
    return [(gate.gate, gate.answer.rule, gate.answer.says) for gate in judgement.gates]


def best(where: Host, **wishes: str) -> list[str]:
    found = resolve(published(), where, Wishes(**wishes), FACTS)  # type: ignore[arg-type]
    return [match.image.cell for match in found.ranked]


def first_no(where: Host, **wishes: str) -> dict[str, str | None]:
    found = resolve(published(), where, Wishes(**wishes), FACTS)  # type: ignore[arg-type]
    return {
        match.image.cell: match.judgement.first.answer.rule if match.judgement.first else None
        for match in found.rejected
    }


def test_an_a100_with_driver_535_runs_cuda_12_of_any_minor() -> None:
    assert best(host("535.104.05", "A100"), framework="pytorch") == [
        "pytorch-2.9.1-cuda12.8-py3.12",
        "pytorch-2.7.1-cuda12.6-py3.12",
        "pytorch-2.6.0-cuda12.4-py3.12",
        "pytorch-2.4.1-cuda11.8-py3.12",
    ]
    assert first_no(host("535.104.05", "A100"), framework="pytorch") == {
        "pytorch-2.9.1-cuda13.0-py3.12": "runtime-cuda"
    }


def test_nothing_fits_an_rtx_5090_with_driver_470_and_the_nearest_misses_say_what_would() -> None:
    found = resolve(published(), host("470.256.02", "RTX 5090"), Wishes(), FACTS)
    assert found.ranked == ()
    assert found.unsure == ()
    needs = {miss.image.cell: miss.changes for miss in found.misses}
    assert needs == {
        "cupy-14.2.0-cuda12.9-py3.12": ("driver >= 570",),
        "pytorch-2.9.1-cuda12.8-py3.12": ("driver >= 570",),
        "cupy-14.2.0-cuda13.0-py3.12": ("driver >= 580.65.06",),
    }


def test_a_t4_with_driver_525_runs_cubins_of_cuda_12_but_not_its_ptx() -> None:
    assert best(host("525.147.05", "T4"), framework="pytorch")[0] == "pytorch-2.9.1-cuda12.8-py3.12"
    jit = image("pytorch", "2.9.1", label("12.8", ("9.0",), ("7.0",)))
    found = judge(jit, host("525.147.05", "T4"), FACTS)
    assert found.says == "no"
    assert answers(found)[-1] == ("G3", "ptx-version", "no")
    assert "does not compile PTX of CUDA 12.8" in why(found)
    assert judge(jit, host("570.124.06", "T4"), FACTS).says == "yes"


def test_cuda_13_dropped_a_gtx_1080_whatever_the_driver() -> None:
    rules = first_no(host("580.95.05", "GTX 1080"), cuda="13")
    assert set(rules.values()) == {"gpu-dropped"}
    assert best(host("580.95.05", "GTX 1080"), framework="pytorch") == [
        "pytorch-2.7.1-cuda12.6-py3.12",
        "pytorch-2.6.0-cuda12.4-py3.12",
        "pytorch-2.4.1-cuda11.8-py3.12",
    ]


def test_with_several_gpus_every_one_has_to_run_it() -> None:
    mixed = host("580.95.05", "A100", "V100")
    assert "pytorch-2.9.1-cuda13.0-py3.12" in best(host("580.95.05", "A100"))
    assert "pytorch-2.9.1-cuda13.0-py3.12" not in best(mixed)
    found = resolve(published(), mixed, Wishes(cuda="13", framework="pytorch"), FACTS)
    gate = found.rejected[0].judgement.first
    assert gate is not None
    assert (gate.answer.rule, gate.gpu) == ("gpu-dropped", 1)


def test_the_runtime_refuses_a_geforce_that_the_driver_family_would_run() -> None:
    asks = {"NVIDIA_REQUIRE_CUDA": "cuda>=12.8 brand=tesla,driver>=535,driver<536"}
    theirs = image("pytorch", "2.9.1", label("12.8", PYTORCH_128, requires=asks))
    refused = judge(theirs, host("535.104.05", "RTX 3090"), FACTS)
    needs = change(theirs, host("535.104.05", "RTX 3090"), FACTS)
    assert needs is not None
    assert needs.texts == ("driver >= 570, or NVIDIA_DISABLE_REQUIRE=1",)
    assert (refused.says, refused.first and refused.first.gate) == ("no", "G1")
    assert "cuda>=12.8" in why(refused)
    off = image(
        "pytorch",
        "2.9.1",
        label("12.8", PYTORCH_128, requires={**asks, "NVIDIA_DISABLE_REQUIRE": "1"}),
    )
    assert judge(off, host("535.104.05", "RTX 3090"), FACTS).says == "yes"
    assert judge(theirs, host("535.104.05", "V100"), FACTS).says == "yes"
    ours = image("pytorch", "2.9.1", label("12.8", PYTORCH_128))
    assert judge(ours, host("535.104.05", "RTX 3090"), FACTS).says == "yes"


def test_an_arm_host_runs_only_what_is_built_for_it() -> None:
    assert best(host("580.95.05", "GH200", architecture="aarch64")) == [
        "cupy-14.2.0-cuda12.9-py3.12"
    ]
    rules = first_no(host("580.95.05", "GH200", architecture="aarch64"))
    assert set(rules.values()) == {"platform"}


def test_without_a_gpu_nothing_runs_and_without_a_word_of_it_nothing_is_known() -> None:
    found = resolve(published(), Host(), Wishes(framework="cupy"), FACTS)
    assert [m.judgement.first and m.judgement.first.answer.rule for m in found.rejected] == [
        "gpu-none"
    ] * 2
    assert found.misses[0].changes == ("driver >= 525.60.13", "an NVIDIA GPU")
    for unsure in (Host(driver="580.95.05"), host(None, "A100")):
        found = resolve(published(), unsure, Wishes(framework="cupy"), FACTS)
        assert found.ranked == ()
        assert {match.image.framework for match in found.unsure} == {"cupy"}


@pytest.mark.parametrize(
    ("driver", "gpu", "package", "says"),
    [
        ("535.104.05", "A100", "12.8", "yes"),
        ("535.104.05", "RTX 4090", "12.8", "no"),
        ("545.23.08", "A100", "12.8", "unknown"),
        ("470.256.02", "A100", "12.9", "no"),
        ("570.124.06", "RTX 4090", "12.8", "yes"),
        ("580.95.05", "RTX 4090", "12.8", "yes"),
    ],
)
def test_a_forward_package_is_for_data_centre_gpus_and_its_branches(
    driver: str, gpu: str, package: str, says: str
) -> None:
    there = image("pytorch", "2.9.1", label(package, PYTORCH_128, requires={}, forward=package))
    assert judge(there, host(driver, gpu), FACTS).says == says


def test_of_a_virtual_gpu_neither_forward_packages_nor_brands_are_known() -> None:
    where = Host(driver="535.104.05", gpus=(gpu("NVIDIA A40-48Q"),))
    asks = {"NVIDIA_REQUIRE_CUDA": "cuda>=12.8 brand=nvidia,driver>=535,driver<536"}
    there = image("x", "1", label("12.8", ("8.6",), requires=asks, forward="12.8"))
    found = {(gate.gate, gate.answer.says) for gate in judge(there, where, FACTS).gates}
    assert {("G1", "unknown"), ("G2", "unknown")} <= found
    plain = image("x", "1", label("12.8", ("8.6",)))
    assert judge(plain, where, FACTS).says == "yes"


def test_a_forward_package_brings_the_driver_that_compiles_ptx() -> None:
    there = image("x", "1", label("13.0", ("12.0",), ("8.0",), requires={}, forward="13.0"))
    assert answers(judge(there, host("535.104.05", "A100"), FACTS))[-1] == (
        "G3",
        "ptx-version",
        "yes",
    )


@pytest.mark.parametrize(
    ("driver", "package", "cuda", "rule"),
    [
        ("470.256.02", "11.8", "12.8", "driver-floor"),
        ("450.80.02", "11.8", "12.4", "driver-floor"),
        ("470.256.02", "12.4", "13.0", "driver-floor"),
        ("470.256.02", "12.4", "12.8", None),
        ("525.147.05", "12.4", "12.8", None),
    ],
)
def test_a_forward_package_that_is_older_than_the_image_has_to_run_it(
    driver: str, package: str, cuda: str, rule: str | None
) -> None:
    there = image("x", "1", label(cuda, ("8.0",), requires={}, forward=package))
    found = judge(there, host(driver, "A100"), FACTS)
    assert (found.first and found.first.answer.rule) == rule
    assert found.says == ("no" if rule else "yes")


def test_a_driver_that_no_fact_knows_is_taken_for_the_one_before() -> None:
    newest = host("999.10", "A100")
    assert judge(image("x", "1", label("13.0", ("8.0",))), newest, FACTS).says == "yes"
    unknown = label("99.0", ("8.0",), floor="700.1", requires={})
    assert judge(image("x", "1", unknown), newest, FACTS).says == "yes"
    asks = label("13.0", ("8.0",), requires={"NVIDIA_REQUIRE_CUDA": "cuda>=99.0"})
    assert answers(judge(image("x", "1", asks), newest, FACTS))[1] == (
        "G1",
        "runtime-cuda",
        "unknown",
    )


def test_what_nobody_read_is_unknown() -> None:
    where = host("580.95.05", "A100")
    assert judge(image("x", "1", label("12.8", None)), where, FACTS).says == "unknown"
    assert (
        judge(image("x", "1", label("12.8", ("8.0",), requires=None)), where, FACTS).says
        == "unknown"
    )
    strange = Host(driver="580.95.05", gpus=(Gpu(name="x", sm="8.7"),))
    found = judge(image("x", "1", label("12.8", ("8.7",))), strange, FACTS)
    assert (found.says, found.first and found.first.answer.rule) == ("unknown", "gpu-unknown")


def test_old_engines_forbid_new_c_libraries_their_threads() -> None:
    there = image("x", "1", label("12.8", ("8.0",), glibc="2.36"))
    old = Host(driver="580.95.05", gpus=(GPUS["A100"],), docker="20.10.7")
    assert answers(judge(there, old, FACTS))[1] == ("G0", "glibc-clone3", "no")
    new = Host(driver="580.95.05", gpus=(GPUS["A100"],), docker="28.5.1")
    assert judge(there, new, FACTS).says == "yes"


def test_every_answer_names_its_rule_source_and_numbers() -> None:
    for where in (host("470.1.1", "RTX 5090"), host("580.95.05", "A100"), Host()):
        for known in published().images:
            for gate in judge(known, where, FACTS).gates:
                told = gate.to_json()
                assert told["source"] == FACTS.rules[gate.answer.rule].source
                assert FACTS.rules[gate.answer.rule].gate == gate.gate
                assert gate.answer.text
                assert "{" not in gate.answer.text


def test_a_catalogue_survives_its_document() -> None:
    passed = (ran("A100", "580.65.06", rate=7), ran("V100", "535.1.1", verdict="fail"))
    twins = [image("twins", version, label("12.8", ("8.0",))) for version in ("1", "2")]
    known = ordered(
        [*published().images, image("x", "1", label("12.8", None), tests=passed), *twins]
    )
    again = Catalogue.read(known.data)
    assert tuple(again.images) == tuple(known.images)
    assert again.data == known.data
    shared = {id(found.label) for found in again.images if found.framework == "twins"}
    assert len(shared) == 1


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b'{"v":2}', b'{"v":1,"labels":[],"images":[{}]}']
)
def test_what_is_no_catalogue_is_refused(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        Catalogue.read(data)


def test_an_answer_without_numbers_reads_as_well() -> None:
    assert (
        Answer(says="unknown", rule="kernel-unread").text
        == "which kernels the image ships was not read"
    )


@pytest.mark.parametrize(
    ("cuda", "more"),
    [
        ("12.8rc1", {}),
        ("12.8", {"floor": "525.60.13.post1"}),
        ("12.8", {"floor": ""}),
        ("12.8", {"glibc": "2.36+x"}),
    ],
)
def test_a_version_that_no_rule_compares_is_unknown(cuda: str, more: dict[str, Any]) -> None:
    there = image("x", "1", label(cuda, ("8.0",), **more))
    found = judge(there, host("580.95.05", "A100"), FACTS)
    assert answers(found) == [
        ("G0", "platform", "yes"),
        ("G1", "runtime-met", "yes"),
        ("G2", "label-unread", "unknown"),
    ]


def test_a_forward_packages_driver_has_to_know_the_gpu_too() -> None:
    k80 = Host(driver="470.182.03", gpus=(Gpu(name="K80", sm="3.7", kind="datacenter"),))
    there = image("x", "1", label("12.1", ("3.7",), requires={}, forward="12.1"))
    assert judge(there, k80, FACTS).says == "no"
    assert ("G2", "gpu-driver", "no") in answers(judge(there, k80, FACTS))


def test_ptx_on_a_gpu_that_the_cuda_release_never_knew_is_unknown() -> None:
    there = image("tensorflow", "2.20.0", label("12.5", ("8.0", "8.9"), ("9.0",)))
    found = judge(there, host("580.95.05", "RTX 5090"), FACTS)
    assert ("G3", "gpu-newer", "unknown") in answers(found)
    assert change(there, host("580.95.05", "RTX 5090"), FACTS) is None


@pytest.mark.parametrize(
    ("built", "driver", "gpu", "rule"),
    [
        ("12.5.1", "580.95.05", "RTX 5090", "gpu-newer"),
        ("12.8", "580.95.05", "RTX 5090", None),
        (None, "580.95.05", "RTX 5090", None),
        ("13.2", "580.95.05", "RTX 5090", "ptx-version"),
        ("12.5.1", "580.95.05", "H200", None),
        ("13.2", "580.95.05", "H200", None),
        ("12.5rc1", "580.95.05", "H200", "label-unread"),
    ],
)
def test_ptx_is_of_the_cuda_that_compiled_the_framework(
    built: str | None, driver: str, gpu: str, rule: str | None
) -> None:
    there = label("12.9", ("8.0", "8.9", "9.0"), ("9.0",), built=built)
    found = judge(image("tensorflow", "2.20.0", there), host(driver, gpu), FACTS)
    assert (found.first and found.first.answer.rule) == rule


def test_a_variable_that_every_brand_meets_is_met() -> None:
    asks = {"NVIDIA_REQUIRE_CUDA": "cuda>=12.8 brand=tesla,driver>=565 brand=nvidia,driver>=565"}
    there = image("x", "1", label("12.8", ("8.0",), requires=asks))
    assert judge(there, host("565.77", "A100"), FACTS).says == "yes"
    one = {"NVIDIA_REQUIRE_CUDA": "cuda>=12.8 brand=tesla,driver>=565"}
    unsure = image("x", "1", label("12.8", ("8.0",), requires=one))
    assert judge(unsure, host("565.77", "A100"), FACTS).says == "no"


CUPY = ("5.0", "7.0", "8.0", "9.0", "10.0f", "12.0f")


@pytest.mark.parametrize(
    ("cuda", "gpu", "says"),
    [
        ("12.6", "RTX 5090", "unknown"),
        ("12.8", "RTX 5090", "yes"),
        ("12.8", "B300", "unknown"),
        ("12.9", "B300", "yes"),
    ],
)
def test_kernels_for_a_gpu_that_the_images_cuda_does_not_know_are_not_enough(
    cuda: str, gpu: str, says: str
) -> None:
    there = image("cupy", "14.2.0", label(cuda, CUPY, ("10.0",)))
    found = judge(there, host("580.95.05", gpu), FACTS)
    assert found.says == says
    if says == "unknown":
        assert found.first
        assert found.first.answer.rule == "gpu-newer"
        assert not any(gate.answer.rule == "gpu-supported" for gate in found.gates)


def test_a_pass_on_the_very_capability_is_more_than_what_its_cuda_knows() -> None:
    plain = label("12.6", CUPY)
    there = image("cupy", "14.2.0", plain, tests=(ran("RTX 5090", "575.57.08"),))
    assert judge(there, host("580.95.05", "RTX 5090"), FACTS).confidence == "tested-sm"
    assert judge(there, host("580.95.05", "RTX 5090", "B300"), FACTS).says == "unknown"


@pytest.mark.parametrize(
    ("driver", "says"), [("570.86.10", "unknown"), ("570.133.20", "yes"), ("570", "yes")]
)
def test_a_product_that_came_after_its_capabilitys_first_driver(driver: str, says: str) -> None:
    there = image("pytorch", "2.9.1", label("12.8", PYTORCH_128))
    found = judge(there, host(driver, "B200"), FACTS)
    assert found.says == says
    assert ("G2", "gpu-product", says) in answers(found)


@pytest.mark.parametrize(
    ("driver", "gpu", "cuda", "cubin", "says"),
    [
        ("581.29", "GTX 1080", "12.6", "6.0", "yes"),
        ("591.44", "GTX 1080", "12.6", "6.0", "no"),
        ("573.48", "RTX 5090", "12.8", "12.0", "yes"),
        ("566.36", "RTX 5090", "12.8", "12.0", "no"),
    ],
)
def test_a_driver_of_windows_is_of_the_branch_before_its_number(
    driver: str, gpu: str, cuda: str, cubin: str, says: str
) -> None:
    there = image("x", "1", label(cuda, (cubin,)))
    assert judge(there, host(driver, gpu), FACTS).says == says
