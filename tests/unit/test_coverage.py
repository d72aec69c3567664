"""What tests and rules tell of every GPU and driver, and the fewest tests that tell the rest."""

from __future__ import annotations

import json
from itertools import combinations, product
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curator.coverage import (
    Coverage,
    Grid,
    Host,
    Image,
    Label,
    cover,
    coverage,
    image_of,
    smallest,
)
from curator.facts import Capability, DriverBranch, Gpus, facts
from curator.index import Entry, Sm, SuiteResult
from curator.oci import sha256
from tests.documents import entry

if TYPE_CHECKING:
    from collections.abc import Sequence

NOW, DAYS = "2026-11-23T10:00:00Z", 90
PROBE, OTHER_PROBE = "0" * 64, "1" * 64
FACT: dict[str, Any] = {"source": "s", "read": "2026-11-23"}


def capability(sm: str, **more: Any) -> Capability:
    return Capability(sm=sm, architecture="a", first_cuda="1.0", **FACT, **more)


def branch(number: int, cuda: str, ptx: str | None = None) -> DriverBranch:
    return DriverBranch(number=number, cuda=cuda, ptx=ptx, **FACT)


GPUS = Gpus(
    capabilities=(
        capability("6.0", last_cuda="12", last_driver=580),
        capability("8.0"),
        capability("8.6"),
        capability("8.9"),
        capability("9.0"),
        capability("12.0", first_driver=570),
    ),
    branches=(
        branch(520, "11.8", "7.8"),
        branch(535, "12.2", "8.2"),
        branch(555, "12.5", "8.5"),
        branch(560, "12.6", "8.5"),
        branch(570, "12.8", "8.7"),
        branch(580, "13.0", "9.0"),
        branch(590, "13.1"),
    ),
)
GRID = Grid(GPUS)
CU128 = Label(cuda="12.8", driver_floor="525.60.13", cubin=("8.0", "8.6", "9.0"), ptx=("9.0",))


def ran(sm: str | None, driver: str | None, verdict: str = "pass", **more: Any) -> SuiteResult:
    values = {"suite": "gpu", "at": "2026-11-20T10:00:00Z", "probe": PROBE, "gpu": "x", **more}
    evidence = sha256(f"{sm} {driver} {verdict} {sorted(more.items())}".encode())
    # Verdicts of newer versions reach us by documents; here they are set as they are.
    made = SuiteResult(verdict="pass", evidence=evidence, sm=sm, driver=driver, **values)
    return made.model_copy(update={"verdict": verdict})


def image(*tests: SuiteResult, label: Label = CU128, name: str = "i") -> Image:
    return Image(name=name, probe=PROBE, label=label, tests=tests)


def covered(*tests: SuiteResult, label: Label = CU128, now: str = NOW) -> Coverage:
    return coverage(image(*tests, label=label), GRID, now=now, max_age_days=DAYS)


def answer(found: Coverage, sm: str, number: int) -> str | None:
    group = found.at(sm, number)
    return group.answer if group else None


def row(found: Coverage, sm: str) -> str:
    """The answers for one capability by branch, by first letter; a dot where there is none."""
    return "".join((answer(found, sm, b.number) or ".")[0] for b in GPUS.branches)


def test_without_a_test_the_rules_alone_decide() -> None:
    found = covered()
    assert {sm: row(found, sm) for sm in ("6.0", "8.0", "8.9", "9.0")} == {
        "6.0": "bbbbbb.",
        "8.0": "buuuuuu",
        "8.9": "buuuuuu",
        "9.0": "buuuuuu",
    }
    old, newer = found.at("8.0", 520), found.at("6.0", 580)
    assert old is not None
    assert newer is not None
    assert (old.rules, newer.rules) == (("driver-floor",), ("kernel-none",))


def test_blackwell_needs_its_kernels_or_ptx_that_the_driver_compiles() -> None:
    cu126 = Label(cuda="12.6", driver_floor="525.60.13", cubin=("9.0",))
    assert row(covered(label=cu126), "12.0") == "....bbb"
    assert row(covered(), "12.0") == "....uuu"


def test_pascal_is_dropped_by_cuda_13_whatever_is_shipped() -> None:
    cu130 = Label(cuda="13.0", driver_floor="580.65.06", cubin=None)
    group = covered(label=cu130).at("6.0", 580)
    assert group is not None
    assert (group.answer, group.rules) == ("bad", ("gpu-dropped",))


