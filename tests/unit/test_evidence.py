"""Reports as documents: read back as they were written; whatever else is refused by one error."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curator.errors import IntegrityError
from curator.oci import canonical_json, sha256
from curator.smoke import Check, Gpu, HostFacts, Outcome, SmokeReport, Subject

H100 = Gpu(name="H100", uuid="GPU-h", sm="9.0", memory_bytes=80 * 2**30)
V100 = Gpu(name="V100", uuid="GPU-v", sm="7.0", memory_bytes=16 * 2**30)
HOST = HostFacts(gpus=(V100, H100), driver="580.95.05", kernel="6.1", architecture="x86_64")
TOLD = {"gpu": {"uuid": "GPU-h", "sm": "9.0"}, "differences": {"matmul fp32": "0"}, "grew": 5}


def check(name: str, outcome: Outcome = Outcome.PASS, got: Any = None) -> Check:
    return Check(name=name, outcome=outcome, expected={"a": "1"}, got=got, detail="", ms=12)


def document(*checks: Check, **changes: Any) -> SmokeReport:
    whole = SmokeReport(
        subject=Subject(image=sha256(b"image"), cell="demo", recipe_key="0" * 64),
        probe_key="1" * 64,
        host=HOST,
        checks=checks or (check("framework"), check("cuda_tensor", got=TOLD)),
        exit_code=0,
        stderr_tail="a line\nand \N{SNOWMAN}",
        started="2026-11-23T10:00:00Z",
        ended="2026-11-23T10:00:01Z",
        given=("GPU-h",),
    )
    return replace(whole, **changes)


def use(found: SmokeReport) -> None:
    """Ask everything of a report that others ask."""
    assert found.contents in {"pass", "fail", "not-run"}
    assert found.gpu in {"pass", "fail", "not-run", "bad-host"}
    assert found.verdict in {found.contents, found.gpu}
    assert isinstance(found.fault, str)
    assert found.tested_gpu in {None, *found.host.gpus}
    assert isinstance(found.got("cuda_tensor"), dict)
    assert SmokeReport.parse(found.data, "again") == found


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"given": ()},
        {"exit_code": None},
        {"host": HostFacts(gpus=(), driver=None, kernel="", architecture="")},
        {"subject": Subject(image=sha256(b"image"))},
        {"bad_host": "the base fails as well"},
        {"checks": (check("control", Outcome.FAIL, got={"passed": {}}),)},
    ],
)
def test_documents_are_read_back_as_they_were_written(changes: dict[str, Any]) -> None:
    found = document(**changes)
    assert SmokeReport.parse(found.data, "r") == found
    use(found)


@pytest.mark.parametrize(("contents", "gpu"), list(product(Outcome, Outcome)))
def test_a_verdict_is_the_worst_of_both(contents: Outcome, gpu: Outcome) -> None:
    found = document(check("framework", contents), check("cuda_tensor", gpu))
    worst = next(one for one in ("fail", "not-run", "pass") if one in {contents, gpu})
    assert (found.contents, found.gpu, found.verdict) == (contents, gpu, worst)
    blamed = found.blaming("the base fails as well")
    assert blamed.gpu == ("bad-host" if gpu == "fail" else gpu)
    order = ("fail", "bad-host", "not-run", "pass")
    assert blamed.verdict == next(one for one in order if one in {contents, blamed.gpu})
    use(found)
    use(blamed)


def test_speed_opens_and_closes_nothing() -> None:
    slow = document(check("framework"), check("cuda_tensor"), check("speed", Outcome.FAIL))
    assert slow.verdict == "pass"
    assert document(check("framework"), check("speed")).verdict == "not-run"
    assert document(check("cuda_tensor"), check("speed")).contents == "not-run"


def test_a_control_that_passed_is_a_fault_and_one_that_broke_is_not() -> None:
    passed = replace(check("control", Outcome.FAIL, got={"passed": {}}), detail="proves nothing")
    assert document(passed).fault == "proves nothing"
    broke = replace(check("control", Outcome.FAIL), detail="broke before it missed the GPU")
    assert (document(broke).fault, document(broke).contents) == ("", "fail")
    missed = check("control", got={"refused": "no GPU"})
    assert (document(missed).fault, document(missed).contents) == ("", "pass")


def test_the_tested_gpu_is_the_one_that_computed() -> None:
    assert document().tested_gpu == H100
    silent = document(check("cuda_tensor", Outcome.FAIL))
    assert silent.tested_gpu == H100
    assert replace(silent, given=()).tested_gpu == V100
    lies: tuple[object, ...] = ("GPU-x", ["GPU-h"], {}, None, 5)
    for lie in lies:
        told = check("cuda_tensor", Outcome.FAIL, got={"gpu": {"uuid": lie}})
        assert document(told).tested_gpu == H100


def test_another_verdict_than_the_checks_say_is_refused() -> None:
    for outcome, (suite, said) in product(
        Outcome, product(("contents", "gpu"), ("pass", "fail", "not-run", "bad-host", "", None))
    ):
        found = document(check("framework", outcome), check("cuda_tensor", outcome))
        value = found.to_json()
        if value["verdict"][suite] != said:
            value["verdict"][suite] = said
            with pytest.raises(IntegrityError, match="does not say what its checks say"):
                SmokeReport.parse(canonical_json(value), "r")


WRONG: list[tuple[tuple[str | int, ...], Any]] = [
    (("kind",), "dev.curator.smoke-report.v2"),
    (("image",), "latest"),
    (("image",), ["sha256:" + "0" * 64]),
    (("cell",), 5),
    (("recipe",), {}),
    (("exit",), "0"),
    (("exit",), False),
    (("given",), "GPU-h"),
    (("given",), []),
    (("given", 0), 5),
    (("stderr",), "\x1b[31m"),
    (("bad_host",), None),
    (("host", "gpus", 0, "name"), "\x1b]0;title\x07"),
    (("host", "gpus", 0, "memory"), True),
    (("host", "driver"), 580),
    (("checks",), {}),
    (("checks", 0, "outcome"), "passed"),
    (("checks", 0, "detail"), "a\tb"),
    (("checks", 0, "expected"), [["a", "1"]]),
    (("checks", 0, "ms"), "1"),
    (("checks", 0, "ms"), float("inf")),
    (("checks", 0, "ms"), 1e3),
    (("checks", 0, "got"), {"rate": 0.5}),
    (("checks", 0, "got"), "\ud800"),
    (("checks", 0, "name"), "cuda_tensor"),
    (("more",), 1),
    (("checks", 0, "more"), 1),
]


def written(value: object) -> bytes:
    """Return a value as documents are written, floats and lone surrogates too."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode(errors="surrogatepass")


