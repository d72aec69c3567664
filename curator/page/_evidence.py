"""What is known of an image whatever the machine, in one word and one sign."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from curator.resolve import latest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from curator.resolve import Image


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """A word for what is known, its sign, and what it means; `css` is its class."""

    word: str
    sign: str
    css: str
    means: str


TESTED: Final = Word(
    word="tested", sign="●", css="tested", means="a GPU test of the image itself passed"
)
FOLLOWS: Final = Word(
    word="follows",
    sign="◐",
    css="follows",
    means="no GPU ran it; where it runs follows by rule from its kernels and its driver floor",
)
UNTESTED: Final = Word(
    word="untested", sign="○", css="untested", means="no GPU ran it, and its kernels were not read"
)
FAILED: Final = Word(word="failed", sign="✕", css="failed", means="its last GPU tests failed")
YANKED: Final = Word(
    word="yanked", sign="⊘", css="yanked", means="withdrawn; the image's page says why"
)
NOT_BUILT: Final = Word(
    word="not built", sign="·", css="none", means="there is no such image in this index"
)
# The best first: of several images in one place, the first of these counts.
WORDS: Final = (TESTED, FOLLOWS, UNTESTED, FAILED, YANKED, NOT_BUILT)


def word_of(image: Image) -> Word:
    """Return what is known of an image."""
    if image.state == "yanked":
        return YANKED
    verdicts = {test.verdict for test in latest(image.tests).values()}
    if image.state == "quarantined" or verdicts == {"fail"}:
        return FAILED
    if not image.is_offered:
        return NOT_BUILT
    if "pass" in verdicts:
        return TESTED
    is_read = image.label.cubin is not None and image.label.requires is not None
    return FOLLOWS if is_read else UNTESTED


def best(images: Iterable[Image]) -> tuple[Word, Image | None]:
    """Return the best word of some images, and the first image that it is true of."""
    found = [(word_of(image), image) for image in images]
    ranked = sorted(found, key=lambda pair: WORDS.index(pair[0]))
    return ranked[0] if ranked else (NOT_BUILT, None)