def test_a_pass_carries_to_the_same_cubin_and_newer_drivers_of_the_same_rule() -> None:
    found = covered(ran("8.6", "555.42.02"))
    assert row(found, "8.6") == "butiuuu"
    assert row(found, "8.9") == "buiiuuu"
    assert row(found, "8.0") == row(found, "9.0") == "buuuuuu"
    group = found.at("8.9", 560)
    assert group is not None
    assert group.rules == ("kernel-cubin", "driver-minor")
    assert [test.pair for test in group.tests] == [("8.6", 555)]


def test_a_native_pass_says_nothing_of_minor_version_compatibility() -> None:
    assert row(covered(ran("8.9", "570.86.10")), "8.6") == "buuuiii"


def test_an_inference_names_the_nearest_test() -> None:
    found = covered(ran("8.6", "570.1"), ran("8.9", "580.1"), ran("8.6", "590.1"))
    group, other = found.at("8.9", 590), found.at("8.9", 570)
    assert group is not None
    assert other is not None
    assert [test.pair for test in group.tests] == [("8.9", 580)]
    assert [test.pair for test in other.tests] == [("8.6", 570)]


def test_ptx_carries_nothing() -> None:
    label = Label(cuda="12.8", driver_floor="525.60.13", cubin=(), ptx=("8.0",))
    found = covered(ran("8.6", "570.86.10"), label=label)
    assert row(found, "8.6") == "bbbbtuu"
    assert row(found, "8.9") == "bbbbuuu"


def test_ptx_of_one_version_is_compiled_by_the_driver_before() -> None:
    label = Label(cuda="12.6", driver_floor="525.60.13", cubin=(), ptx=("8.0",))
    assert row(covered(label=label), "9.0") == "bbuuuuu"
    later = Label(cuda="13.4", driver_floor="580.65.06", cubin=(), ptx=("8.0",))
    group = covered(label=later).at("9.0", 590)
    assert group is not None
    assert (group.answer, group.rules) == ("untested", ("ptx-version",))


@pytest.mark.parametrize("verdict", ["not-run", "bad-host", "maybe"])
def test_what_did_not_run_the_image_is_no_test(verdict: str) -> None:
    assert covered(ran("8.6", "570.1", verdict)) == covered()
    both = (ran("8.6", "570.1"), ran("8.6", "570.2", verdict, at="2026-11-21T10:00:00Z"))
    assert covered(*both) == covered(both[0])


def test_the_contents_are_no_gpu_test() -> None:
    assert covered(ran("8.6", "570.1", suite="contents")) == covered()


@pytest.mark.parametrize(
    ("sm", "driver"), [(None, "570.1"), ("8.6", None), ("sm_86", "570.1"), ("8.6", "new")]
)
def test_a_test_without_a_place_speaks_for_none(sm: str | None, driver: str | None) -> None:
    assert covered(ran(sm, driver)) == covered()


def test_a_failure_stands_until_a_later_pass() -> None:
    failed = ran("8.6", "570.1", "fail", at="2026-11-20T10:00:00Z")
    assert row(covered(failed), "8.6") == "buuubuu"
    later, earlier, same = (
        ran("8.6", "570.2", at=at)
        for at in ("2026-11-21T10:00:00Z", "2026-11-19T10:00:00Z", "2026-11-20T10:00:00Z")
    )
    assert row(covered(failed, later), "8.6") == "buuutii"
    assert row(covered(failed, earlier), "8.6") == row(covered(failed, same), "8.6") == "buuubuu"
    group = covered(earlier, failed).at("8.6", 570)
    assert group is not None
    assert [test.evidence for test in group.tests] == [failed.evidence]


def test_a_failure_on_the_way_ends_an_inference() -> None:
    first, newer = ran("8.6", "570.1"), ran("8.6", "580.1", "fail")
    found = covered(first, newer)
    assert (row(found, "8.6"), row(found, "8.9")) == ("buuutbu", "buuuiuu")
    found = covered(first, ran("8.9", "580.1", "fail"))
    assert (row(found, "8.6"), row(found, "8.9")) == ("buuutii", "buuuibu")
    found = covered(ran("8.6", "580.1"), ran("8.6", "570.1", "fail"))
    assert (row(found, "8.6"), row(found, "8.9")) == ("buuubti", "buuuuii")


