"""Hosts and images that people and documents tell of: each answered as it was found to be."""

from __future__ import annotations

from collections import Counter

import pytest

from curator.facts import facts
from curator.resolve import judge
from tests.cases import CASES, Case

FACTS = facts()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_case_is_answered_as_its_source_tells(case: Case) -> None:
    found = judge(case.image, case.host, FACTS)
    first = found.first
    assert found.says == case.says, first
    if case.gate:
        assert first is not None
        assert first.gate == case.gate, first
    if case.rule:
        assert first is not None
        assert first.answer.rule == case.rule


def test_the_cases_are_of_every_gate_and_answer_and_each_has_its_source() -> None:
    gates = Counter(case.gate for case in CASES)
    assert min(gates[gate] for gate in ("G0", "G1", "G2", "G3")) >= 3
    assert {case.says for case in CASES} == {"yes", "no", "unknown"}
    assert len({case.id for case in CASES}) == len(CASES)
    assert all(case.source.startswith("https://") for case in CASES)
    assert all(case.gate and case.rule for case in CASES if case.says != "yes")
