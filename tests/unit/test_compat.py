"""What runs where: the rules that images state about the hosts they need."""

from __future__ import annotations

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from curator import compat, matrix
from curator.compat import (
    Answer,
    accepts_ptx,
    driver,
    exactly,
    kernel,
    numbers,
    require_arch,
    require_cuda,
    runtime,
    supported,
)
from curator.facts import facts

DOTTED = st.lists(st.integers(0, 999), min_size=3, max_size=3).map(
    lambda parts: ".".join(str(part) for part in parts)
)


def test_the_examples_in_the_documentation_hold() -> None:
    found = doctest.testmod(compat)
    assert (found.attempted, found.failed) == (4, 0)


@pytest.mark.parametrize(
    ("cuda", "required"),
    [
        ("11.0", "cuda>=11.0"),
        ("11.8", "cuda>=11.0"),
        ("12.1", "cuda>=12.0"),
        ("12.10", "cuda>=12.0"),
        ("13.0", "cuda>=13.0"),
        ("13.5", "cuda>=13.0"),
    ],
)
def test_an_image_asks_for_the_first_driver_of_its_cuda_major(cuda: str, required: str) -> None:
    assert require_cuda(cuda) == required


@pytest.mark.parametrize(
    ("sm_min", "required"), [("7.5", "arch>=7.5"), ("10.0", "arch>=10.0"), (None, None)]
)
def test_an_image_asks_for_an_architecture_only_where_one_is_known(
    sm_min: str | None, required: str | None
) -> None:
    assert require_arch(sm_min) == required


def test_numbers_of_a_driver() -> None:
    assert numbers("535.54.03") == (535, 54, 3)
    assert numbers("12.10") > numbers("12.9")


@given(DOTTED, DOTTED)
def test_numbers_are_ordered_as_versions_are(one: str, other: str) -> None:
    assert (numbers(one) < numbers(other)) == (Version(one) < Version(other))


def test_every_driver_floor_of_the_committed_farm_can_be_compared(farm_tree: matrix.Tree) -> None:
    facts = matrix.load(farm_tree).cuda.values()
    floors = {numbers(fact.version)[0]: numbers(fact.driver_floor) for fact in facts}
    assert sorted(floors) == sorted(floors, key=floors.__getitem__)
    for fact in facts:
        assert numbers(fact.driver_floor) == floors[numbers(fact.version)[0]], fact.version


CU126 = ("5.0", "6.0", "7.0", "7.5", "8.0", "8.6", "9.0")
CU130 = ("7.5", "8.0", "8.6", "9.0", "10.0", "12.0")


@pytest.mark.parametrize(
    ("gpu", "cubin", "ptx", "loads"),
    [
        ("8.9", ("8.6",), (), "sm_86"),
        ("8.9", ("8.0", "8.6", "9.0"), ("5.0",), "sm_86"),
        ("8.0", ("8.0", "8.6"), (), "sm_80"),
        ("8.0", ("8.6",), (), None),
        ("12.0", ("9.0",), (), None),
        ("12.0", ("9.0",), ("9.0",), "compute_90"),
        ("12.0", ("9.0",), ("5.0", "9.0"), "compute_90"),
        ("9.0", ("8.0",), ("12.0",), None),
        ("12.1", ("12.0",), ("12.0",), "sm_120"),
        ("10.3", ("10.0",), (), "sm_100"),
        ("11.0", ("10.0",), (), None),
        ("9.0", ("9.0a",), (), "sm_90a"),
        ("9.0", ("9.0", "9.0a"), (), "sm_90a"),
        ("10.0", ("9.0a",), (), None),
        ("12.0", (), ("9.0a",), None),
        ("9.0", (), ("9.0a",), "compute_90a"),
        ("10.3", ("10.0a",), (), None),
        ("10.3", ("10.0f",), (), "sm_100f"),
        ("10.0", ("10.3f",), (), None),
        ("10.0", ("10.0f", "10.0a"), (), "sm_100a"),
        ("10.3", (), ("10.0f",), "compute_100f"),
        ("12.0", (), ("10.0f",), None),
        ("12.0", CU126, (), None),
        ("10.0", CU126, (), None),
        ("6.1", CU126, (), "sm_60"),
        ("6.0", CU130, ("12.0",), None),
        ("7.0", CU130, ("12.0",), None),
        ("8.9", CU130, ("12.0",), "sm_86"),
        ("11.0", CU130, ("12.0",), None),
        ("9.0", (), (), None),
    ],
)
def test_a_gpu_loads_the_nearest_kernel_that_was_made_for_it(
    gpu: str, cubin: tuple[str, ...], ptx: tuple[str, ...], loads: str | None
) -> None:
    answer = kernel(gpu, cubin=cubin, ptx=ptx)
    assert (answer.loads, answer.says) == (loads, "yes" if loads else "no")
    assert answer.compared[0] == ("gpu", gpu)


