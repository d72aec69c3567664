"""The same rules in two languages: what the page answers is what Python answers."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import Version

from curator import resolve as rules
from curator.errors import InputError
from curator.facts import facts
from curator.page import facts_of
from curator.resolve import Gpu, Host, Wishes, judge, why
from tests import images, pages
from tests.cases import CASES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from playwright.sync_api import Page

    from curator.resolve import Catalogue

FACTS = facts()
SMI = Path(__file__).parent.parent / "data/smi"
FIELDS = ("framework", "version", "cuda", "python", "channel", "prefer")


@pytest.fixture(scope="module")
def known() -> Catalogue:
    return pages.shown()


@pytest.fixture(scope="module")
def page(known: Catalogue, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    first = pages.write(known, tmp_path_factory.mktemp("site"))
    with pages.chromium() as browser, pages.opened(browser) as found:
        found.goto(first.as_uri())
        yield found


JUDGE = """([document, hosts, facts]) => {
  const images = rules.read_catalogue(document);
  return hosts.map((host) => images.map((image) => {
    const found = rules.judge(image, host, facts);
    return [rules.judgement_json(found, facts), rules.why(found, facts)];
  }));
}"""
RESOLVE = """([document, asked, facts]) => {
  const images = rules.read_catalogue(document);
  return asked.map(([host, wishes]) =>
    rules.resolution_json(rules.resolve(images, host, wishes, facts), facts));
}"""
WORDS = """(asked) => asked.map(([what, text]) => {
  try {
    return selector.machine[what](text);
  } catch (error) {
    if (!(error instanceof versions.ValueError)) throw error;
    return error.message;
  }
})"""


def to_page(host: Host) -> dict[str, Any]:
    """Return a host as the page's rules take it."""
    return {
        "driver": host.driver,
        "gpus": [gpu_to_page(gpu) for gpu in host.gpus],
        "architecture": host.architecture,
        "docker": host.docker,
    }


def gpu_to_page(gpu: Gpu) -> dict[str, Any]:
    return {"name": gpu.name, "sm": gpu.sm, "kind": gpu.kind}


def judged_alike(page: Page, known: Catalogue, hosts: Sequence[Host]) -> set[tuple[str, str]]:
    """Hold the page's judgements against Python's; return the rules and answers that were met."""
    met: set[tuple[str, str]] = set()
    asked = [json.loads(known.data), [to_page(host) for host in hosts], facts_of(FACTS)]
    for host, row in zip(hosts, page.evaluate(JUDGE, asked), strict=True):
        for one, (found, reason) in zip(known.images, row, strict=True):
            expected = judge(one, host, FACTS)
            assert found == expected.to_json(), (host, one)
            assert reason == why(expected), (host, one)
            met |= {(gate.answer.rule, gate.answer.says) for gate in expected.gates}
    return met


def test_five_thousand_pairs_of_host_and_image_are_judged_alike(page: Page) -> None:
    met: set[tuple[str, str]] = set()
    for seed in range(10):
        dice = random.Random(seed)  # noqa: S311 - the same every time
        known = pages.of([pages.invented_image(dice, number) for number in range(50)])
        met |= judged_alike(page, known, [pages.invented_host(dice) for _ in range(10)])
    possible = {(name, says) for name, rule in FACTS.rules.items() for says in rule.says}
    rare = {
        ("runtime-arch", "unknown"),
        ("runtime-implied", "unknown"),
        ("label-unread", "unknown"),
        ("driver-minor", "no"),
    }
    assert possible - met <= rare


def test_versions_that_no_rule_compares_are_judged_alike(page: Page) -> None:
    odd = [images.label("12.8rc1", ("8.0",)), images.label("12.8", ("8.0",), glibc="2.36+x")]
    known = pages.of([images.image("x", str(place), one) for place, one in enumerate(odd)])
    met = judged_alike(page, known, [images.host("580", "A100")])
    assert {rule for rule, says in met if says != "yes"} == {"label-unread"}


def test_the_cases_of_issues_and_documents_are_answered_alike(page: Page) -> None:
    for case in CASES:
        judged_alike(page, pages.of([case.image]), [case.host])
    assert len(CASES) >= 120


def test_every_kind_of_gpu_is_judged_alike(page: Page, known: Catalogue) -> None:
    kinds = {(one.sm, one.kind): one.name for one in FACTS.products.values()}
    hosts = [
        Host(driver=str(branch), gpus=(Gpu(name=name, sm=sm, kind=kind),))  # type: ignore[arg-type]
        for (sm, kind), name in kinds.items()
        for branch in (450, 470, 535, 570, 580, 610)
    ]
    judged_alike(page, known, hosts)


