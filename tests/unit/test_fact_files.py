"""The facts in `curator/facts/`: complete, dated, sourced, and not in conflict with each other."""

from __future__ import annotations

import json
import string
from datetime import date
from importlib.resources import files
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from packaging.specifiers import SpecifierSet

from curator import matrix
from curator.compat import numbers
from curator.facts import NAMES, facts, read
from curator.resolve import gpu

if TYPE_CHECKING:
    from collections.abc import Iterator

KNOWN = facts()


def rows(value: Any, name: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object of a facts file that is a fact: those below the first two levels."""
    for key, found in value.items() if isinstance(value, dict) else enumerate(value):
        inner = f"{name}/{key}"
        if isinstance(found, dict) and "source" in found:
            yield inner, found
        elif isinstance(found, dict | list):
            yield from rows(found, inner)
        else:
            pytest.fail(f"{inner} is no fact with a source")


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    assert len(names) == len(set(names)), f"twice: {sorted(names)}"
    return dict(pairs)


@pytest.mark.parametrize("name", NAMES)
def test_every_fact_has_a_source_and_a_date_and_stands_once(name: str) -> None:
    text = files("curator.facts").joinpath(f"{name}.json").read_text()
    found = dict(rows(json.loads(text, object_pairs_hook=once)))
    assert found
    for row in found.values():
        assert len(row["source"]) > 20
        assert date(2026, 1, 1) <= date.fromisoformat(row["read"])


def test_gpus_pair_with_the_drivers_of_their_first_cuda() -> None:
    branches = KNOWN.gpus.branches
    for found in KNOWN.gpus.capabilities:
        since = [b.number for b in branches if numbers(b.cuda) >= numbers(found.first_cuda)]
        assert since[0] == (found.first_driver or branches[0].number), found.sm
        assert {found.first_driver, found.last_driver} <= {None, *KNOWN.branches}
    last = {found.architecture: found.last_driver for found in KNOWN.gpus.capabilities}
    assert (last["Kepler"], last["Pascal"], last["Volta"], last["Turing"]) == (470, 580, 580, None)
    assert KNOWN.capabilities["12.0"].first_driver == 570


def test_newer_branches_speak_newer_cuda_and_compile_newer_ptx() -> None:
    branches = KNOWN.gpus.branches
    assert all(numbers(a.cuda) < numbers(b.cuda) for a, b in pairwise(branches))
    versions = [numbers(b.ptx) for b in branches if b.ptx]
    assert versions == sorted(versions)


def test_every_driver_floor_of_the_farm_is_of_a_known_branch(farm_tree: matrix.Tree) -> None:
    loaded = matrix.load(farm_tree)
    floors = {numbers(fact.driver_floor)[0] for fact in loaded.cuda.values()}
    assert floors <= set(KNOWN.branches)


def test_forward_packages_are_of_known_releases_and_take_older_branches() -> None:
    releases = {branch.cuda for branch in KNOWN.branches.values()}
    for package in KNOWN.forward.values():
        assert package.cuda in releases
        native = next(b.number for b in KNOWN.gpus.branches if b.cuda == package.cuda)
        assert all(taken < native for taken in package.branches), package


def test_products_have_known_capabilities() -> None:
    for product in KNOWN.products.values():
        assert product.kind in {"datacenter", "workstation", "geforce", "titan", "embedded"}
        # Jetson boards have drivers of their own, of which there are no facts.
        assert product.sm in KNOWN.capabilities or product.kind == "embedded", product


def test_a_name_of_several_products_is_never_taken_for_one_of_them() -> None:
    names: dict[str, set[str]] = {}
    for product in KNOWN.products.values():
        for name in (product.name, *product.aliases):
            names.setdefault(name.lower(), set()).add(product.sm)
    doubtful = {name for name, sms in names.items() if len(sms) > 1}
    assert doubtful
    for name in doubtful:
        with pytest.raises(ValueError, match="say which"):
            gpu(name)


def test_a_frameworks_builds_do_not_overlap_and_are_readable() -> None:
    probes = [
        f"{major}.{minor}.{patch}"
        for major in (0, 1, 2, 14)
        for minor in range(30)
        for patch in (0, 1)
    ]
    for framework in {build.framework for build in KNOWN.builds}:
        ranges = [SpecifierSet(b.versions) for b in KNOWN.builds if b.framework == framework]
        for probe in probes:
            assert sum(probe in found for found in ranges) <= 1, (framework, probe)
    for build in KNOWN.builds:
        assert build.cuda
        assert all(len(numbers(cuda)) == 2 for cuda in build.cuda)
        for text in filter(None, (build.python, build.loads)):
            SpecifierSet(text)


def test_every_rule_reads_as_a_sentence_whatever_it_can_say() -> None:
    for rule in KNOWN.rules.values():
        assert rule.gate in {"G0", "G1", "G2", "G3", "E"}
        assert rule.says
        for says, text in rule.says.items():
            assert says in {"yes", "no", "unknown"}
            assert all(
                name is None or name.isidentifier()
                for _, name, _, _ in string.Formatter().parse(text)
            )
        for kind, text in rule.change:
            assert "no" in rule.says
            assert kind
            assert text
    assert read("rules")["rules"].keys() == KNOWN.rules.keys()
