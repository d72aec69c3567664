"""The static site: what it says of an index, and what no text of an index can do to it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from dataclasses import replace
from importlib.resources import files
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree as ET

import pytest

from curator import derived
from curator.errors import IntegrityError
from curator.facts import facts
from curator.oci import canonical_json, sha256
from curator.page import embedded, facts_of, site
from curator.resolve import Catalogue
from tests.images import PYTORCH_128, image, label, published, ran
from tests.pages import Parsed, files_shown, made, many, of, row, shown, told

if TYPE_CHECKING:
    from curator.resolve import Tested

FACTS = facts()
HOSTILE = "</script><script>alert(1)</script> & \"x\" 'y' <img src=x onerror=alert(1)> {{ 7*7 }}"


def test_the_same_index_makes_the_same_bytes_and_its_document_does_too() -> None:
    known = shown()
    first = dict(site(known, FACTS))
    assert dict(site(known, FACTS)) == first
    assert dict(site(Catalogue.read(known.data), FACTS)) == first
    assert list(first) == sorted(first)


def test_a_new_generation_changes_only_the_pages_of_what_changed() -> None:
    known, before = shown(), files_shown()
    later = replace(known, generation=13, at="2026-12-01T00:00:00Z", sha256=sha256(b"later"))
    changed = {path for path, text in made(later).items() if text != before[path]}
    assert changed == {"index.html", "images.md"}


def test_there_is_a_page_for_each_image_and_files_for_each_framework() -> None:
    known = shown()
    paths = set(files_shown())
    names = {one.framework for one in known.images}
    assert paths == {
        "index.html",
        "page.css",
        "icon.svg",
        "images.md",
        *(f"image/{one.id}.html" for one in known.images),
        *(f"framework/{name}.html" for name in names),
        *(f"badge/{name}.svg" for name in names),
        *(f"renovate/{one.repository}.json" for one in known.images),
    }


def in_store(known: Catalogue) -> set[str]:
    """Return the documents that stand in a store beside the site."""
    reports = [one.contents for one in known.images]
    reports += [test.evidence for one in known.images for test in one.tests]
    return {
        *("v1/index.json", "v1/head.json", "v1/feed.xml"),
        *derived.schemas(),
        *(derived.framework_path(one.framework) for one in known.images),
        *(derived.badge_path(one.framework) for one in known.images),
        *(f"v1/evidence/{report[7:]}.json" for report in reports if report),
    }


@pytest.mark.parametrize("known", [shown(), many(60), of([])], ids=["shown", "many", "empty"])
def test_every_link_leads_to_a_file_or_a_document_of_the_store(known: Catalogue) -> None:
    files = made(known)
    there = {**files, **dict.fromkeys(in_store(known), "")}
    seen = set()
    for path, text in files.items():
        links = Parsed(text).links if path.endswith(".html") else []
        if path == "images.md":
            links = re.findall(r"\]\(([^)]*)\)", text)
        for link in links:
            parts = urlsplit(link)
            assert not parts.scheme, link
            assert not parts.netloc, link
            assert not parts.path.startswith("/"), link
            target = _resolved(path, unquote(parts.path)) if parts.path else path
            assert target in there, f"{path}: {link}"
            if parts.fragment and "=" not in parts.fragment:
                assert parts.fragment in Parsed(files[target]).ids, f"{path}: {link}"
            seen.add(target)
    assert {path for path in files if path.endswith(".html")} <= {*seen, "index.html"}


def _resolved(page: str, link: str) -> str:
    parts: list[str] = []
    for part in (PurePosixPath(page).parent / link).parts:
        if part == "..":
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)


def test_ids_are_unique_and_every_field_has_a_label() -> None:
    for path, text in files_shown().items():
        if not path.endswith(".html"):
            continue
        page = Parsed(text)
        assert len(page.ids) == len(set(page.ids)), path
        named = {found.get("for") for tag, found in page.tags if tag == "label"}
        fields = {found["id"] for tag, found in page.tags if tag in {"input", "select", "textarea"}}
        assert fields == named, path
        refers = " ".join(
            value
            for _, found in page.tags
            for name in ("aria-describedby", "aria-labelledby", "list")
            if (value := found.get(name))
        )
        assert set(refers.split()) <= set(page.ids), path


def test_a_policy_allows_the_one_script_of_a_page_and_nothing_from_elsewhere() -> None:
    for path, text in files_shown().items():
        if not path.endswith(".html"):
            continue
        page = Parsed(text)
        policy = next(
            found["content"] or ""
            for tag, found in page.tags
            if tag == "meta" and found.get("http-equiv") == "Content-Security-Policy"
        )
        rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
        scripts = [text for kind, text in page.scripts if not kind]
        assert len(scripts) == 1
        digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
        assert rules["script-src"] == f"'sha256-{digest}'"
        assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
        assert "unsafe" not in policy
        inline = {"style", *(name for _, found in page.tags for name in found if name[:2] == "on")}
        assert inline == {"style"}
        assert all("style" not in found for _, found in page.tags)
        assert not re.search(r"https?://", text.replace("http://www.w3.org", "")), path


def test_the_grid_has_a_word_and_a_sign_in_each_cell() -> None:
    text = files_shown()["index.html"]
    heads = row(text, "Framework")
    assert heads[1:] == [
        f"CUDA {one}" for one in ("13.0", "12.9", "12.8", "12.6", "12.5", "12.4", "11.8")
    ]

    grid = {name: row(text, name) for name in ("pytorch 2.8", "pytorch 2.10", "cupy 14.2")}
    assert "± tested, failed on sm 8.0" in row(text, "numba-cuda 0.30")[1]
    assert "✕ failed" in grid["pytorch 2.8"][3]
    assert "⊘ yanked" in grid["pytorch 2.8"][4]
    assert "● tested" in grid["pytorch 2.10"][1]
    assert "○ untested" in grid["cupy 14.2"][1]
    assert "◐ follows" in grid["cupy 14.2"][2]
    assert all("· not built" in cell for cell in grid["cupy 14.2"][3:])


def test_a_cell_of_several_images_links_to_their_list_and_of_one_to_its_page() -> None:
    page = Parsed(files_shown()["index.html"])
    links = {
        found["aria-label"]: found["href"]
        for tag, found in page.tags
        if tag == "a" and "CUDA" in (found.get("aria-label") or "")
    }
    several = "framework/pytorch.html#2.9-cuda12.8"
    assert links["pytorch 2.9, CUDA 12.8: tested"] == several
    yanked = "image/pytorch-2.8.0-cuda12.6-py3.12-000000000000.html"
    assert links["pytorch 2.8, CUDA 12.6: yanked"] == yanked


A100, A100_580 = ran("A100", "535.216.01"), ran("A100", "580.95.05")
H200 = ran("H200", "580.95.05")


def failed(test: Tested) -> Tested:
    return replace(test, verdict="fail", at="2026-11-23T10:00:00Z")


@pytest.mark.parametrize(
    ("tests", "word"),
    [
        ((A100, H200), "● tested"),
        ((A100, failed(H200)), "± tested, failed on sm 9.0"),
        ((A100, failed(A100_580)), "± tested, failed on sm 8.0 with driver 580"),
        ((failed(A100), failed(H200)), "✕ failed"),
        ((A100, failed(A100)), "✕ failed"),
        ((failed(A100), replace(A100, at="2026-11-24T10:00:00Z")), "● tested"),
        (
            (H200, *(replace(failed(A100), sm=sm) for sm in ("7.0", "7.5", "8.0"))),
            "± tested, failed on sm 7.0, sm 7.5 and 1 more",
        ),
    ],
)
def test_tests_of_several_gpus_come_to_one_word_everywhere(
    tests: tuple[Tested, ...], word: str
) -> None:
    one = image("x", "1", label("12.8", PYTORCH_128), tests=tests, state="active")
    files = made(of([one]))
    assert word in row(files["index.html"], "x 1")[1]
    assert row(files["framework/x.html"], one.name)[3] == word
    assert word in " ".join(Parsed(files[f"image/{one.id}.html"]).text.split())
    assert f"| {word[2:]} |" in files["images.md"]
    told = word[2:] if "failed" in word else "tested on a GPU"
    assert told in files["badge/x.svg"]


def test_what_an_audit_set_aside_is_not_called_failed() -> None:
    one = image("x", "1", label("12.8", PYTORCH_128), tests=(A100,), state="quarantined")
    assert "⊘ quarantined" in row(made(of([one]))["index.html"], "x 1")[1]


def hostile() -> Catalogue:
    """Return an index whose every free text is an attack."""
    test = replace(told(ran("A100", "580.65.06")), gpu=HOSTILE, evidence=HOSTILE)
    known = label("12.8", PYTORCH_128, requires={"NVIDIA_REQUIRE_X": HOSTILE}, glibc="2.36")
    return of(
        [
            image("pytorch", "2.9.1", known, tests=(test,), reason=HOSTILE, channel=HOSTILE),
            image(
                "pytorch", "2.8.0", replace(known, platforms=(HOSTILE,)), state="yanked",
                reason=HOSTILE, replaced_by=HOSTILE, cudnn=HOSTILE,
            ),
        ]
    )  # fmt: skip


def test_hostile_texts_stay_texts() -> None:
    for path, text in made(hostile()).items():
        if path.endswith(".html"):
            page = Parsed(text)
            assert [tag for tag, _ in page.tags if tag == "img"] == [], path
            assert len(page.scripts) == (3 if path == "index.html" else 1), path
            if path.startswith("image/"):
                assert HOSTILE in page.text
                assert not any("evidence" in link for link in page.links)
        elif path.endswith(".svg"):
            ET.fromstring(text)  # noqa: S314 - our own text
        elif path == "images.md":
            assert "<" not in re.sub(r"\\<", "", text)
    known = json.loads(dict(Parsed(made(hostile())["index.html"]).scripts)["application/json"])
    assert known


def test_the_data_in_the_page_is_what_it_was() -> None:
    known = hostile()
    page = Parsed(made(known)["index.html"])
    found = [json.loads(text) for kind, text in page.scripts if kind == "application/json"]
    assert found == [embedded(known), facts_of(FACTS)]
    assert found[0]["labels"] == [one.to_json() for one in known.labels]
    assert all("<" not in text for kind, text in page.scripts if kind)


@pytest.mark.parametrize(
    "change",
    [
        {"id": "../index"},
        {"id": "a/b"},
        {"framework": 'x"onload=1'},
        {"framework": ".."},
        {"repository": "x; rm -rf /"},
        {"repository": "x/../../y"},
        {"digest": "sha256:$(id)"},
        {"tags": ("a b",)},
        {"moving": ("`id`",)},
    ],
)  # fmt: skip
def test_a_name_that_could_be_more_than_a_name_is_refused(change: dict[str, Any]) -> None:
    one = replace(image("x", "1", label("12.8", PYTORCH_128)), **change)
    with pytest.raises(IntegrityError):
        site(of([one]), FACTS)


def test_a_registry_that_could_be_more_than_a_name_is_refused() -> None:
    known = replace(shown(), registry="x; rm -rf /")
    with pytest.raises(IntegrityError):
        site(known, FACTS)


def test_an_empty_index_has_a_page_that_says_so() -> None:
    files = made(of([]))
    assert "Nothing is published yet." in files["index.html"]
    assert "images.md" in files
    nowhere = replace(published(), registry="", at="", sha256="")
    assert "at no known time" in made(nowhere)["index.html"]


def test_two_thousand_images_are_a_page_of_a_megabyte_and_made_in_seconds() -> None:
    known = many()
    began = time.perf_counter()
    files = site(known, FACTS)
    assert time.perf_counter() - began < 30
    assert len(files["index.html"]) < 1_200_000
    assert max(len(data) for path, data in files.items() if path.startswith("image/")) < 20_000


def scripts_of_the_package() -> dict[str, str]:
    """Return the scripts as they are written, by name."""
    folder = files("curator.page")
    return {one.name: one.read_text() for one in folder.iterdir() if one.name.endswith(".js")}


def test_the_script_of_a_page_has_no_comments_and_all_of_the_code() -> None:
    scripts = scripts_of_the_package()
    for name, text in scripts.items():
        for number, line in enumerate(text.splitlines(), 1):
            assert line.count("`") % 2 == 0, f"{name}:{number}: a text over several lines"
            assert "/*" not in line, f"{name}:{number}: a comment over several lines"
    page = Parsed(files_shown()["index.html"])
    (inlined,) = [text for kind, text in page.scripts if not kind]
    lines = inlined.splitlines()
    assert not [line for line in lines if line.startswith(("//", " "))]
    written = [line.strip() for text in scripts.values() for line in text.splitlines()]
    left = [line for line in written if line and not line.startswith("//")]
    assert sorted(left) == sorted(filter(None, lines))
    assert len(inlined) < 0.85 * sum(map(len, scripts.values()))


def test_the_data_for_the_selector_leaves_out_what_it_does_not_show() -> None:
    known = many(30)
    found = embedded(known)
    assert len(canonical_json(found)) < 0.8 * len(known.data)
    assert found["plain"]["digest"] == [one.digest for one in known.images]
    assert sha256(known.data) == sha256(Catalogue.read(known.data).data)
