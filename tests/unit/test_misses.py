"""What would have to change: every change that is named, applied, lets the image run."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from curator.compat import numbers
from curator.facts import facts
from curator.resolve import PLATFORMS, Gpu, Host, Wishes, change, judge, ordered, resolve
from tests.images import PYTORCH_124, PYTORCH_128, host, image, label, ran
from tests.pages import invented_host, invented_image

if TYPE_CHECKING:
    from collections.abc import Iterator

    from curator.resolve import Image

FACTS = facts()
DRIVER = re.compile(r"driver >= ([0-9.]+)(?: and < ([0-9.]+))?(, or NVIDIA_DISABLE_REQUIRE=1)?")
OFF = "NVIDIA_DISABLE_REQUIRE=1"


def needs(one: Image, where: Host) -> tuple[str, ...] | None:
    found = change(one, where, FACTS)
    return found.texts if found else None


def runs(one: Image, where: Host) -> bool:
    return judge(one, where, FACTS).says == "yes"


def unchecked(one: Image) -> Image:
    """Return an image that is started with the runtime's check turned off."""
    asks = {**(one.label.requires or {}), "NVIDIA_DISABLE_REQUIRE": "1"}
    return replace(one, label=replace(one.label, requires=asks))


def with_hardware(text: str, where: Host) -> Iterator[Host]:
    """Yield every host that a text about hardware may mean."""
    if found := re.fullmatch(r"a host of ([^ ,]+).*", text):
        names = {place: name for name, place in PLATFORMS.items()}
        yield replace(where, architecture=names[found[1]])
    elif found := re.fullmatch(r"Docker >= ([0-9.]+)", text):
        yield replace(where, docker=found[1])
    elif text == "an NVIDIA GPU":
        for sm in FACTS.capabilities:
            yield replace(where, gpus=(Gpu(sm=sm, kind="datacenter"),))
    elif found := re.fullmatch(r"another GPU than sm ([0-9.]+)", text):
        for sm in FACTS.capabilities:
            other = Gpu(sm=sm, kind="datacenter")
            yield replace(
                where, gpus=tuple(other if gpu.sm == found[1] else gpu for gpu in where.gpus)
            )
    else:
        pytest.fail(f"no change that anybody can make: {text!r}")


def drivers_between(first: str, end: str | None) -> Iterator[str]:
    """Yield the first driver and the branches that facts know after it."""
    yield first
    for branch in FACTS.branches:
        if numbers(str(branch)) > numbers(first) and (end is None or branch < numbers(end)[0]):
            yield str(branch)


def assert_true(one: Image, where: Host, texts: tuple[str, ...]) -> None:
    """Apply every change, in every way that it can be meant."""
    hosts, drivers = [where], [where.driver]
    for text in texts:
        if found := DRIVER.fullmatch(text):
            if found[3]:
                assert runs(unchecked(one), where), (where, one)
            drivers = list(drivers_between(found[1], found[2]))
        elif text == OFF:
            assert runs(unchecked(one), where), (where, one)
            return
        else:
            hosts = [other for known in hosts for other in with_hardware(text, known)]
    assert any(
        all(runs(one, replace(known, driver=driver)) for driver in drivers) for known in hosts
    ), (where, one, texts)


@pytest.mark.parametrize("seed", range(6))
def test_every_named_change_lets_an_image_run(seed: int) -> None:
    dice = random.Random(seed)  # noqa: S311 - the same every time
    images = [invented_image(dice, number) for number in range(25)]
    named = 0
    for _ in range(10):
        where = invented_host(dice)
        for one in images:
            texts = needs(one, where)
            if texts is not None:
                named += 1
                assert judge(one, where, FACTS).says == "no"
                assert_true(one, where, texts)
    assert named > 30


@pytest.mark.parametrize("seed", range(4))
def test_what_is_nearest_is_nearest_of_all(seed: int) -> None:
    dice = random.Random(seed)  # noqa: S311 - the same every time
    known = ordered([invented_image(dice, number) for number in range(40)])
    for _ in range(10):
        where = invented_host(dice)
        found = resolve(known, where, Wishes(), FACTS)
        if found.ranked:
            continue
        orders: dict[tuple[str, tuple[str, ...]], tuple[int, int, tuple[int, ...]]] = {}
        for match in found.rejected:
            if needed := change(match.image, where, FACTS):
                orders.setdefault((match.image.framework, needed.texts), needed.order)
        nearest = [orders[miss.image.framework, miss.changes] for miss in found.misses]
        assert nearest == sorted(orders.values())[:3]


def test_a_driver_is_raised_until_every_gate_says_yes() -> None:
    asks = {
        "NVIDIA_REQUIRE_CUDA": "cuda>=12.2 brand=tesla,driver>=470,driver<471 "
        "brand=nvidia,driver>=535,driver<536"
    }
    there = image("x", "1", label("12.2", PYTORCH_124, requires=asks))
    m60 = Host(driver="470.57.02", gpus=(Gpu(name="M60", sm="5.2", kind="datacenter"),))
    assert needs(there, m60) == ("driver >= 535 and < 590",)
    forward = image("x", "1", label("12.2", ("8.9",), requires={}, forward="12.2"))
    assert needs(forward, host("470.57.02", "RTX 4090")) == ("driver >= 535",)


def test_where_a_newer_driver_dropped_the_gpu_the_end_is_said() -> None:
    there = image("x", "1", label("12.6", PYTORCH_124))
    assert needs(there, host("470.57.02", "V100")) == ("driver >= 525.60.13 and < 590",)
    assert needs(there, host("595.45.04", "V100")) == ("driver >= 525.60.13 and < 590",)


def test_without_a_gpu_the_driver_is_one_that_the_runtime_takes() -> None:
    asks = {"NVIDIA_REQUIRE_CUDA": "cuda>=12.8"}
    there = image("x", "1", label("12.8", PYTORCH_128, requires=asks))
    assert needs(there, Host()) == ("driver >= 570", "an NVIDIA GPU")


def test_what_no_driver_helps_against_is_another_gpu_or_nothing() -> None:
    there = image("x", "1", label("13.0", ("9.0",)))
    assert needs(there, host("580.95.05", "V100")) == ("another GPU than sm 7.0",)
    assert needs(there, host("470.57.02", "V100")) == (
        "driver >= 580.65.06",
        "another GPU than sm 7.0",
    )
    assert needs(image("x", "1", label("13.0", ())), host("470.57.02", "V100")) is None
    tests = (ran("A100", "580.65.06", verdict="fail"),)
    failed = image("x", "1", label("13.0", ("8.0",)), tests=tests)
    assert needs(failed, host("580.95.05", "A100")) is None
    assert needs(failed, host("470.57.02", "A100")) is None


def test_other_hardware_comes_after_another_driver() -> None:
    known = ordered(
        [
            image("x", "3.0", label("11.8", ("8.0", "9.0"))),
            image("x", "2.7", label("12.8", ("7.0", "8.0"))),
        ]
    )
    found = resolve(known, host("470.57.02", "V100"), Wishes(), FACTS)
    assert [(miss.image.version, miss.changes) for miss in found.misses] == [
        ("2.7", ("driver >= 525.60.13 and < 590",)),
        ("3.0", ("another GPU than sm 7.0",)),
    ]
