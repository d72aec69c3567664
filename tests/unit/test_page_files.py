"""What tools read beside the pages: badges, Renovate's releases, a table, the feed."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit
from xml.etree import ElementTree as ET

from curator import derived
from tests.images import PYTORCH_128, image, label
from tests.pages import files_shown, made, of, shown

if TYPE_CHECKING:
    from curator.resolve import Catalogue, Image


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
                "tests": [{"suite": "gpu", **test.to_json()} for test in one.tests],
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
    assert "tested, failed on sm 8.0" in files["badge/numba-cuda.svg"]
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


def test_renovate_gets_of_a_repository_what_can_be_pulled_from_it() -> None:
    known, files = shown(), files_shown()
    of_both = [one for one in known.images if one.version == "14.2.0" and one.label.cuda == "12.9"]
    assert {one.repository for one in of_both} == {"cupy", "candidate/cupy"}
    for one in known.images:
        releases = json.loads(files[f"renovate/{one.repository}.json"])["releases"]
        own = {other.digest for other in known.images if other.repository == one.repository}
        assert {release["digest"] for release in releases} <= own
        versions = [release["version"] for release in releases]
        assert len(set(versions)) == len(versions)
    link = '<a href="../renovate/candidate/cupy.json">candidate/cupy</a>'
    assert link in files["framework/cupy.html"]


def test_the_table_in_markdown_has_a_row_for_each_image_on_offer() -> None:
    known = shown()
    lines = files_shown()["images.md"].splitlines()
    rows = [line for line in lines if line.startswith("|")]
    offered = [one for one in known.images if one.is_offered]
    assert len(rows) == len(offered) + 2
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in rows} == {7}
    assert "Generation 12, 2026-11-21T09:30:00Z." in lines


ATOM = "{http://www.w3.org/2005/Atom}"
DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


def one_text(parent: ET.Element, name: str) -> str:
    """Return the text of an element that has to be there once."""
    (found,) = parent.findall(ATOM + name)
    assert found.text
    return found.text


def links(parent: ET.Element) -> dict[str, str]:
    """Return relation -> address; of a relation there is one of a type (RFC 4287, 4.1.1)."""
    found = [link.attrib for link in parent.findall(ATOM + "link")]
    kinds = [(link.get("rel", "alternate"), link.get("type")) for link in found]
    assert len(kinds) == len(set(kinds))
    return {link.get("rel", "alternate"): link["href"] for link in found}


def recent(known: Catalogue) -> list[derived.Recent]:
    """Return a change for each image, as a generation tells it."""
    fields: list[dict[str, Any]] = [
        {
            "entry": one.id,
            "digest": one.digest,
            "repository": one.repository,
            "state": one.state,
            "tag": next(iter(one.tags), None),
        }
        for one in known.images
    ]
    return [
        derived.Recent(gen=number, at=f"2026-11-{number:02}T10:00:00Z", **change)
        for number, change in enumerate(fields, 1)
    ]


def test_the_feed_has_what_atom_says_that_feeds_and_entries_must_have() -> None:
    known, files = shown(), files_shown()
    changes = recent(known)
    data = derived.feed("11111111-1111-4111-8111-111111111111", "r.example/dl", changes)
    root = ET.fromstring(data)  # noqa: S314 - our own text
    entries = root.findall(ATOM + "entry")
    assert root.tag == f"{ATOM}feed"
    for element in (root, *entries):
        assert urlsplit(one_text(element, "id")).scheme
        assert one_text(element, "title")
        assert DATE.fullmatch(one_text(element, "updated"))
    assert root.find(f"{ATOM}author/{ATOM}name") is not None
    assert len({one_text(entry, "id") for entry in entries}) == len(entries) == len(changes)
    place = "https://images.example/index/v1/feed.xml"
    assert urljoin(place, links(root)["self"]) == place
    assert urljoin(place, links(root)["alternate"]) == "https://images.example/index/index.html"
    for entry, change in zip(entries, reversed(changes), strict=True):
        target = urljoin(place, links(entry)["alternate"])
        assert target == f"https://images.example/index/image/{change.entry}.html"
        assert target.removeprefix("https://images.example/index/") in files


def test_a_feed_of_nothing_is_one_too() -> None:
    root = ET.fromstring(derived.feed("1-2", "r", []))  # noqa: S314 - our own text
    assert links(root).keys() == {"self", "alternate"}
    assert DATE.fullmatch(one_text(root, "updated"))
