"""What tools read beside the pages: badges, Renovate's releases, a Markdown table.

Source: Renovate's custom datasource (docs.renovatebot.com/modules/datasource/custom).
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from curator.derived import Framework, Listed, newest
from curator.derived import badge as shields_badge
from curator.oci import canonical_json
from curator.page._evidence import word_of
from curator.page._names import day, image_page

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from curator.resolve import Catalogue, Image

_MARKUP = re.compile(r"[\\`*_{}\[\]<>#|~&!]")


def badge(name: str, images: Iterable[Image]) -> tuple[str, str, str]:
    """Return a badge's label, message and colour: those of the shields badge in the store."""
    found = json.loads(shields_badge(_framework(name, images)))
    return found["label"], found["message"], found["color"]


def _framework(name: str, images: Iterable[Image]) -> Framework:
    return Framework(name=name, view=None, newest=newest(map(_listed, images)))


def _listed(image: Image) -> Listed:
    value = {
        "tags": image.tags,
        "status": {"state": image.state},
        "stack": {"version": image.version, "cuda": image.label.cuda},
        "published": image.published,
        "tests": [{"suite": "gpu", **test.to_json()} for test in image.tests],
    }
    return Listed(image.id, "", value)


def renovate(images: Iterable[Image]) -> str:
    """Return the tags of a repository that can be pulled, each with its digest.

    A tag is the most telling one that moves (`2.9.1-cuda12.8-py3.12`), so that a rebuild is an
    update of the digest; an image that no tag points at any more is no release.
    """
    found = [image for image in images if image.is_offered and image.moving]
    return canonical_json({"releases": [_release(image) for image in found]}).decode()


def _release(image: Image) -> dict[str, Any]:
    release: dict[str, Any] = {
        "version": image.moving[0],
        "digest": image.digest,
        "isStable": image.channel == "stable",
    }
    if image.published:
        release["releaseTimestamp"] = image.published
    if image.state == "deprecated":
        release["isDeprecated"] = True
    return release


def markdown(known: Catalogue, images: Iterable[Image]) -> str:
    """Return every image that is offered as a table in Markdown."""
    head = ["Image", "CUDA", "Python", "Driver", "Evidence", "Published"]
    lines = [_row(head), _row(["---"] * len(head))]
    lines += [_row(_cells(image)) for image in images if image.is_offered]
    place = f" of {_plain(known.registry)}" if known.registry else ""
    title = f"# Images{place}\n\nGeneration {known.generation}, {_plain(known.at)}.\n"
    return "\n".join([title, *lines, ""])


def _cells(image: Image) -> list[str]:
    evidence = word_of(image).word
    if image.state == "deprecated":
        evidence += ", deprecated"
    return [
        f"[{_plain(image.name)}]({image_page(image)})",
        _plain(image.label.cuda),
        _plain(image.python),
        f"{_plain(image.label.floor)} or later",
        evidence,
        _plain(day(image.published)),
    ]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _plain(text: str) -> str:
    """Return a text that Markdown shows as it is, on one line."""
    return _MARKUP.sub(r"\\\g<0>", " ".join(text.split()))
