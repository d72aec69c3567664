"""What runs where: the rules that images state about the hosts they need."""

from __future__ import annotations

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from curator import compat, matrix
from curator.compat import numbers, require_arch, require_cuda

DOTTED = st.lists(st.integers(0, 999), min_size=3, max_size=3).map(
    lambda parts: ".".join(str(part) for part in parts)
)


def test_the_example_in_the_documentation_holds() -> None:
    found = doctest.testmod(compat)
    assert (found.attempted, found.failed) == (1, 0)


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