def test_evidence_of_another_probe_is_stale_and_says_so() -> None:
    old = ran("8.6", "570.1", probe=OTHER_PROBE)
    found = covered(old)
    assert row(found, "8.6") == row(found, "8.9") == "buuuuuu"
    for sm, number in (("8.6", 570), ("8.9", 590)):
        group = found.at(sm, number)
        assert group is not None
        assert [(test.evidence, test.stale) for test in group.tests] == [(old.evidence, "probe")]
    assert row(covered(old, ran("8.6", "570.2", at="2026-11-01T10:00:00Z")), "8.6") == "buuutii"


@pytest.mark.parametrize(
    ("at", "stale", "age"),
    [
        ("2026-08-25T10:00:00Z", None, 90),
        ("2026-08-25T09:59:59Z", "age", 90),
        ("2026-08-24T09:00:00.123456789Z", "age", 91),
        ("2026-11-24T09:00:00Z", None, 0),
        ("2026-11-25T09:00:00Z", "time", None),
        ("9999-12-31T23:59:59Z", "time", None),
        ("2026-99-99T10:00:00Z", "time", None),
        ("0000-01-01T00:00:00Z", "time", None),
    ],
)
def test_evidence_ages(at: str, stale: str | None, age: int | None) -> None:
    group = covered(ran("8.6", "570.1", at=at)).at("8.6", 570)
    assert group is not None
    assert group.answer == ("untested" if stale else "tested")
    assert [(test.stale, test.age_days) for test in group.tests] == [(stale, age)]


def test_a_stale_failure_is_one_still() -> None:
    failed = ran("8.6", "570.1", "fail", probe=OTHER_PROBE)
    group = covered(failed).at("8.6", 570)
    assert group is not None
    assert (group.answer, group.tests[0].stale) == ("bad", "probe")
    cleared = covered(failed, ran("8.6", "570.2", at="2026-11-21T10:00:00Z", probe=OTHER_PROBE))
    assert answer(cleared, "8.6", 570) == "untested"


def test_a_pass_stands_against_a_rule_and_names_it() -> None:
    found = covered(ran("8.6", "520.1"))
    group = found.at("8.6", 520)
    assert group is not None
    assert (group.answer, group.rules) == ("tested", ("driver-floor",))
    assert row(found, "8.9") == "buuuuuu"


def test_tests_on_pairs_without_facts_are_shown_and_carry_nothing() -> None:
    found = covered(
        ran("8.6", "565.1", "fail"), ran("13.0", "615.1"), ran("8.6", "615.1", probe=OTHER_PROBE)
    )
    assert answer(found, "8.6", 565) == "bad"
    assert answer(found, "8.9", 565) is None
    assert answer(found, "13.0", 615) == "tested"
    assert answer(found, "8.6", 615) == "untested"
    assert row(found, "8.6") == "buuuuuu"


def test_unknown_kernels_are_neither_claimed_nor_refused() -> None:
    unknown = Label(cuda="12.8", driver_floor="525.60.13", cubin=None)
    found = covered(ran("8.6", "570.1"), label=unknown)
    assert row(found, "8.6") == "buuutuu"
    group = found.at("8.6", 590)
    assert group is not None
    assert group.rules == ("kernel-none",)


@pytest.mark.parametrize("label", [("12.8rc1", "525"), ("12.8", "new"), ("", "")])
def test_versions_that_cannot_be_compared_leave_everything_open(label: tuple[str, str]) -> None:
    found = covered(label=Label(cuda=label[0], driver_floor=label[1], cubin=("8.0",)))
    assert {row(found, sm) for sm in ("8.0", "8.6")} == {"uuuuuuu"}


def test_now_has_to_be_a_time() -> None:
    with pytest.raises(ValueError, match="is no time"):
        covered(now="yesterday")


def test_the_document_is_compact_stable_and_without_ages() -> None:
    tests = (ran("8.6", "570.1"), ran("9.0", "535.1", probe=OTHER_PROBE))
    found = covered(*tests).to_json()
    assert found == covered(*reversed(tests)).to_json()
    assert found == covered(*tests, now="2026-11-30T10:00:00Z").to_json()
    assert found["probe"] == PROBE
    assert found["max_age_days"] == DAYS
    ref = {"evidence": tests[0].evidence, "sm": "8.6", "driver": "570.1", "at": tests[0].at}
    assert found["groups"][0] == {
        "answer": "tested",
        "sm": ["8.6"],
        "drivers": [[570, 570]],
        "tests": [ref],
    }
    assert {"answer": "bad", "sm": ["6.0"], "drivers": [[535, 580]], "rules": ["kernel-none"]} in (
        found["groups"]
    )


