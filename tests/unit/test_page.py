"""The static site: what it says of an index, and what no text of an index can do to it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
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
from curator.resolve import Catalogue, Image
from tests.images import PYTORCH_128, image, label, published, ran
from tests.pages import many, of, shown, told

if TYPE_CHECKING:
    from collections.abc import Mapping

FACTS = facts()
HOSTILE = "</script><script>alert(1)</script> & \"x\" 'y' <img src=x onerror=alert(1)> {{ 7*7 }}"


def made(known: Catalogue) -> dict[str, str]:
    return {path: data.decode() for path, data in site(known, FACTS).items()}


@cache
def files_shown() -> Mapping[str, str]:
    """Return the site of the index that has something of everything."""
    return made(shown())


class Page(HTMLParser):
    """What a test looks at in a page."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.links: list[str] = []
        self.ids: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[str, str]] = []
        self.text = ""
        self.cells: list[list[str]] = []
        self._inside: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        self.links += [value for name in ("href", "src") if (value := found.get(name))]
        self.ids += [value] if (value := found.get("id")) else []
        self._inside.append(tag)
        if tag == "script":
            self.scripts.append((found.get("type") or "", ""))
        if tag == "tr":
            self.cells.append([])
        if tag in {"td", "th"}:
            self.cells[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        while self._inside and self._inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "script" in self._inside:
            kind, text = self.scripts[-1]
            self.scripts[-1] = kind, text + data
        else:
            self.text += data
        if {"td", "th"} & set(self._inside):
            self.cells[-1][-1] += data


def row(text: str, start: str) -> list[str]:
    """Return the cells of the first row that starts with a text, squeezed."""
    rows = [[" ".join(cell.split()) for cell in cells] for cells in Page(text).cells]
    return next(cells for cells in rows if cells and cells[0].startswith(start))


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
        *(f"renovate/{name}.json" for name in names),
    }


def in_store(known: Catalogue) -> set[str]:
    """Return the documents that stand in a store beside the site."""
    tests = [test for one in known.images for test in one.tests]
    return {
        *("v1/index.json", "v1/head.json", "v1/feed.xml"),
        *derived.schemas(),
        *(derived.framework_path(one.framework) for one in known.images),
        *(derived.badge_path(one.framework) for one in known.images),
        *(f"v1/evidence/{test.evidence[7:]}.json" for test in tests if test.evidence),
    }


@pytest.mark.parametrize("known", [shown(), many(60), of([])], ids=["shown", "many", "empty"])
def test_every_link_leads_to_a_file_or_a_document_of_the_store(known: Catalogue) -> None:
    files = made(known)
    there = {**files, **dict.fromkeys(in_store(known), "")}
    seen = set()
    for path, text in files.items():
        links = Page(text).links if path.endswith(".html") else []
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
                assert parts.fragment in Page(files[target]).ids, f"{path}: {link}"
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
        page = Page(text)
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
        page = Page(text)
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
    assert "✕ failed" in grid["pytorch 2.8"][3]
    assert "⊘ yanked" in grid["pytorch 2.8"][4]
    assert "● tested" in grid["pytorch 2.10"][1]
    assert "○ untested" in grid["cupy 14.2"][1]
    assert "◐ follows" in grid["cupy 14.2"][2]
    assert all("· not built" in cell for cell in grid["cupy 14.2"][3:])


def test_a_cell_of_several_images_links_to_their_list_and_of_one_to_its_page() -> None:
    page = Page(files_shown()["index.html"])
    links = {
        found["aria-label"]: found["href"]
        for tag, found in page.tags
        if tag == "a" and "CUDA" in (found.get("aria-label") or "")
    }
    several = "framework/pytorch.html#2.9-cuda12.8"
    assert links["pytorch 2.9, CUDA 12.8: tested"] == several
    yanked = "image/pytorch-2.8.0-cuda12.6-py3.12-000000000000.html"
    assert links["pytorch 2.8, CUDA 12.6: yanked"] == yanked


def test_an_image_page_has_the_evidence_and_all_its_names() -> None:
    known = shown()
    one = next(one for one in known.images if one.tests and one.channel == "stable")
    text = files_shown()[f"image/{one.id}.html"]
    page = Page(text)
    assert f"docker run --rm -it --gpus all --shm-size 8g {known.reference(one)}" in page.text
    for told_ in (one.digest, one.tags[0], one.moving[0], "525.60.13 or later", "linux/amd64"):
        assert told_ in page.text
    for test in one.tests:
        assert test.evidence
        assert f"../v1/evidence/{test.evidence[7:]}.json" in page.links
        assert row(text, f"{test.gpu} (sm {test.sm})")[1:4] == [
            test.driver,
            "● passed",
            test.at[:10],
        ]


def test_an_image_page_says_where_it_runs_by_rule() -> None:
    known = shown()
    one = next(one for one in known.images if one.label.cuda == "12.8" and one.channel == "stable")
    text = files_shown()[f"image/{one.id}.html"]
    assert row(text, "sm 7.0 Volta")[1:] == ["✓ yes: driver 525 to 580", "sm_70"]
    assert row(text, "sm 8.9 Ada")[1:] == ["✓ yes: driver 525 or later", "sm_86"]
    assert row(text, "sm 12.0 Blackwell")[1:] == ["✓ yes: driver 570 or later", "sm_120"]
    assert row(text, "sm 6.1 Pascal")[1:] == ["✕ no: ships no kernels for sm 6.1", ""]
    newest = next(one for one in known.images if one.version == "2.10.0")
    text = files_shown()[f"image/{newest.id}.html"]
    assert row(text, "sm 7.0 Volta")[1].startswith("✕ no: ")
    unread = next(one for one in known.images if one.label.cubin is None)
    text = files_shown()[f"image/{unread.id}.html"]
    assert row(text, "sm 8.0")[1] == "? not known: which kernels the image ships was not read"