def test_of_tests_at_the_same_time_the_same_ones_count(page: Page) -> None:
    tests = tuple(images.ran("A100", driver) for driver in ("535.54.03", "550.54.14", "570.26"))
    tests += (images.ran("A100", "535.104.05", verdict="fail"),)
    twice = (images.ran("A100", "580.65.06"), images.ran("H200", "580.65.06"))
    cu128 = images.label("12.8", images.PYTORCH_128)
    known = pages.of(
        [images.image("x", str(number), cu128, tests=found)
         for number, found in enumerate((tests, tests[::-1], twice, twice[::-1]))]
    )  # fmt: skip
    judged_alike(page, known, [images.host("580", "A100"), images.host("580", "A100", "H200")])


def test_what_is_resolved_is_the_same_in_the_same_order(page: Page) -> None:
    versions = [
        "2.10", "2", "==2.9.*", ">=2.9,<2.10", "~=2.9", "!=2.9.1", "<2.10", ">2.9.1", "",
        " >= 2.9 ,<2.10.0rc2", ">=2.10.0rc1", "2.10.0rc1", "!=2.10.0rc1", "\ufeff2.9\xa0",
    ]  # fmt: skip
    for seed in range(20):
        dice = random.Random(seed)  # noqa: S311 - the same every time
        known = pages.of([pages.invented_image(dice, number) for number in range(50)])
        asked = [
            (
                pages.invented_host(dice),
                Wishes(
                    framework=dice.choice([None, None, "pytorch"]),
                    version=dice.choice([None, None, *versions]),
                    cuda=dice.choice([None, None, "12", "12.8", "12.8.1", ">=12.6"]),
                    python=dice.choice([None, None, None, "3.12"]),
                    channel=dice.choice([None, None, "stable"]),
                    prefer=dice.choice(["newest", "fastest"]),
                ),
            )
            for _ in range(10)
        ]
        rows = [
            [to_page(host), {name: getattr(wishes, name) for name in FIELDS}]
            for host, wishes in asked
        ]
        told = page.evaluate(RESOLVE, [json.loads(known.data), rows, facts_of(FACTS)])
        for (host, wishes), found in zip(asked, told, strict=True):
            assert found == rules.resolve(known, host, wishes, FACTS).to_json(), (host, wishes)


def test_what_is_no_version_is_refused_in_the_same_words(page: Page) -> None:
    for wish in ("2..9", "new", "'\u00b2'", "\ufeff2..9\xa0", "2\x07", "=<2"):
        refuse = """(version) => {
          try { rules.resolve([], {gpus: []}, {version}, {branches: {}}); }
          catch (error) { return error.message; }
        }"""
        with pytest.raises(InputError) as refused:
            rules.resolve(pages.of([]), Host(), Wishes(version=wish), FACTS)
        assert page.evaluate(refuse, wish) == str(refused.value)


def python_reads(what: str, text: str) -> Any:
    """Return what Python reads in a text, or the sentence of its refusal."""
    try:
        found: Any = getattr(rules, what)(text)
    except ValueError as error:
        return str(error)
    if isinstance(found, Host):
        told = to_page(found)
        del told["docker"]
        return told
    return gpu_to_page(found) if isinstance(found, Gpu) else found


def assert_read_alike(page: Page, asked: Sequence[tuple[str, str]]) -> None:
    told = page.evaluate(WORDS, [list(pair) for pair in asked])
    for (what, text), found in zip(asked, told, strict=True):
        assert found == python_reads(what, text), (what, text)


def test_what_is_pasted_is_read_alike_whatever_happened_to_it(page: Page) -> None:
    dice = random.Random(0)  # noqa: S311 - the same every time
    asked = []
    for path in sorted(SMI.iterdir()):
        text = path.read_text()
        lines = text.splitlines()
        asked += [text, text.replace("\n", "\r\n"), "\n".join(f"> {line}" for line in lines)]
        asked += [" ".join(text.split()), f"\x1b[1m{text}\x1b[0m", text + text]
        asked += [f"\ufeff{text}", text.replace(" ", "\xa0"), text.replace("\n", dice.choice(ENDS))]
        asked += [strange(text, dice), text + dice.choice(asked)]
        asked += ["\n".join(damaged(lines, dice)) for _ in range(10)]
    asked += ["|   0  Off  | 00000000:01:00.0 Off |", "|   0  | 00000000:01:00.0 Off |"]
    for name in ('"NVIDIA A100"', '"NVIDIA ""X"", 9"', '"NVIDIA A100" x', 'NVIDIA "A100"', '"', ""):
        asked += [f"name, driver_version\n{name}, 535.54.03", f"535.54.03,{name}", f" {name} ,8.0,"]
    assert_read_alike(page, [("pasted", text) for text in asked])