SMS = [c.sm for c in GPUS.capabilities]
BRANCHES = [b.number for b in GPUS.branches]
TARGETS = ["8.0", "8.6", "9.0", "9.0a", "12.0", "12.0f"]
LABELS = st.builds(
    Label,
    cuda=st.sampled_from(["11.8", "12.2", "12.6", "12.8", "13.0", "13.4"]),
    driver_floor=st.sampled_from(["450.80.02", "525.60.13", "580.65.06"]),
    cubin=st.none() | st.lists(st.sampled_from(TARGETS), unique=True).map(tuple),
    ptx=st.lists(st.sampled_from(TARGETS), unique=True, max_size=2).map(tuple),
)
PLACES = st.tuples(st.sampled_from([*SMS, "13.0"]), st.sampled_from([*BRANCHES, 565, 615]))
TIMES = st.sampled_from([f"2026-{month:02}-20T10:00:00Z" for month in (6, 9, 10, 11)])
VERDICTS = st.sampled_from(["pass", "pass", "pass", "fail", "not-run", "bad-host"])


@st.composite
def any_test(draw: st.DrawFn) -> SuiteResult:
    sm, number = draw(PLACES)
    return ran(
        sm,
        f"{number}.{draw(st.integers(1, 3))}",
        draw(VERDICTS),
        at=draw(TIMES),
        probe=draw(st.sampled_from([PROBE, PROBE, OTHER_PROBE])),
    )


@settings(max_examples=80, deadline=None)
@given(LABELS, st.lists(any_test(), max_size=8))
def test_groups_hold_every_pair_once_and_answer_as_the_words_say(
    label: Label, tests: list[SuiteResult]
) -> None:
    found = covered(*tests, label=label)
    ran_on = [test for test in tests if test.verdict in {"pass", "fail"}]
    # A range says nothing of a branch between its ends that nobody knows.
    known = {*BRANCHES, *(place(test)[1] for test in ran_on)}
    for sm, number in product([*SMS, "13.0"], known):
        ours = [test for test in ran_on if place(test) == (sm, number)]
        exists = GRID.find((sm, number)) is not None
        holding = [group for group in found.groups if group.holds(sm, number)]
        assert len(holding) == (1 if exists or ours else 0)
        for group in holding:
            if group.answer in {"tested", "inferred"}:
                assert group.tests
                assert all(test.passed and not test.stale for test in group.tests)
            elif group.answer == "bad":
                assert group.rules or any(test.verdict == "fail" for test in ours)
            else:
                assert all(test.passed and test.stale for test in group.tests)
            assert group.answer != "tested" or any(test.verdict == "pass" for test in ours)
    assert {rule for group in found.groups for rule in group.rules} <= set(facts().rules)


@settings(max_examples=60, deadline=None)
@given(LABELS, st.lists(any_test(), max_size=6))
def test_an_entry_holds_the_document_as_it_is(label: Label, tests: list[SuiteResult]) -> None:
    document = covered(*tests, label=label).to_json()
    text = json.dumps(entry().to_json() | {"coverage": document})
    assert Entry.model_validate_json(text).to_json()["coverage"] == document


def test_an_entry_keeps_what_a_newer_coverage_says() -> None:
    document = covered(ran("8.6", "570.1")).to_json()
    document["later"] = 1
    document["groups"][0]["later"] = [2]
    document["groups"][0]["tests"][0]["later"] = {"three": 3}
    text = json.dumps(entry().to_json() | {"coverage": document})
    assert Entry.model_validate_json(text).to_json()["coverage"] == document


def place(test: SuiteResult) -> tuple[str | None, int]:
    return test.sm, int((test.driver or "0").partition(".")[0])


def test_an_entry_as_an_image() -> None:
    sm = Sm(cubin=("8.0",), ptx=("9.0",), source="s")
    found = image_of(entry(sm=sm), PROBE)
    assert found.label == Label(cuda="12.9", driver_floor="525.60.13", cubin=("8.0",), ptx=("9.0",))
    assert found.tests == entry().tests
    assert image_of(entry(), PROBE).label.cubin is None
    nothing = Sm(cubin=(), source="compiled at run time")
    assert image_of(entry(sm=nothing), PROBE).label.cubin is None