def test_what_is_withdrawn_says_why_and_what_replaces_it() -> None:
    known = shown()
    yanked = next(one for one in known.images if one.state == "yanked")
    better = next(one for one in known.images if one.channel == "stable")
    page = Page(files_shown()[f"image/{yanked.id}.html"])
    assert "wrong cuDNN" in page.text
    assert f"../image/{better.id}.html" in page.links
    assert "docker run" not in page.text
    unknown = replace(yanked, replaced_by="<somewhere> else")
    text = made(of([unknown]))[f"image/{yanked.id}.html"]
    assert "Replaced by &lt;somewhere&gt; else." in text


def test_builds_of_one_cell_are_listed_with_each_other() -> None:
    files = files_shown()
    text = files["image/pytorch-2.9.1-cuda12.8-py3.12-aaaaaaaaaaaa.html"]
    assert "Every build of pytorch-2.9.1-cuda12.8-py3.12" in text
    assert "../image/pytorch-2.9.1-cuda12.8-py3.12-000000000000.html" in Page(text).links


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
            page = Page(text)
            assert [tag for tag, _ in page.tags if tag == "img"] == [], path
            assert len(page.scripts) == (3 if path == "index.html" else 1), path
            if path.startswith("image/"):
                assert HOSTILE in page.text
                assert not any("evidence" in link for link in page.links)
        elif path.endswith(".svg"):
            ET.fromstring(text)  # noqa: S314 - our own text
        elif path == "images.md":
            assert "<" not in re.sub(r"\\<", "", text)
    known = json.loads(dict(Page(made(hostile())["index.html"]).scripts)["application/json"])
    assert known


def test_the_data_in_the_page_is_what_it_was() -> None:
    known = hostile()
    page = Page(made(known)["index.html"])
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


def shields(images: list[Image], name: str) -> dict[str, Any]:
    """Return the badge that the store has of these images."""
    listed = [
        derived.Listed(
            one.id,
            "",
            {
                "tags": list(one.tags),
                "status": {"state": one.state},
                "stack": {"version": one.version, "cuda": one.label.cuda},
                "published": one.published,
            },
        )
        for one in images
        if one.framework == name
    ]
    framework = derived.Framework(name=name, view=None, newest=derived.newest(listed))
    found: dict[str, Any] = json.loads(derived.badge(framework))
    return found


def test_a_badge_says_what_the_badge_in_the_store_says() -> None:
    known, files = shown(), files_shown()
    for name in {one.framework for one in known.images}:
        said = shields(list(known.images), name)
        picture = ET.fromstring(files[f"badge/{name}.svg"])  # noqa: S314 - our own text
        assert picture.attrib["aria-label"] == f"{said['label']}: {said['message']}"
        texts = [one.text for one in picture.iter("{http://www.w3.org/2000/svg}text")]
        assert texts == [said["label"], said["message"]]
    yanked = of([replace(one, state="yanked") for one in known.images])
    assert "no image" in made(yanked)["badge/jax.svg"]


# The fields that Renovate's custom datasource reads of a release.
RELEASE = {
    "version", "isDeprecated", "releaseTimestamp", "changelogUrl", "sourceUrl", "sourceDirectory",
    "digest", "isStable",
}  # fmt: skip


def test_renovate_gets_the_tags_that_move_with_their_digests() -> None:
    known = shown()
    found = json.loads(files_shown()["renovate/pytorch.json"])
    assert found.keys() == {"releases"}
    assert all(release.keys() <= RELEASE for release in found["releases"])
    by_version = {release["version"]: release for release in found["releases"]}
    assert len(by_version) == len(found["releases"])
    stable = next(one for one in known.images if one.channel == "stable")
    assert by_version["2.9.1-cuda12.8-py3.12"] == {
        "version": "2.9.1-cuda12.8-py3.12",
        "digest": stable.digest,
        "isStable": True,
        "releaseTimestamp": stable.published,
    }
    assert by_version["2.7.1-cuda12.6-py3.12"]["isStable"] is False
    assert not any(version.startswith("2.8.0") for version in by_version)
    old = of([image("x", "1", label("12.8", PYTORCH_128), state="deprecated")])
    assert json.loads(made(old)["renovate/x.json"])["releases"][0]["isDeprecated"] is True


def test_the_table_in_markdown_has_a_row_for_each_image_on_offer() -> None:
    known = shown()
    lines = files_shown()["images.md"].splitlines()
    rows = [line for line in lines if line.startswith("|")]
    offered = [one for one in known.images if one.is_offered]
    assert len(rows) == len(offered) + 2
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in rows} == {7}
    assert "Generation 12, 2026-11-21T09:30:00Z." in lines


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


def test_the_data_for_the_selector_leaves_out_what_it_does_not_show() -> None:
    known = many(30)
    found = embedded(known)
    assert len(canonical_json(found)) < 0.8 * len(known.data)
    assert found["plain"]["digest"] == [one.digest for one in known.images]
    assert sha256(known.data) == sha256(Catalogue.read(known.data).data)
