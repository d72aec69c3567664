"""What tests of an image add to the rules, and that the index's own coverage says the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from curator.coverage import coverage, image_of
from curator.facts import facts
from curator.index import Coverage, Index, commit_documents
from curator.oci import canonical_json
from curator.resolve import Catalogue, Gpu, Host, Image, Judgement, catalogue, judge, why
from tests.images import PYTORCH_124, PYTORCH_128, entry_of, host, image, label, ran
from tests.pages import CUDNN

if TYPE_CHECKING:
    from curator.resolve import Tested

FACTS = facts()
NOW, PROBE = "2026-11-23T12:00:00Z", "0" * 64
PLAIN = label("12.8", PYTORCH_128)


def having(*tests: Tested) -> Image:
    return image("x", "1", PLAIN, tests=tests)


def first(judgement: Judgement) -> str | None:
    return judgement.first.answer.rule if judgement.first else None


def published(one: Image, *, probe: str = PROBE) -> Catalogue:
    """Return what an index of an image tells, whose coverage was written with it."""
    entry = entry_of(one)
    found = coverage(image_of(entry, probe), FACTS.gpus, now=NOW, max_age_days=90)
    told = Coverage.model_validate_json(canonical_json(found.to_json()))
    index = Index().merge([entry.model_copy(update={"coverage": told})])
    store = "11111111-1111-4111-8111-111111111111"
    made = commit_documents(Index(), index, store=store, publish="0" * 64, now=NOW)
    return catalogue(made.tip, "registry.example", index.entries, {})


def test_tests_on_the_spot_count_more_than_rules() -> None:
    where = host("580.95.05", "A100")
    assert judge(having(ran("A100", "580.65.06")), where, FACTS).confidence == "tested"
    assert judge(having(ran("A100", "535.104.05")), where, FACTS).confidence == "tested-sm"
    assert judge(having(ran("H200", "580.65.06")), where, FACTS).confidence == "rule"
    against = image("x", "1", label("12.8", ("9.0",)), tests=(ran("A100", "580.65.06"),))
    assert judge(against, where, FACTS).confidence == "tested"


def test_a_failed_test_on_the_spot_is_a_no_until_a_later_pass() -> None:
    failed = ran("A100", "580.65.06", verdict="fail", at="2026-11-21T10:00:00Z")
    where = host("580.95.05", "A100")
    found = judge(having(failed), where, FACTS)
    assert (found.says, first(found)) == ("no", "test-failed")
    mended = having(ran("A100", "580.65.06"), failed)
    assert judge(mended, where, FACTS).confidence == "tested"


def test_of_two_tests_at_the_same_time_the_failure_counts() -> None:
    both = ran("A100", "580.95.05"), ran("A100", "580.65.06", verdict="fail")
    for tests in (both, both[::-1]):
        assert judge(having(*tests), host("580.95.05", "A100"), FACTS).says == "no"


@pytest.mark.parametrize(
    ("tests", "driver", "says"),
    [
        ((("535.104.05", "pass"), ("550.54.14", "fail")), "570.124.06", "unknown"),
        ((("535.104.05", "pass"), ("550.54.14", "fail")), "540.10", "yes"),
        ((("535.104.05", "pass"), ("550.54.14", "fail")), "545.23.08", "unknown"),
        ((("535.104.05", "fail"), ("550.54.14", "pass")), "545.23.08", "unknown"),
        ((("570.124.06", "fail"), ("590.48.01", "fail")), "580.95.05", "unknown"),
        ((("590.48.01", "fail"),), "580.95.05", "unknown"),
        ((("590.48.01", "fail"), ("595.45.04", "pass")), "580.95.05", "unknown"),
        ((("535.104.05", "fail"), ("570.124.06", "pass")), "580.95.05", "yes"),
    ],
)
def test_a_failure_with_the_nearest_driver_makes_a_yes_unknown(
    tests: tuple[tuple[str, str], ...], driver: str, says: str
) -> None:
    there = having(*(ran("A100", number, verdict=verdict) for number, verdict in tests))
    found = judge(there, host(driver, "A100"), FACTS)
    assert found.says == says
    assert (first(found) == "test-failed") == (says == "unknown")
    index = published(there)
    known = judge(index.image(0), host(driver, "A100"), FACTS)
    assert (known.says, known.confidence) == (found.says, found.confidence)


def test_a_pass_tells_of_its_own_driver_and_newer_ones_of_the_branch() -> None:
    old = label("11.8", ("8.0",), floor="450.80.02")
    there = image("x", "1", old, tests=(ran("A100", "450.248.02"),))
    assert first(judge(there, host("450.51.06", "A100"), FACTS)) == "driver-floor"
    above = image("x", "1", label("12.8", ("9.0",)), tests=(ran("A100", "580.65.06"),))
    assert judge(above, host("580.65.06", "A100"), FACTS).confidence == "tested"
    assert judge(above, host("580.50", "A100"), FACTS).says == "no"
    assert judge(having(ran("A100", "580.95.05")), host("580", "A100"), FACTS).confidence == (
        "tested"
    )


def test_a_pass_by_forward_compatibility_tells_nothing_of_another_gpu() -> None:
    there = label("12.8", ("8.6",), requires={}, forward="12.8")
    passed = ran("RTX 3090", "535.104.05")
    found = judge(image("x", "1", there, tests=(passed,)), host("535.104.05", "RTX 3090"), FACTS)
    assert (found.says, first(found)) == ("no", "driver-forward")


@pytest.mark.parametrize(
    ("more", "rule"),
    [
        ({"platforms": ("linux/arm64",)}, "platform"),
        ({"requires": {"NVIDIA_REQUIRE_CUDA": "cuda>=99"}}, "runtime-cuda"),
    ],
)
@pytest.mark.parametrize("glibc", ["2.36", "2.36+deb"])
def test_no_pass_lets_an_image_past_architecture_and_runtime(
    more: dict[str, Any], rule: str, glibc: str
) -> None:
    there = label("12.8", ("8.0",), glibc=glibc, **more)
    found = judge(
        image("x", "1", there, tests=(ran("A100", "580.65.06"),)),
        host("580.95.05", "A100"),
        FACTS,
    )
    assert (found.says, found.confidence, first(found)) == ("no", None, rule)


def test_which_platform_of_several_a_test_ran_is_not_told() -> None:
    both = label("12.8", ("8.0",), platforms=("linux/amd64", "linux/arm64"))
    where = host("580.95.05", "A100")
    passed = image("x", "1", both, tests=(ran("A100", "580.65.06"),))
    assert judge(passed, where, FACTS).confidence == "rule"
    failed = image("x", "1", both, tests=(ran("A100", "580.65.06", verdict="fail"),))
    assert judge(failed, where, FACTS).says == "no"


def test_with_two_kinds_of_gpu_both_have_to_be_ran() -> None:
    mixed, plain = host("580.95.05", "A100", "V100"), label("12.6", PYTORCH_124)
    one = image("x", "1", plain, tests=(ran("A100", "580.65.06"),))
    assert judge(one, mixed, FACTS).confidence == "rule"
    both = image("x", "1", plain, tests=(ran("A100", "580.65.06"), ran("V100", "580.65.06")))
    assert judge(both, mixed, FACTS).confidence == "tested"


@pytest.mark.parametrize(
    ("tests", "probe", "says", "standing"),
    [
        ((ran("A100", "580.95.05"),), PROBE, "tested", "tested"),
        ((ran("A100", "580.95.05"),), "1" * 64, "its probe has changed", "untested"),
        (
            (ran("A100", "580.95.05", at="2024-11-01T00:00:00Z"),),
            PROBE,
            "older than the index allows",
            "untested",
        ),
        ((ran("A100", "580.95.05", at="2199-01-01T00:00:00Z"),), PROBE, "not to be", "untested"),
        (
            (
                ran("A100", "580.95.05", at="2199-01-01T00:00:00Z"),
                ran("A100", "580.65.06", verdict="fail"),
            ),
            PROBE,
            "failed its test",
            "bad",
        ),
        ((ran("A100", "580.65.06", verdict="fail"),), "1" * 64, "failed its test", "bad"),
    ],
)
def test_old_evidence_follows_by_rule_and_says_so_as_the_coverage_does(
    tests: tuple[Tested, ...], probe: str, says: str, standing: str
) -> None:
    known = published(having(*tests), probe=probe)
    found = judge(known.image(0), host("580.95.05", "A100"), FACTS)
    assert found.confidence == {"tested": "tested", "untested": "rule", "bad": None}[standing]
    assert says in why(found)
    told = coverage(
        image_of(entry_of(having(*tests)), probe), FACTS.gpus, now=NOW, max_age_days=90
    ).at("8.0", 580)
    assert told is not None
    assert told.answer == standing


def test_a_pass_on_a_gpu_that_its_cuda_does_not_know_tells_of_that_capability_alone() -> None:
    there = label("12.6", ("9.0", "12.0"))
    known = published(image("x", "1", there, tests=(ran("RTX 5090", "575.57.08"),)))
    told = coverage(image_of(entry_of(known.image(0)), PROBE), FACTS.gpus, now=NOW, max_age_days=90)
    gb10 = Host(driver="580", gpus=(Gpu(name="GB10", sm="12.1", kind="workstation"),))
    wanted = [
        (host("575.57.08", "RTX 5090"), "tested", "tested"),
        (host("580", "RTX 5090"), "tested-sm", "inferred"),
        (gb10, None, "untested"),
    ]
    for where, confidence, standing in wanted:
        assert judge(known.image(0), where, FACTS).confidence == confidence
        group = told.at(where.gpus[0].sm or "", where.branch or 0)
        assert group is not None
        assert group.answer == standing
        assert ("gpu-newer" in group.rules) == (standing == "untested")


def test_an_index_tells_of_a_forward_compatibility_package() -> None:
    there = label("12.8", ("8.9",), requires={}, forward="12.8")
    known = published(image("x", "1", there)).image(0)
    assert known.label == there
    assert first(judge(known, host("535.104.05", "RTX 4090"), FACTS)) == "driver-forward"


def test_an_index_tells_which_cuda_wrote_the_ptx() -> None:
    there = label("12.9", ("8.0", "8.9"), ("9.0",), built="12.5.1")
    known = Catalogue.read(published(image("x", "1", there, tests=(ran("H200", "580"),))).data)
    assert known.image(0).label == there
    told = coverage(image_of(entry_of(known.image(0)), PROBE), FACTS.gpus, now=NOW, max_age_days=90)
    for gpu in ("A100", "RTX 4090", "H200", "B200", "B300", "RTX 5090"):
        where = host("590", gpu)
        group = told.at(where.gpus[0].sm or "", 590)
        assert group is not None
        assert ("gpu-newer" in group.rules) == (
            first(judge(known.image(0), where, FACTS)) == "gpu-newer"
        )
        assert ("gpu-newer" in group.rules) == (gpu in {"B200", "B300", "RTX 5090"})


@pytest.mark.parametrize(
    ("gpu", "standing"),
    [("T4", "inferred"), ("A100", "untested"), ("V100", "untested"), ("GTX 1080", "untested")],
)
def test_an_index_tells_of_a_library_without_code_for_a_gpu(gpu: str, standing: str) -> None:
    there = label("12.8", ("6.0", "7.0", "8.0", "9.0"), gaps=(CUDNN,))
    known = Catalogue.read(published(image("x", "1", there, tests=(ran("T4", "570.26"),))).data)
    one, where = known.image(0), host("580.95.05", gpu)
    assert one.label == there
    told = coverage(image_of(entry_of(one), PROBE), FACTS.gpus, now=NOW, max_age_days=90)
    group = told.at(where.gpus[0].sm or "", 580)
    assert group is not None
    assert group.answer == standing
    is_gap = gpu in {"V100", "GTX 1080"}
    assert ("kernel-gap" in group.rules) == is_gap
    found = judge(one, where, FACTS)
    assert (found.says, first(found)) == (("unknown", "kernel-gap") if is_gap else ("yes", None))


def test_a_pass_on_a_gpu_in_a_gap_tells_of_the_spot_alone() -> None:
    there = label("12.9", ("7.0", "8.0"), gaps=(CUDNN,))
    one = image("x", "1", there, tests=(ran("V100", "570.26"),))
    told = coverage(image_of(entry_of(one), PROBE), FACTS.gpus, now=NOW, max_age_days=90)
    for driver, says, standing in (
        ("570.26", "yes", "tested"),
        ("580.65.06", "unknown", "untested"),
    ):
        assert judge(one, host(driver, "V100"), FACTS).says == says
        group = told.at("7.0", int(driver[:3]))
        assert group is not None
        assert group.answer == standing


def test_how_old_a_test_is_survives_the_catalogues_document() -> None:
    known = published(having(ran("A100", "580.95.05")), probe="1" * 64)
    again = Catalogue.read(known.data)
    assert [test.stale for test in again.image(0).tests] == ["probe"]
    assert again.image(0).tests[0].to_json()["stale"] == "probe"
