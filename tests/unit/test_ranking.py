"""What comes first of what runs, for which reason, and what would come before it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from curator.errors import InputError
from curator.facts import facts
from curator.resolve import Host, Image, Wishes, judge, ordered, resolve, why
from tests.images import PYTORCH_124, PYTORCH_128, host, image, label, published, ran

FACTS = facts()


def test_the_order_is_version_then_confidence_then_cuda_and_deprecated_is_last() -> None:
    cu126, cu128 = label("12.6", PYTORCH_124), label("12.8", PYTORCH_128)
    known = ordered(
        [
            image("x", "2.0", cu126),
            image("x", "1.9", cu126, tests=(ran("A100", "580.65.06"),)),
            image("x", "1.9", cu128),
            image("x", "1.9", cu128, python="3.13", state="deprecated"),
            image("x", "3.0", cu128, state="yanked"),
            image("x", "3.1", cu128, tags=(), state="unpublished"),
        ]
    )
    found = resolve(known, host("580.95.05", "A100"), Wishes(), FACTS)
    assert [match.image.cell for match in found.ranked] == [
        "x-2.0-cuda12.6-py3.12",
        "x-1.9-cuda12.6-py3.12",
        "x-1.9-cuda12.8-py3.12",
        "x-1.9-cuda12.8-py3.13",
    ]
    assert found.considered == 4


def test_the_fastest_is_what_was_measured_on_this_gpu() -> None:
    plain = label("12.8", PYTORCH_128)
    known = ordered(
        [
            image("x", "2.0", plain, tests=(ran("A100", "580.65.06", rate=100),)),
            image("x", "1.9", plain, tests=(ran("A100", "570.65.06", rate=130),)),
            image("x", "2.1", plain, tests=(ran("H200", "580.65.06", rate=900),)),
        ]
    )
    where = host("580.95.05", "A100")
    fastest = resolve(known, where, Wishes(prefer="fastest"), FACTS).ranked
    assert [match.image.version for match in fastest] == ["1.9", "2.0", "2.1"]
    newest = resolve(known, where, Wishes(), FACTS).ranked
    assert [match.image.version for match in newest] == ["2.1", "2.0", "1.9"]


def fastest(*images: Image, on: Host) -> list[str]:
    found = resolve(ordered(images), on, Wishes(prefer="fastest"), FACTS)
    return [match.image.version for match in found.ranked]


def test_speeds_are_compared_in_one_type() -> None:
    plain, passed = label("12.8", PYTORCH_128), ran("A100", "580.65.06", rate=100)
    fp32 = replace(passed, speed={"matmul_fp32_gflops": 900, "copy_mb_s": 9_000})
    images = [image("x", "1.9", plain, tests=(passed,)), image("x", "2.0", plain, tests=(fp32,))]
    assert fastest(*images, on=host("580.95.05", "A100")) == ["1.9", "2.0"]


def test_a_host_is_as_fast_as_its_slowest_gpu() -> None:
    plain = label("12.8", PYTORCH_128)
    even = (ran("A100", "580.65.06", rate=300), ran("V100", "580.65.06", rate=100))
    uneven = (ran("A100", "580.65.06", rate=700), ran("V100", "580.65.06", rate=90))
    images = [
        image("x", "1.9", plain, tests=even),
        image("x", "2.0", plain, tests=uneven),
        image("x", "2.1", plain, tests=(ran("A100", "580.65.06", rate=800),)),
    ]
    assert fastest(*images, on=host("580.95.05", "A100", "V100")) == ["1.9", "2.0", "2.1"]
    assert fastest(*images, on=host("580.95.05", "A100")) == ["2.1", "2.0", "1.9"]


def test_a_speed_counts_while_the_newest_test_there_passes() -> None:
    plain, old = label("12.8", PYTORCH_128), "2026-01-01T10:00:00Z"
    broken = (
        ran("A100", "570.1", rate=900, at=old),
        ran("A100", "580.1", at=old),
        ran("A100", "570.2", verdict="fail"),
    )
    slower = (ran("A100", "580.1", rate=900, at=old), ran("A100", "580.2", rate=50))
    images = [
        image("x", "1.8", plain, tests=(ran("A100", "580.1", rate=100),)),
        image("x", "1.9", plain, tests=slower),
        image("x", "2.0", plain, tests=broken),
    ]
    assert fastest(*images, on=host("580.95.05", "A100")) == ["1.8", "1.9", "2.0"]


PRE = ("2.10.0rc1", "2.9.1", "2.9.1.post1", "2.11.0.dev3")


@pytest.mark.parametrize(
    ("wish", "versions"),
    [
        (None, ["2.9.1.post1", "2.9.1", "2.8", "2.11.0.dev3", "2.10.0rc1", "2.7"]),
        (">=2.9", ["2.9.1.post1", "2.9.1", "2.11.0.dev3", "2.10.0rc1"]),
        (">=2.9,!=2.12a1", ["2.9.1.post1", "2.9.1", "2.11.0.dev3", "2.10.0rc1"]),
        (">=2.10.0rc1", ["2.11.0.dev3", "2.10.0rc1"]),
        (">= 2.9, <2.10.0rc2", ["2.10.0rc1", "2.9.1.post1", "2.9.1"]),
        ("2.10.0rc1", ["2.10.0rc1"]),
        ("2.10", ["2.10.0rc1"]),
        ("==2.10.*", ["2.10.0rc1"]),
    ],
)
def test_pre_releases_are_last_unless_one_is_named(wish: str | None, versions: list[str]) -> None:
    plain = label("12.8", PYTORCH_128)
    known = ordered(
        [
            *(image("x", version, plain) for version in PRE),
            image("x", "2.8", plain),
            image("x", "2.7", plain, state="deprecated"),
        ]
    )
    found = resolve(known, host("580.95.05", "A100"), Wishes(version=wish), FACTS)
    assert [match.image.version for match in found.ranked] == versions


def test_a_pre_release_is_no_near_miss_beside_a_release() -> None:
    old, new = label("12.8", PYTORCH_128), label("13.0", PYTORCH_128)
    known = ordered([image("x", "2.9.1", old), image("x", "2.10.0rc1", new)])
    asked = (known, host("535.104.05", "A100"))
    assert resolve(*asked, Wishes(), FACTS).misses == ()
    (miss,) = resolve(*asked, Wishes(version=">=2.9,<2.10rc9"), FACTS).misses
    assert miss.image.version == "2.10.0rc1"
    (miss,) = resolve(*asked, Wishes(version="2.10"), FACTS).misses
    assert miss.changes == ("driver >= 580.65.06",)


@pytest.mark.parametrize(
    ("wishes", "cells"),
    [
        ({"version": "2.9"}, {"2.9.1"}),
        ({"cuda": "12.4.1"}, {"2.6.0"}),
        ({"cuda": "\ufeff12.4\xa0"}, {"2.6.0"}),
        ({"version": ">=2.5,<2.9"}, {"2.6.0", "2.7.1"}),
        ({"version": "2"}, {"2.9.1", "2.7.1", "2.6.0", "2.4.1"}),
        ({"cuda": "12.4"}, {"2.6.0"}),
        ({"cuda": "11"}, {"2.4.1"}),
        ({"python": "3.13"}, set()),
        ({"channel": "stable"}, set()),
    ],
)
def test_wishes_are_beginnings_or_ranges(wishes: dict[str, str], cells: set[str]) -> None:
    asked = Wishes(framework="pytorch", **wishes)  # type: ignore[arg-type]
    found = resolve(published(), host("580.95.05", "A100"), asked, FACTS)
    assert {match.image.version for match in found.ranked} == cells


@pytest.mark.parametrize("version", ["2..9", "newest", ">=two"])
def test_a_wish_that_is_no_version_is_refused(version: str) -> None:
    with pytest.raises(InputError, match=version):
        resolve(published(), Host(), Wishes(version=version), FACTS)


def test_misses_are_newer_than_what_runs() -> None:
    found = resolve(published(), host("535.104.05", "A100"), Wishes(framework="pytorch"), FACTS)
    assert [(miss.image.cell, miss.changes) for miss in found.misses] == [
        ("pytorch-2.9.1-cuda13.0-py3.12", ("driver >= 580.65.06",)),
    ]
    later = resolve(published(), host("580.95.05", "A100"), Wishes(framework="pytorch"), FACTS)
    assert later.misses == ()
    found = resolve(published(), host("470.256.02", "A100"), Wishes(framework="pytorch"), FACTS)
    assert found.ranked[0].image.version == "2.4.1"
    assert [(miss.image.cell, miss.changes) for miss in found.misses] == [
        ("pytorch-2.9.1-cuda12.8-py3.12", ("driver >= 525.60.13",)),
        ("pytorch-2.9.1-cuda13.0-py3.12", ("driver >= 580.65.06",)),
    ]


def test_the_reason_of_a_yes_is_nothing_that_said_no() -> None:
    passed = (ran("A100", "580.65.06"),)
    newer = label("13.2", ("9.0",), floor="590.44.01")
    found = judge(image("x", "1", newer, tests=passed), host("580.95.05", "A100"), FACTS)
    assert {(gate.gate, gate.answer.says) for gate in found.gates} >= {("G2", "no"), ("G3", "no")}
    assert (found.says, why(found)) == ("yes", "tested on A100 with driver 580.65.06, 2026-11-22")
    arm = judge(
        image("x", "1", newer, tests=passed),
        host("580.95.05", "A100", architecture="aarch64"),
        FACTS,
    )
    assert (arm.says, why(arm)) == ("no", "built for linux/amd64, this host is linux/arm64")
