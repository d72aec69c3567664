"""What tools read beside the pages: badges, Renovate's releases, a table, the feed."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from curator import derived
from tests.images import PYTORCH_128, image, label
from tests.pages import files_shown, made, of, shown

if TYPE_CHECKING:
    from curator.resolve import Image


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