STRANGE = (
    "\u00a0\u200b\ufeff\u2009\x85\x1c\x1f\x0b\t\u2122\u2019'\"\\\u0130\u0131"
    "\u212a\u017f\u00b2\x00\U0001f600"
)
ENDS = ("\r", "\x85", "\x0b", "\u2028")


def strange(text: str, dice: random.Random) -> str:
    """Return a text with letters in it that languages take for different things."""
    letters = list(text)
    for _ in range(dice.randint(1, 4)):
        letters.insert(dice.randrange(len(letters) + 1), dice.choice(STRANGE))
    return "".join(letters)


def damaged(lines: Sequence[str], dice: random.Random) -> list[str]:
    """Return lines of which some are lost, cut, doubled, or have a letter too much."""
    left = list(lines)
    for _ in range(dice.randint(1, 6)):
        place = dice.randrange(len(left))
        line = left[place]
        at = dice.randrange(len(line) + 1)
        letter = dice.choice(['"', ",", "|", " ", "é", "7", ":", "\t", ".."])
        left[place] = dice.choice(
            ["", line[:at], dice.choice(lines), line[:at] + letter + line[at:]]
        )
    return left


def test_names_of_gpus_and_drivers_are_read_alike(page: Page) -> None:
    dice = random.Random(0)  # noqa: S311 - the same every time
    known = [name for one in FACTS.products.values() for name in (one.name, *one.aliases)]
    gpus = [*known, *(f"nvidia {name.lower()} 80GB" for name in known)]
    gpus += [re.sub("[GR]TX ", "", name) for name in known]
    for name in known:
        letters = list(name)
        letters[dice.randrange(len(letters))] = dice.choice("aX7 -'")
        gpus.append("".join(letters))
    gpus += [strange(name, dice) for name in known for _ in range(2)]
    gpus += [f"{name}-{size}" for name in known for size in ("8Q", "1-5C")]
    gpus += ["\U0001f600" * 101, "\ud800", "x\x07y", "GRID T4-16Q", "NVIDIA A40-48Q", "A100-40C"]
    gpus += ["", " ", "sm_80", "8.0", "80", "sm80", "sm_99", "1.0", "compute_90a", "a" * 101, "x'y"]
    drivers = [
        "535",
        "R535",
        "v580.65.06",
        " 535.104.05\n",
        "12.4",
        "cuda 12.8",
        "banana",
        "",
        "535.",
    ]
    drivers += ["999", "1000", "535.1.1.1", "Driver Version: 535.54.03", "nvidia-535-server-open"]
    drivers += [strange(one, dice) for one in drivers for _ in range(3)]
    assert_read_alike(
        page, [*(("gpu", one) for one in gpus), *(("driver", one) for one in drivers)]
    )


VERSIONS = (
    "1", "1.0", "1.0.0", "1.1", "1.10", "1.2", "1.0a1", "1.0a2", "1.0b1", "1.0rc1", "1.0.dev1",
    "1.0a1.dev1", "1.0.post1", "1.0.post1.dev2", "1.0+cu128", "1.0+cu128.1", "1.0+1", "1.0rc1+x",
    "2.0", "1!0.5", "1.0.1", "0.9",
)  # fmt: skip
SIGNS = ("==", "!=", "<=", ">=", "<", ">", "~=", "===")


def in_python(text: str, version: str) -> bool | None:
    """Return whether a set of versions has one; None if it is no set."""
    try:
        return SpecifierSet(text).contains(version, prereleases=True)
    except InvalidSpecifier:
        return None


def test_versions_are_compared_as_packaging_compares_them(page: Page) -> None:
    told = page.evaluate(
        "(all) => all.map((one) => all.map((other) =>"
        " Math.sign(versions.compare(versions.parse(one), versions.parse(other)))))",
        list(VERSIONS),
    )
    for one, row in zip(VERSIONS, told, strict=True):
        for other, found in zip(VERSIONS, row, strict=True):
            left, right = Version(one), Version(other)
            assert found == (left > right) - (left < right), (one, other)


def test_sets_of_versions_have_what_packaging_says(page: Page) -> None:
    texts = [f"{sign}{version}" for sign in SIGNS for version in VERSIONS]
    texts += [f"{sign}{version}.*" for sign in SIGNS for version in ("1", "1.0", "1.1", "1.0a1")]
    texts += ["", ",", ">=1,<1.2", " >= 1.0 , != 1.1 ", "~=1", "~=1.0.0", "=1", "1.0", ">=", "<>1"]
    told = page.evaluate(
        """([texts, all]) => texts.map((text) => {
          let is_in;
          try { is_in = versions.specifier_set(text); } catch { return null; }
          return all.map(is_in);
        })""",
        [texts, list(VERSIONS)],
    )
    for text, row in zip(texts, told, strict=True):
        expected = [in_python(text, version) for version in VERSIONS]
        assert row == (None if expected[0] is None else expected), text