@pytest.mark.parametrize(("path", "value"), WRONG, ids=str)
def test_what_no_run_ever_wrote_is_refused(path: tuple[str | int, ...], value: object) -> None:
    whole: Any = document().to_json()
    place = whole
    for step in path[:-1]:
        place = place[step]
    assert SmokeReport.parse(written(whole), "r")
    place[path[-1]] = value
    with pytest.raises(IntegrityError, match=r"no smoke report of ours|does not say"):
        SmokeReport.parse(written(whole), "r")


def test_a_check_that_is_told_twice_is_refused() -> None:
    value = document().to_json()
    value["checks"].append(value["checks"][0])
    with pytest.raises(IntegrityError, match="told twice"):
        SmokeReport.parse(canonical_json(value), "r")


def test_the_same_values_in_other_bytes_are_no_document() -> None:
    data = document().data
    value = json.loads(data)
    twice = data.replace(b'"exit":0', b'"exit":1,"exit":0')
    assert json.loads(twice) == value
    others = (twice, data + b"\n", data.decode().encode("utf-16"), json.dumps(value).encode())
    for other in (*others, b"\xef\xbb\xbf" + data):
        with pytest.raises(IntegrityError):
            SmokeReport.parse(other, "r")


@pytest.mark.parametrize("levels", [40, 500, 900, 100_000])
@pytest.mark.parametrize("pair", ["[]", "{}"])
def test_what_is_nested_without_end_is_refused(levels: int, pair: str) -> None:
    opened = "[" if pair == "[]" else '{"a":'
    text = document().data.decode().replace('"got":null', f'"got":{opened * levels}1', 1)
    text = text.replace(f"{opened}1", f"{opened}1{pair[1] * levels}", 1)
    with pytest.raises(IntegrityError, match="no smoke report of ours"):
        SmokeReport.parse(text.encode(), "r")


@given(st.data())
@settings(max_examples=300)
def test_damaged_bytes_end_in_one_error(data: st.DataObject) -> None:
    text = bytearray(document().data)
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text) - 1))
        text[start : start + data.draw(st.integers(0, 2))] = data.draw(
            st.one_of(st.binary(max_size=2), st.sampled_from([b" ", b'"', b"1", b"e9", b"{", b","]))
        )
    try:
        found = SmokeReport.parse(bytes(text), "r")
    except IntegrityError:
        return
    assert found.data == bytes(text)
    use(found)


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["pass", "not-run", "GPU-h", "cuda_tensor", "control", "sha256:" + "0" * 64]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["gpu", "uuid", "name", "passed"]), inner, max_size=3)
    ),
    max_leaves=5,
)


@given(st.data())
@settings(max_examples=300)
def test_changed_values_end_in_one_error(data: st.DataObject) -> None:
    # A copy: what a report holds is its own, and another example must not see this one.
    place: Any = {"whole": copy.deepcopy(document().to_json())}
    whole, key = place, "whole"
    while isinstance(place[key], dict | list) and place[key] and data.draw(st.integers(0, 4)):
        place = place[key]
        keys = sorted(place) if isinstance(place, dict) else range(len(place))
        key = data.draw(st.sampled_from(keys))
    place[key] = data.draw(ANYTHING)
    value = whole["whole"]
    try:
        found = SmokeReport.parse(written(value), "r")
    except IntegrityError:
        return
    assert found.to_json() == value
    use(found)
