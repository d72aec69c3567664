"""Gates, names, and what a second look changes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.version import Version

from curator.index import Driver, Entry, Stack, Status, SuiteResult, entry_id
from curator.oci import hex_of, sha256
from curator.policy import (
    DECIDED,
    admitted,
    floating_tags,
    gates,
    immutable_tag,
    moving_tags,
    reconciled,
    repository,
)

if TYPE_CHECKING:
    from curator.index import Outcome, State

OUTCOMES: list[Outcome] = ["pass", "fail", "not-run"]


def result(suite: str = "contents", at: str = "2026-11-23T10:00:00Z", **more: Any) -> SuiteResult:
    values: dict[str, Any] = {
        "verdict": "pass",
        "evidence": sha256(f"{suite} {at} {more}".encode()),
        "probe": "0" * 64,
    }
    return SuiteResult(suite=suite, at=at, **(values | more))


def draft(
    version: str = "2.9.1",
    cuda: str = "12.8",
    python: str = "3.12",
    platform: str = "linux/amd64",
    build: int = 1,
    **changes: Any,
) -> Entry:
    suffix = "" if platform == "linux/amd64" else "-" + platform.partition("/")[2]
    cell = f"pytorch-{version}-cuda{cuda}-py{python}{suffix}"
    recipe = hex_of(sha256(f"{cell} {build}".encode()))
    digest = sha256(f"image {recipe}".encode())
    values: dict[str, Any] = {
        "id": entry_id(cell, recipe),
        "cell": cell,
        "digest": digest,
        "platform_digest": digest,
        "repository": "staging/pytorch",
        "platforms": (platform,),
        "size": 1,
        "stack": Stack(framework="pytorch", version=version, cuda=cuda, python=python),
        "driver": Driver(min="525.60.13", rule="r"),
        "tests": (result(),),
        "base": "b@1",
        "recipe": recipe,
        "lock": sha256(b"lock"),
        "created": "2026-11-23T09:00:00Z",
        "status": Status(state="unpublished"),
        "published": "2026-11-23T11:00:00Z",
    }
    return Entry(**(values | changes))


Found = tuple["Outcome", "Outcome"]
STABLE: Found = ("pass", "pass")
CANDIDATE: Found = ("pass", "not-run")
REFUSED: Found = ("fail", "not-run")
BROKEN: Found = ("pass", "fail")


def looked(found: Found, at: str = "2026-11-23T10:00:00Z", sm: str = "9.0") -> Any:
    """Return the tests of one report: of the contents, and on a GPU."""
    return tuple(
        result(suite, at=at, verdict=verdict, sm=sm, driver="580.1")
        for suite, verdict in zip(("contents", "gpu"), found, strict=True)
    )


def judged(entry: Entry, found: Found, at: str = "2026-11-23T10:00:00Z", sm: str = "9.0") -> Entry:
    return admitted(entry.model_copy(update={"tests": looked(found, at, sm)}))


def stable(*args: Any, **more: Any) -> Entry:
    return judged(draft(*args, **more), STABLE)


def in_state(entry: Entry, state: State) -> Entry:
    return entry.model_copy(update={"status": Status(state=state)})


@pytest.mark.parametrize("contents", OUTCOMES)
@pytest.mark.parametrize("gpu", OUTCOMES)
def test_gates(contents: Outcome, gpu: Outcome) -> None:
    verdict = gates(looked((contents, gpu)))
    if contents != "pass" or gpu == "fail":
        assert (verdict.channel, verdict.state) == (None, "unpublished")
    elif gpu == "pass":
        assert (verdict.channel, verdict.state, verdict.reasons) == ("stable", "active", ())
    else:
        assert (verdict.channel, verdict.state) == ("candidate", "candidate")
    assert bool(verdict.reasons) == (verdict.channel != "stable")


def test_every_failed_gate_is_named() -> None:
    verdict = gates(looked(("not-run", "fail")))
    assert [reason.partition(":")[0] for reason in verdict.reasons] == ["contents", "gpu"]


def test_channels_are_repositories() -> None:
    assert [repository("jax", channel) for channel in ("stable", "candidate", None)] == [
        "jax",
        "candidate/jax",
        "staging/jax",
    ]


def test_admitted_entries_carry_their_immutable_tag() -> None:
    entry = judged(draft(), CANDIDATE)
    assert entry.tags == (f"2.9.1-cuda12.8-py3.12-{entry.recipe[:12]}",)
    assert entry.repository == "candidate/pytorch"
    assert entry.status.reason == "gpu: not-run, the stable channel asks for a pass"
    assert judged(draft(), REFUSED).tags == ()


def test_names_of_a_release() -> None:
    assert moving_tags(draft()) == ("2.9.1-cuda12.8-py3.12", "2.9-cuda12", "2.9")


def test_another_platform_is_in_every_name() -> None:
    entry = draft(platform="linux/arm64")
    assert moving_tags(entry) == ("2.9.1-cuda12.8-py3.12-arm64", "2.9-cuda12-arm64", "2.9-arm64")
    assert immutable_tag(entry) == f"2.9.1-cuda12.8-py3.12-arm64-{entry.recipe[:12]}"


def test_a_pre_release_has_its_full_name_only() -> None:
    assert moving_tags(draft("2.10.0rc1")) == ("2.10.0rc1-cuda12.8-py3.12",)


def test_a_local_version_fits_into_a_tag() -> None:
    assert immutable_tag(draft("2.9.1+cu128")).startswith("2.9.1_cu128-cuda12.8-py3.12-")


def test_versions_are_compared_as_versions() -> None:
    tags = floating_tags([stable("2.9.9"), stable("2.9.10"), stable("2.9.10", cuda="12.10")])
    assert tags["pytorch:2.9"] == stable("2.9.10", cuda="12.10").digest


def test_newest_framework_then_cuda_then_python() -> None:
    entries = [
        stable("2.9.1", "12.8", "3.9"),
        stable("2.9.1", "12.8", "3.13"),
        stable("2.9.0", "13.0", "3.13"),
    ]
    tags = floating_tags(entries)
    assert tags["pytorch:2.9"] == tags["pytorch:2.9-cuda12"] == entries[1].digest
    assert tags["pytorch:2.9-cuda13"] == entries[2].digest


def test_the_last_published_build_of_a_cell_wins() -> None:
    old = stable(build=1, published="2026-11-23T11:00:00Z")
    new = stable(build=2, published="2026-11-24T11:00:00Z")
    assert set(floating_tags([new, old]).values()) == {new.digest}


@pytest.mark.parametrize("state", ["yanked", "quarantined", "unpublished", "expired"])
def test_tags_fall_back_from_what_is_withdrawn(state: State) -> None:
    old, new = stable("2.9.0"), in_state(stable("2.9.1"), state)
    tags = floating_tags([old, new])
    assert tags["pytorch:2.9"] == old.digest
    assert new.digest not in tags.values()


def test_a_deprecated_image_keeps_only_the_names_that_nothing_else_can_have() -> None:
    old, new = stable("2.9.0"), in_state(stable("2.9.1"), "deprecated")
    tags = floating_tags([old, new])
    assert tags["pytorch:2.9"] == old.digest
    assert tags["pytorch:2.9.1-cuda12.8-py3.12"] == new.digest


def test_channels_do_not_mix() -> None:
    tags = floating_tags([stable("2.9.0"), judged(draft("2.9.1"), CANDIDATE)])
    assert tags["pytorch:2.9"] == draft("2.9.0").digest
    assert tags["candidate/pytorch:2.9"] == draft("2.9.1").digest


@st.composite
def any_entry(draw: st.DrawFn) -> Entry:
    entry = draft(
        draw(st.sampled_from(["2.9.0", "2.9.1", "2.9.10", "2.10.0", "2.10.0rc1"])),
        draw(st.sampled_from(["12.6", "12.10", "13.0"])),
        draw(st.sampled_from(["3.9", "3.13"])),
        draw(st.sampled_from(["linux/amd64", "linux/arm64"])),
        draw(st.integers(1, 3)),
        published=f"2026-01-0{draw(st.integers(1, 3))}T00:00:00Z",
    )
    entry = judged(entry, draw(st.sampled_from([STABLE, CANDIDATE, REFUSED])))
    states: list[State] = ["yanked", "deprecated"]
    return in_state(entry, draw(st.sampled_from(states))) if draw(st.booleans()) else entry


ENTRIES = st.lists(any_entry(), max_size=10, unique_by=lambda entry: entry.id)


@settings(max_examples=60, deadline=None)
@given(entries=ENTRIES, seed=st.randoms(use_true_random=False))
def test_tags_do_not_depend_on_the_order_of_entries(entries: list[Entry], seed: Any) -> None:
    shuffled = list(entries)
    seed.shuffle(shuffled)
    assert floating_tags(shuffled) == floating_tags(entries)


@settings(max_examples=60, deadline=None)
@given(entries=ENTRIES)
def test_a_tag_names_the_best_image_that_may_have_it(entries: list[Entry]) -> None:
    eligible = [entry for entry in entries if entry.channel and entry.status.state != "yanked"]
    tags = floating_tags(entries)
    names = {f"{entry.repository}:{tag}" for entry in eligible for tag in moving_tags(entry)}
    assert set(tags) == names
    for name, digest in tags.items():
        rivals = [e for e in eligible if name in {f"{e.repository}:{t}" for t in moving_tags(e)}]
        (chosen,) = [entry for entry in rivals if entry.digest == digest]
        best = [e for e in rivals if e.status.state != "deprecated"] or rivals
        assert chosen in best
        newest = max(Version(entry.stack.version) for entry in best)
        assert Version(chosen.stack.version) == newest


@settings(max_examples=40, deadline=None)
@given(entries=ENTRIES)
def test_yanking_is_as_if_the_image_were_not_there(entries: list[Entry]) -> None:
    for number, entry in enumerate(entries):
        others = [*entries[:number], *entries[number + 1 :]]
        assert floating_tags([*others, in_state(entry, "yanked")]) == floating_tags(others)


def test_a_report_that_tells_nothing_new_changes_nothing() -> None:
    old = stable()
    assert reconciled(old, judged(draft(published=None, size=9), STABLE)) is old


def test_tests_on_other_hosts_are_kept_and_older_ones_of_the_same_host_replaced() -> None:
    old = draft(tests=(result(), result("gpu", sm="8.0"), result("gpu", sm="9.0")))
    later = "2026-11-24T10:00:00Z"
    new = draft(tests=(result(at=later), result("gpu", at=later, sm="9.0")))
    found = [(test.suite, test.sm, test.at == later) for test in reconciled(old, new).tests]
    assert found == [("contents", None, True), ("gpu", "8.0", False), ("gpu", "9.0", True)]


DAY = "2026-11-24T10:00:00Z"
NEXT_DAY = "2026-11-25T10:00:00Z"


def test_a_host_without_a_gpu_does_not_demote() -> None:
    after = reconciled(stable(), judged(draft(), CANDIDATE, DAY))
    assert (after.channel, after.repository, after.status.state) == ("stable", "pytorch", "active")


def test_a_candidate_is_promoted_by_a_gpu() -> None:
    after = reconciled(judged(draft(), CANDIDATE), judged(draft(), STABLE, DAY))
    assert (after.channel, after.repository, after.status.state) == ("stable", "pytorch", "active")


@pytest.mark.parametrize("found", [REFUSED, BROKEN])
def test_what_fails_later_loses_its_moving_tags_and_keeps_its_name(found: Found) -> None:
    old = stable()
    after = reconciled(old, judged(draft(), found, DAY))
    assert (after.status.state, after.channel) == ("unpublished", None)
    assert (after.repository, after.tags) == (old.repository, old.tags)
    assert floating_tags([after]) == {}
    assert reconciled(after, judged(draft(), STABLE, NEXT_DAY)).channel == "stable"


def test_a_pass_elsewhere_does_not_undo_a_failure() -> None:
    failed = judged(draft(), BROKEN, sm="7.5")
    after = reconciled(failed, judged(draft(), STABLE, DAY))
    assert (after.status.state, after.channel, after.tags) == ("unpublished", None, ())
    assert after.repository == "staging/pytorch"
    assert after.status.reason.startswith("gpu: fail (sm 7.5, driver 580.1), ")


def test_two_halves_of_a_proof_are_one() -> None:
    """A host that could not tell of the GPU mends what another one could not tell of the rest."""
    first = judged(draft(), ("fail", "pass"))
    after = reconciled(first, judged(draft(), CANDIDATE, DAY))
    assert (after.channel, after.repository, after.tags) == ("stable", "pytorch", stable().tags)


FOUND = st.tuples(*(2 * [st.sampled_from([*OUTCOMES, "bad-host"])]))
REPORTS = st.lists(
    st.builds(
        judged,
        st.just(draft()),
        FOUND,
        st.integers(1, 4).map(lambda day: f"2026-12-0{day}T10:00:00Z"),
        st.sampled_from(["7.5", "9.0"]),
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=150, deadline=None)
@given(reports=REPORTS, seed=st.randoms(use_true_random=False), data=st.data())
def test_neither_order_nor_split_of_reports_decides(
    reports: list[Entry], seed: Any, data: st.DataObject
) -> None:
    def standing(parts: list[list[Entry]]) -> object:
        found: Entry | None = None
        for part in parts:
            tests = tuple(test for entry in part for test in entry.tests)
            found = reconciled(found, admitted(part[0].model_copy(update={"tests": tests})))
        assert found is not None
        names = set(floating_tags([found]))
        return found.status.state, found.status.reason, found.channel, names, found.tests

    shuffled = list(reports)
    seed.shuffle(shuffled)
    cut = data.draw(st.integers(0, len(reports) - 1))
    parts = [part for part in (shuffled[:cut], shuffled[cut:]) if part]
    one_by_one = standing([[report] for report in reports])
    assert standing([[report] for report in shuffled]) == one_by_one
    assert one_by_one == standing([*([report] for report in parts[0]), *parts[1:]])


@pytest.mark.parametrize("state", sorted(DECIDED))
@pytest.mark.parametrize("found", [STABLE, CANDIDATE, BROKEN])
def test_what_a_person_decided_stays(state: State, found: Found) -> None:
    old = in_state(stable(), state)
    after = reconciled(old, judged(draft(), found, DAY))
    assert (after.status, after.tags, after.repository) == (old.status, old.tags, old.repository)
    assert after.channel == (None if found == BROKEN else "stable")
    assert reconciled(after, judged(draft(), STABLE, NEXT_DAY)).channel == "stable"


def test_a_person_can_decide_without_a_new_test() -> None:
    assert reconciled(stable(), in_state(stable(), "yanked")).status.state == "yanked"


def test_what_fails_and_is_decided_on_is_in_no_channel() -> None:
    failed = reconciled(stable(), judged(draft(), BROKEN, DAY))
    after = reconciled(failed, in_state(failed, "deprecated"))
    assert (after.status.state, after.channel) == ("deprecated", None)
    assert floating_tags([after]) == {}


def test_unknown_fields_survive_a_second_look_at_every_level() -> None:
    tree = stable().to_json()
    tree["novelty"] = {"9.0": "tested"}
    for name in ("stack", "driver", "status"):
        tree[name]["note"] = {"in": name}
    old = Entry.model_validate_json(json.dumps(tree))
    after = reconciled(old, judged(draft(), BROKEN, DAY))
    assert after.status.state == "unpublished"
    assert after.extra == {"novelty": {"9.0": "tested"}}
    for part, name in ((after.stack, "stack"), (after.driver, "driver"), (after.status, "status")):
        assert part.extra == {"note": {"in": name}}


def test_another_image_is_not_mixed_with_the_old_one() -> None:
    new = judged(draft(), STABLE, DAY).model_copy(update={"digest": sha256(b"rebuilt")})
    assert reconciled(stable(), new) is new