def test_a_target_that_cannot_be_read_makes_a_no_an_unknown() -> None:
    assert kernel("9.0", cubin=("8.0", "nine"), ptx=()).says == "unknown"
    assert kernel("9.0", cubin=("8.0",), ptx=("",)).says == "unknown"
    assert kernel("9.0", cubin=("9.0", "nine"), ptx=()).loads == "sm_90"


CAPABILITY = st.sampled_from([*CU126, *CU130, "8.9", "10.3", "12.1"])


@given(CAPABILITY, st.sets(CAPABILITY), st.sets(CAPABILITY))
def test_more_kernels_never_take_one_away(gpu: str, cubin: set[str], ptx: set[str]) -> None:
    before = kernel(gpu, cubin=cubin, ptx=ptx)
    assert kernel(gpu, cubin={*cubin, gpu}, ptx=ptx).loads == "sm_" + gpu.replace(".", "")
    assert kernel(gpu, cubin=cubin, ptx={*ptx, gpu}).says == "yes"
    if before.rule == "kernel-cubin":
        assert before.loads == kernel(gpu, cubin=cubin, ptx=()).loads


@pytest.mark.parametrize(
    ("cuda", "version", "floor", "speaks", "says", "rule"),
    [
        ("12.8", "535.54.03", "525.60.13", "12.2", "yes", "driver-minor"),
        ("12.8", "535.104.05", "525.60.13", "12.2", "yes", "driver-minor"),
        ("12.8", "570.86.10", "525.60.13", "12.8", "yes", "driver-native"),
        ("12.8", "580.65.06", "525.60.13", "13.0", "yes", "driver-native"),
        ("12.8.1", "570", "525.60.13", "12.8", "yes", "driver-native"),
        ("12.8", "525.60.13", "525.60.13", "12.0", "yes", "driver-minor"),
        ("12.8", "525.60.9", "525.60.13", "12.0", "no", "driver-floor"),
        ("12.8", "525", "525.60.13", "12.0", "yes", "driver-minor"),
        ("12.8", "520", "525.60.13", "11.8", "no", "driver-floor"),
        ("13.0", "575.51.03", "580.65.06", "12.9", "no", "driver-floor"),
        ("13.2", "580.65.06", "580.65.06", "13.0", "yes", "driver-minor"),
        ("11.8", "470.82.01", "450.80.02", "11.4", "yes", "driver-minor"),
        ("11.8", "610.43.02", "450.80.02", "13.3", "yes", "driver-native"),
        ("12.8", "615.1.1", "525.60.13", None, "yes", "driver-floor"),
        ("12.8", "470", "450.80.02", "11.4", "no", "driver-major"),
        ("10.2", "418.87.01", "410.48", "10.1", "no", "driver-minor"),
        ("10.1", "440.33.01", "410.48", "10.2", "yes", "driver-native"),
    ],
)
def test_a_driver_runs_its_family(
    cuda: str, version: str, floor: str, speaks: str | None, says: str, rule: str
) -> None:
    answer = driver(cuda, version, floor=floor, speaks=speaks)
    assert (answer.says, answer.rule) == (says, rule)
    assert dict(answer.compared)["driver"] == version


@pytest.mark.parametrize(
    ("cuda", "speaks", "made", "accepts", "says"),
    [
        ("12.8", "12.8", None, None, "yes"),
        ("12.6", "13.0", "8.5", "9.0", "yes"),
        ("12.8", "12.2", "8.7", "8.2", "no"),
        ("12.6", "12.5", "8.5", "8.5", "yes"),
        ("13.4", "13.3", None, None, "unknown"),
        ("12.8", None, "8.7", None, "unknown"),
    ],
)
def test_an_older_driver_does_not_compile_newer_ptx(
    cuda: str, speaks: str | None, made: str | None, accepts: str | None, says: str
) -> None:
    assert accepts_ptx(cuda, speaks=speaks, made=made, accepts=accepts).says == says


@pytest.mark.parametrize(
    ("gpu", "cuda", "first", "last", "says"),
    [
        ("6.1", "12.9", "8.0", "12", "yes"),
        ("6.1", "13.0", "8.0", "12", "no"),
        ("7.0", "13.2", "9.0", "12", "no"),
        ("3.5", "12.0", "6.0", "11", "no"),
        ("7.5", "13.2", "10.0", None, "yes"),
        ("12.0", "12.8", "12.8", None, "yes"),
        ("12.0", "12.6.3", "12.8", None, "unknown"),
        ("10.3", "12.8.1", "12.9", None, "unknown"),
        ("10.3", "12", "12.9", None, "unknown"),
    ],
)
def test_cuda_drops_old_gpus_and_does_not_know_newer_ones(
    gpu: str, cuda: str, first: str, last: str | None, says: str
) -> None:
    assert supported(gpu, cuda, first_cuda=first, last_cuda=last).says == says