def hosts(*places: tuple[str, int]) -> list[Host]:
    return [Host(sm=sm, driver=number) for sm, number in places]


def planned(one: Image, *places: tuple[str, int]) -> list[tuple[str, int]]:
    plan = cover([one], hosts(*places), GRID, now=NOW, max_age_days=DAYS)
    return [test.host.pair for test in plan.tests]


def test_one_host_per_kernel_and_driver_rule_is_enough() -> None:
    everywhere = [(sm, number) for sm in SMS for number in BRANCHES if GRID.find((sm, number))]
    plan = planned(image(label=Label(**_plain(CU128), ptx=())), *everywhere)
    assert plan == [(sm, number) for sm in ("8.0", "8.6", "9.0") for number in (535, 570)]


def _plain(label: Label) -> dict[str, Any]:
    return {"cuda": label.cuda, "driver_floor": label.driver_floor, "cubin": label.cubin}


def test_the_host_with_the_older_driver_is_taken() -> None:
    assert planned(image(), ("8.6", 580), ("8.9", 570), ("8.6", 590)) == [("8.9", 570)]


def test_of_hosts_that_are_worth_the_same_the_first_is_taken() -> None:
    assert planned(image(), ("8.9", 570), ("8.6", 570)) == [("8.9", 570)]
    assert planned(image(), ("8.6", 570), ("8.9", 570), ("8.6", 570)) == [("8.6", 570)]


def test_fresh_evidence_is_done_and_stale_evidence_is_not() -> None:
    assert planned(image(ran("8.6", "570.1")), ("8.9", 570), ("8.9", 580)) == []
    assert planned(image(ran("8.6", "580.1")), ("8.9", 570), ("8.9", 590)) == [("8.9", 570)]
    stale = ran("8.6", "570.1", probe=OTHER_PROBE)
    assert planned(image(stale), ("8.9", 570)) == [("8.9", 570)]


def test_a_fresh_failure_is_known_and_a_stale_one_is_asked_again() -> None:
    assert planned(image(ran("8.6", "570.1", "fail")), ("8.6", 570)) == []
    stale = ran("8.6", "570.1", "fail", probe=OTHER_PROBE)
    assert planned(image(stale), ("8.6", 570)) == [("8.6", 570)]


def test_ptx_needs_every_pair() -> None:
    label = Label(cuda="12.8", driver_floor="525.60.13", cubin=(), ptx=("8.0",))
    places = [("8.6", 570), ("8.6", 580), ("8.9", 570)]
    assert planned(image(label=label), *places, ("8.9", 535)) == places


def test_what_stays_uncovered_says_why() -> None:
    plan = cover(
        [image(ran("8.6", "580.1", "fail")), image(label=Label(**_plain(CU128) | {"cubin": None}))],
        hosts(("8.6", 570), ("9.0", 580), ("9.0", 615), ("13.0", 570), ("12.0", 560)),
        GRID,
        now=NOW,
        max_age_days=DAYS,
    )
    reasons = {(u.kernel, u.sm, u.drivers): u.reason for u in plan.uncovered}
    minor = "no host whose GPU loads {} has a driver of the rule driver-minor"
    way = "a failed test stands in the way for sm_86"
    assert reasons == {
        ("sm_80", ("8.0",), ((535, 590),)): "no host's GPU loads sm_80",
        ("sm_86", ("8.6", "8.9"), ((535, 560),)): minor.format("sm_86"),
        ("sm_86", ("8.6",), ((590, 590),)): way,
        ("sm_86", ("8.9",), ((580, 590),)): way,
        ("sm_90", ("9.0",), ((535, 560),)): minor.format("sm_90"),
        ("sm_90", ("9.0",), ((570, 570),)): (
            "hosts whose GPU loads sm_90 have driver branch 580 or newer ones"
        ),
        ("compute_90", ("12.0",), ((570, 590),)): (
            "each driver compiles compute_90 anew: only a host with the very pair tells"
        ),
        (None, (), ()): "its kernels are not known, so it claims nothing",
    }
    assert [reason for _, reason in plan.unusable] == [
        "no facts about driver branch 615",
        "no facts about compute capability 13.0",
        "driver branch 560 does not know compute capability 12.0",
    ]
    assert json.loads(json.dumps(plan.to_json())) == plan.to_json()


