"""The static site of an index: which image runs where, on what evidence. Pure: same in, same out.

- It works from a directory, under any path, without a server, and can be read without JavaScript:
  the catalogue and the facts stand in the page, and every link is relative. Written into a store's
  directory, its links to `v1/` are those of the store's own documents.
- `compat.js`, `judge.js`, `rules.js` and `words.js` are `curator.compat` and `curator.resolve` in
  the browser; Python is the reference, and tests hold both to the same answers.
- Texts of the index are escaped; a name that could be anything else than a path or a part of a
  command is refused.
- There is no clock: the reader's browser says how old the index is. Only `index.html` and
  `images.md` name the generation, so that a publish changes the pages of what it changed.

    index.html                 the selector, the grid framework x CUDA, the frameworks
    framework/<name>.html      every image of a framework
    image/<id>.html            an image: its tests, where it runs, packages, names, sizes
    badge/<name>.svg           the newest image, as a picture
    renovate/<repository>.json tags and digests for Renovate's custom datasource
    images.md                  every image as a Markdown table
    page.css, icon.svg

    for path, data in site(reader.catalogue(), facts()).items(): ...
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from packaging.version import Version

from curator.page import _documents, _html
from curator.page._embedded import embedded, facts_of
from curator.page._evidence import TESTED, word_of
from curator.page._grid import grid
from curator.page._images import View
from curator.page._names import refuse_strange, renovate_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from curator.facts import Facts
    from curator.resolve import Catalogue, Image

__all__ = ["embedded", "facts_of", "linked", "site"]

_DOCUMENT: Final = re.compile(r'href="(?:\.\./)*(v1/[^"#?]+)"')


def site(known: Catalogue, facts: Facts) -> Mapping[str, bytes]:
    """Return the files of the site by path, in the order of the paths.

    Raises:
        IntegrityError: a name in the catalogue cannot be a path, or a part of a command.
    """
    images = tuple(known.images)
    refuse_strange(known, images)
    view = View(known, images, facts)
    by_name: dict[str, list[Image]] = {}
    by_repository: dict[str, list[Image]] = {}
    for image in images:
        by_name.setdefault(image.framework, []).append(image)
        by_repository.setdefault(image.repository, []).append(image)
    texts = {
        "index.html": _index(known, facts, view, images),
        "page.css": _html.read("page.css"),
        "icon.svg": _html.read("icon.svg"),
        "images.md": _documents.markdown(known, images),
    }
    for name, found in by_name.items():
        texts |= _framework(known, view, name, found)
    for repository, found in by_repository.items():
        texts[renovate_file(repository)] = _documents.renovate(found)
    for image in images:
        texts[f"image/{image.id}.html"] = _html.page(
            "image.html.j2", root="../", known=known, image=image, word=word_of(image), view=view
        )
    return {path: texts[path].encode() for path in sorted(texts)}


def linked(files: Mapping[str, bytes]) -> tuple[str, ...]:
    """Return the paths of the index's documents that a site's pages lead to."""
    pages = (data.decode() for path, data in files.items() if path.endswith(".html"))
    return tuple(sorted({path for page in pages for path in _DOCUMENT.findall(page)}))


def _index(known: Catalogue, facts: Facts, view: View, images: Sequence[Image]) -> str:
    offered = [image for image in images if image.is_offered]
    names = sorted({image.framework for image in images})
    frameworks = [
        _summary(name, [image for image in images if image.framework == name], view)
        for name in names
    ]
    return _html.page(
        "index.html.j2",
        scripts=_html.SELECTOR,
        root="",
        known=known,
        grid=grid(images),
        frameworks=frameworks,
        offered=sorted({image.framework for image in offered}),
        cudas=_newest_first(image.label.cuda for image in offered),
        pythons=_newest_first(image.python for image in offered),
        channels=sorted({image.channel for image in offered if image.channel}),
        gpus=list(facts.products),
        catalogue=embedded(known),
        facts=facts_of(facts),
    )


def _summary(name: str, images: Sequence[Image], view: View) -> dict[str, Any]:
    """Return what the index says of a framework: how many images, and the newest that can run."""
    offered = [image for image in images if image.is_offered]
    return {
        "name": name,
        "count": len(offered),
        "withdrawn": len(images) - len(offered),
        "newest": view.listed(offered[0]) if offered else None,
        "repositories": _repositories(images),
        "tested": next((view.listed(one) for one in offered if word_of(one) is TESTED), None),
    }


def _repositories(images: Iterable[Image]) -> list[tuple[str, str]]:
    """Return the repositories of images, the shortest name first, each with its Renovate file."""
    names = {image.repository for image in images}
    return [(name, renovate_file(name)) for name in sorted(names, key=lambda one: (len(one), one))]


def _newest_first(versions: Iterable[str]) -> list[str]:
    return sorted(set(versions), key=Version, reverse=True)


def _framework(
    known: Catalogue, view: View, name: str, images: Sequence[Image]
) -> Mapping[str, str]:
    return {
        f"framework/{name}.html": _html.page(
            "framework.html.j2",
            root="../",
            known=known,
            name=name,
            minors=view.minors(images),
            repositories=_repositories(images),
        ),
        f"badge/{name}.svg": _html.badge(*_documents.badge(name, images)),
    }
