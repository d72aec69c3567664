"""What frameworks' releases were built for: whole versions, and all that begin alike."""

from __future__ import annotations

import doctest

import pytest
from packaging.specifiers import SpecifierSet

from curator import matrix, settings
from curator.facts import facts
from curator.resolve import Combination, _builds, claims
from tests.images import PYTORCH_128, image, label
from tests.machines import ROOT

KNOWN = facts()


def told(text: str) -> list[tuple[str, str]]:
    """Return what is documented of a combination, each sentence up to its reason."""
    asked = Combination.parse(text)
    assert asked is not None
    return [(claim.says, claim.text.partition(":")[0]) for claim in claims(asked, KNOWN)]


def test_the_examples_in_the_documentation_hold() -> None:
    found = doctest.testmod(_builds)
    assert (found.attempted, found.failed) == (1, 0)


@pytest.mark.parametrize(
    ("asked", "says", "text"),
    [
        ("pytorch-2.9.1-cuda12.8", "yes", "pytorch 2.9.1 was built for CUDA 12.8"),
        ("pytorch-2.9-cuda12.8.1", "yes", "pytorch 2.9 was built for CUDA 12.8"),
        ("pytorch-2.8-cuda12", "yes", "2.8 was built for CUDA 12.6 or 12.8 or 12.9 (experimental)"),
        ("tensorflow-2.19-cuda12.9", "yes", "loads on CUDA 12.9"),
        ("tensorflow-1.8-cuda9.2", "no", "built for CUDA 9.0 and cuDNN 7 and not for CUDA 9.2"),
        ("tensorflow-1.4-cuda8.0", "yes", "tensorflow 1.4 was built for CUDA 8.0 and cuDNN 6"),
        ("jax-0.7.0-cuda13.0", "no", "jax 0.7.0 was built for CUDA 12.9"),
        ("jax-0.7.1-cuda13", "no", "not for CUDA 13"),
        ("jax-0.7.2-cuda13.0", "yes", "jax 0.7.2 was built for CUDA 13.0"),
    ],
)
def test_a_release_is_for_some_cuda_and_not_for_others(asked: str, says: str, text: str) -> None:
    ((found, sentence),) = told(asked)
    assert found == says
    assert text in sentence


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("tensorflow-2.21-cuda12.5-py3.9", "no"),
        ("tensorflow-2.21-cuda12.5-py3.13", "yes"),
        ("tensorflow-2.20-cuda12.5-py3.9", "yes"),
        ("jax-0.11.0-cuda13.0-py3.11", "no"),
        ("jax-0.10.2-cuda13.0-py3.11", "yes"),
        ("pytorch-2.9.1-cuda12.8-py3.13.1", "yes"),
        ("pytorch-2.9.1-cuda12.8-py3", "yes"),
        ("pytorch-2.9.1-cuda12.8-py2", "no"),
        ("pytorch-2.5.1-cuda12.4-py3.13", "yes"),
        ("pytorch-2.5.1-cuda12.4-py3.14", "no"),
    ],
)
def test_a_release_is_for_some_pythons(asked: str, says: str) -> None:
    cuda, python = told(asked)
    assert (cuda[0], python[0]) == ("yes", says)


@pytest.mark.parametrize(
    ("asked", "ranges"),
    [
        ("pytorch-2-cuda13.2", [">=2.14,<2.15", ">=2.13,<2.14", ">=2.12,<2.13"]),
        ("tensorflow-1-cuda9.0", [">=1.5,<1.13"]),
        ("tensorflow-1-cuda10.0", [">=1.13"]),
        ("tensorflow-2-cuda10.0", ["<2.1"]),
        ("tensorflow-2-cuda10.1", [">=2.1,<2.4"]),
        ("jax-0.7-cuda13.0", [">=0.7.2"]),
        ("jax-0.7-cuda12.9-py3.14", [">=0.7.2", ">=0.7.1,<0.7.2"]),
    ],
)
def test_of_a_version_in_part_those_that_have_everything_are_told(
    asked: str, ranges: list[str]
) -> None:
    found = told(asked)
    assert {says for says, _ in found} == {"yes"}
    names = dict.fromkeys(text.partition("(")[2].partition(")")[0] for _, text in found)
    assert list(names) == ranges


def test_where_no_release_has_it_each_says_so() -> None:
    found = told("tensorflow-1-cuda9.2")
    assert {says for says, _ in found} == {"no"}
    assert [text.partition(" was")[0] for _, text in found] == [
        "tensorflow 1 (>=1.13)",
        "tensorflow 1 (>=1.5,<1.13)",
        "tensorflow 1 (>=1.3,<1.5)",
        "tensorflow 1 (<1.3)",
    ]


@pytest.mark.parametrize("asked", ["tensorflow-2.22", "pytorch-3", "jax-1.0-cuda13.0", "caffe"])
def test_of_what_no_document_was_read_nothing_is_known(asked: str) -> None:
    assert told(asked) == []


def test_no_cell_that_has_a_lock_is_said_not_to_be_built() -> None:
    cells = matrix.load(settings.read_tree(ROOT)).cells
    assert len(cells) > 100
    for cell in cells:
        asked = Combination(
            framework=cell.framework, version=cell.version, cuda=cell.cuda, python=cell.python
        )
        assert {claim.says for claim in claims(asked, KNOWN)} <= {"yes"}, cell.id


def test_every_fact_is_of_a_range_with_both_ends() -> None:
    for build in KNOWN.builds:
        signs = sorted(found.operator for found in SpecifierSet(build.versions))
        assert signs == ["<", ">="], build


def test_a_combination_names_the_images_of_its_cuda_release() -> None:
    there = image("pytorch", "2.9.1", label("12.8", PYTORCH_128))
    for text in ("pytorch-2.9-cuda12.8.1", "pytorch==2.9.1+cu128", "pytorch-2-cuda12", "pytorch"):
        asked = Combination.parse(text)
        assert asked is not None
        assert asked.names(there), text
    other = Combination.parse("pytorch-2.9.1-cuda12.6.3")
    assert other is not None
    assert not other.names(there)