def test_images_are_planned_in_their_order() -> None:
    names = ["b", "a", "c"]
    plan = cover(
        [image(name=name) for name in names],
        hosts(("9.0", 570), ("8.6", 570)),
        GRID,
        now=NOW,
        max_age_days=DAYS,
    )
    assert [(test.image, test.host.sm) for test in plan.tests] == [
        (name, sm) for name in names for sm in ("9.0", "8.6")
    ]


def known_after(one: Image, passed: Sequence[Host]) -> frozenset[tuple[str, int]]:
    """The pairs that are tested or inferred once these hosts have passed."""
    later = [
        ran(host.sm, f"{host.driver}.9", at="2026-11-23T09:00:00Z", gpu=str(host))
        for host in passed
    ]
    found = covered(*one.tests, *later, label=one.label)
    claimed = covered(label=one.label)
    return frozenset(
        (sm, number)
        for sm in SMS
        for number in BRANCHES
        if answer(found, sm, number) in {"tested", "inferred"}
        and answer(claimed, sm, number) == "untested"
    )


@settings(max_examples=120, deadline=None)
@given(
    LABELS.filter(lambda label: label.cubin is not None),
    st.lists(any_test(), max_size=5),
    st.lists(st.tuples(st.sampled_from(SMS), st.sampled_from(BRANCHES)), max_size=5, unique=True),
)
def test_no_fewer_tests_tell_as_much(
    label: Label, tests: list[SuiteResult], places: list[tuple[str, int]]
) -> None:
    # A failure that a plan's own test would clear, or that already stands there, is no part of
    # the promise: what a pass tells is counted with the failures that stand now.
    one = image(*(t for t in tests if t.verdict != "fail" or place(t) not in places), label=label)
    offered = hosts(*(found for found in places if GRID.find(found)))
    unsure = Grid(GPUS).claims(label)
    offered = [
        host for host in offered if (n := GRID.find(host.pair)) is not None and unsure.yes >> n & 1
    ]
    plan = cover([one], offered, GRID, now=NOW, max_age_days=DAYS)
    chosen = [test.host for test in plan.tests]
    everything = known_after(one, offered)
    assert known_after(one, chosen) == everything
    if chosen:
        for fewer in combinations(offered, len(chosen) - 1):
            assert known_after(one, fewer) != everything


def bits(members: set[int]) -> int:
    return sum(1 << member for member in members)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(0, 2**9 - 1), max_size=8)
    | st.lists(st.sets(st.integers(0, 5), min_size=2, max_size=2).map(bits), max_size=9)
)
def test_the_smallest_choice_is_the_smallest(sets: list[int]) -> None:
    def union(chosen: Sequence[int]) -> int:
        found = 0
        for index in chosen:
            found |= sets[index]
        return found

    everything = union(range(len(sets)))
    sizes = range(len(sets) + 1)
    best = next(
        size
        for size in sizes
        if any(union(c) == everything for c in combinations(range(len(sets)), size))
    )
    chosen = smallest(sets)
    assert union(chosen) == everything
    assert len(chosen) == best
    assert list(chosen) == sorted(set(chosen))


@pytest.mark.parametrize(
    ("sets", "chosen"),
    [
        # Greedy would take the first, which has the most, and then both others.
        ([0b001111, 0b010011, 0b101100], (1, 2)),
        # A ring: no member forces a choice, so it has to be searched.
        ([0b0011, 0b0110, 0b1100, 0b1001], (0, 2)),
        ([0b00011, 0b00110, 0b01100, 0b11000, 0b10001], (0, 1, 3)),
        # Going on with the first set that holds member 0 would need three.
        ([0b001011, 0b000111, 0b111000, 0b011100, 0b100110], (1, 2)),
        ([0, 0], ()),
        ([], ()),
    ],
)
def test_what_greed_would_miss_is_found(sets: list[int], chosen: tuple[int, ...]) -> None:
    assert smallest(sets) == chosen


def test_without_facts_only_the_tests_themselves_are_known() -> None:
    empty = coverage(image(ran("8.6", "570.1")), Gpus(), now=NOW, max_age_days=DAYS)
    assert [group.answer for group in empty.groups] == ["tested"]
