"""What is known of an image whatever the machine, in one word and one sign."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from curator.derived import verdicts

if TYPE_CHECKING:
    from collections.abc import Iterable

    from curator.resolve import Image, Label


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
MIXED: Final = Word(
    word="tested, failed on some",
    sign="±",
    css="mixed",
    means="GPU tests of the image passed on some machines and failed on others",
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
QUARANTINED: Final = Word(
    word="quarantined", sign="⊘", css="quarantined", means="set aside; the image's page says why"
)
NOT_BUILT: Final = Word(
    word="not built", sign="·", css="none", means="there is no such image in this index"
)
# The best first: of several images in one place, the first of these counts.
WORDS: Final = (TESTED, MIXED, FOLLOWS, UNTESTED, FAILED, QUARANTINED, YANKED, NOT_BUILT)
_RANKS: Final = {word.css: rank for rank, word in enumerate(WORDS)}


def word_of(image: Image) -> Word:
    """Return what is known of an image."""
    found = verdicts((test.sm, test.driver, test.verdict, test.at) for test in image.tests)
    if image.state == "yanked":
        return YANKED
    if found.failed and not found.has_passed:
        return FAILED
    if not image.is_offered:
        return QUARANTINED if image.state == "quarantined" else NOT_BUILT
    if found.failed:
        return replace(MIXED, word=f"tested, {found.failed_on}")
    return TESTED if found.has_passed else _by_rule(image.label)


def _by_rule(label: Label) -> Word:
    return UNTESTED if label.cubin is None or label.requires is None else FOLLOWS


def best(images: Iterable[Image]) -> tuple[Word, Image | None]:
    """Return the best word of some images, and the first image that it is true of."""
    found = [(word_of(image), image) for image in images]
    ranked = sorted(found, key=lambda pair: _RANKS[pair[0].css])
    return ranked[0] if ranked else (NOT_BUILT, None)
