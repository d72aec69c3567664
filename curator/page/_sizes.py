"""How large the images of a framework, CUDA and Python were when each was published.

What came later is not told: so that a publish changes no page of what was there before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from curator.page._names import day, image_page

if TYPE_CHECKING:
    from collections.abc import Iterable

    from curator.resolve import Image

MOST_SIZES: Final = 10
_MEGA: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """An image's size, and what it is more or less than the one before, in words."""

    image: Image
    size: str
    change: str

    @property
    def link(self) -> str:
        """The path of the image's page."""
        return image_page(self.image)

    @property
    def day(self) -> str:
        """The day that it was published."""
        return day(self.image.published)


def family(image: Image) -> tuple[str, str, str]:
    """Return what images have in common that are compared: framework, CUDA and Python."""
    return image.framework, image.label.cuda, image.python


def history(image: Image, others: Iterable[Image]) -> tuple[Size, ...]:
    """Return the sizes of an image and of those of its family before it, the newest first.

    Of a version the last build counts; one size alone is no history.
    """
    found = {
        other.version: other
        for other in sorted(others, key=_age)
        if other.size and other.tags and _age(other) < _age(image)
    }
    before = sorted((one for one in found.values() if one.version != image.version), key=_age)
    images = [*before, image]
    if not image.size or len(images) == 1:
        return ()
    sizes = [
        Size(image=one, size=megabytes(one.size), change=_change(one, last))
        for one, last in zip(images, [None, *images], strict=False)
    ]
    return tuple(reversed(sizes[-MOST_SIZES:]))


def megabytes(size: int) -> str:
    """Return a size to read."""
    return f"{size / _MEGA:,.0f} MB" if size else ""


def _age(image: Image) -> str:
    return (image.published or "").rstrip("Z")


def _change(image: Image, before: Image | None) -> str:
    if before is None:
        return ""
    percent = (image.size - before.size) / before.size * 100
    return f"{percent:+.0f} %" if abs(percent) >= 1 else "same"