def test_an_answer_names_its_source_and_what_was_compared() -> None:
    answer = driver("12.8", "520.61.05", floor="525.60.13", speaks="11.8")
    assert answer.to_json() == {
        "says": "no",
        "rule": "driver-floor",
        "source": facts().rules["driver-floor"].source,
        "compared": {"driver": "520.61.05", "floor": "525.60.13"},
    }
    assert kernel("8.9", cubin=("8.6",), ptx=()).to_json()["loads"] == "sm_86"
    assert all(Answer(says="yes", rule=rule).source for rule in facts().rules)


@pytest.mark.parametrize(
    ("gpu", "cubin", "says"),
    [("8.9", "8.7", "no"), ("8.7", "8.0", "no"), ("8.7", "8.7", "yes"), ("8.9", "8.6", "yes")],
)
def test_desktop_and_tegra_load_none_of_each_others_machine_code(
    gpu: str, cubin: str, says: str
) -> None:
    assert kernel(gpu, cubin=(cubin,), ptx=()).says == says


@pytest.mark.parametrize(
    ("requires", "says", "rule"),
    [
        ({}, "yes", "runtime-none"),
        ({"CUDA_VERSION": "12.8.0"}, "no", "runtime-implied"),
        ({"CUDA_VERSION": "12.8.0", "NVIDIA_REQUIRE_CUDA": ""}, "no", "runtime-implied"),
        ({"CUDA_VERSION": "12.8.0", "NVIDIA_REQUIRE_CUDA": "cuda>=12.0"}, "yes", "runtime-met"),
        ({"CUDA_VERSION": "v12.8"}, "no", "runtime-implied"),
        ({"CUDA_VERSION": "12"}, "yes", "runtime-met"),
        ({"CUDA_VERSION": "12.2.1-rc.1+build"}, "yes", "runtime-met"),
        *(({"CUDA_VERSION": it}, "unknown", "runtime-unread")
          for it in ("cu128", "11.08", "11.4.048", "10.1.243.0", "12.2-rc1", "12.", " 12")),
        ({"NVIDIA_REQUIRE_FOO": "foo>=1"}, "unknown", "runtime-unread"),
        ({"NVIDIA_REQUIRE_CUDA": "cuda>=12.0,foo=1"}, "unknown", "runtime-unread"),
        ({"NVIDIA_REQUIRE_CUDA": "foo=1 cuda>=12.0"}, "unknown", "runtime-unread"),
        ({"NVIDIA_REQUIRE_CUDA": "cuda>=12.0 foo=1"}, "yes", "runtime-met"),
        ({"NVIDIA_REQUIRE_CUDA": "cuda>=99,foo=1"}, "no", "runtime-cuda"),
        ({"NVIDIA_REQUIRE_CUDA": "cuda>=99\tcuda>=12.0"}, "unknown", "runtime-unread"),
        ({"NVIDIA_REQUIRE_CUDA": "\tcuda>=12.0"}, "unknown", "runtime-unread"),
        ({"NVIDIA_REQUIRE_CUDA": "CUDA>=99"}, "no", "runtime-cuda"),
        ({"NVIDIA_REQUIRE_CUDA": "Brand=Tesla"}, "yes", "runtime-met"),
        ({"NVIDIA_REQUIRE_CUDA": "brand!=TESLA"}, "no", "runtime-brand"),
        ({"NVIDIA_REQUIRE_X": "cuda>=99", "NVIDIA_DISABLE_REQUIRE": "TRUE"}, "yes", "runtime-off"),
        ({"NVIDIA_REQUIRE_X": "cuda>=99", "NVIDIA_DISABLE_REQUIRE": "yes"}, "no", "runtime-cuda"),
        ({"NVIDIA_REQUIRE_JETPACK": "csv-mounts=all"}, "yes", "runtime-none"),
    ],
)  # fmt: skip
def test_the_runtime_is_asked_as_both_of_its_implementations_read_it(
    requires: dict[str, str], says: str, rule: str
) -> None:
    found = runtime(
        requires, cuda=exactly("12.2"), driver=exactly("535.104.05"), arch="7.0", brands=("tesla",)
    )
    assert (found.says, found.rule) == (says, rule)
