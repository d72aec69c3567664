"""Which of an image's tests still tell something, and which of several counts.

- A test is stale when its probe is not the current one (`probe`), when it is older than the limit
  (`age`), or when its time cannot be placed (`time`): it is none, or still to come.
- Of tests at the same time the failure counts. A pass whose time cannot be placed is older than
  everything else, a failure newer.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable

Stale = Literal["probe", "age", "time"]
_CLOCKS_DIFFER: Final = timedelta(days=1)


class Dated(Protocol):
    """A test as its order needs it; `at` is RFC 3339 UTC, `evidence` the digest of its report."""

    @property
    def at(self) -> str: ...
    @property
    def passed(self) -> bool: ...
    @property
    def evidence(self) -> str | None: ...
    @property
    def stale(self) -> Stale | None: ...


T = TypeVar("T", bound=Dated)


def moment_of(text: str) -> datetime | None:
    """Return an RFC 3339 UTC time as a moment; None for a date that no calendar has."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def age_of(at: str, now: datetime) -> timedelta | None:
    """Return how old a test is; None for no time at all, or one that is still to come."""
    moment = moment_of(at)
    if moment is None or moment - now > _CLOCKS_DIFFER:
        return None
    return now - moment


def staleness(*, is_current: bool, age: timedelta | None, max_age: timedelta) -> Stale | None:
    """Say why a test is not enough any more; `is_current` is whether its probe is the current one.

    None is: it is.
    """
    if not is_current:
        return "probe"
    if age is None:
        return "time"
    return "age" if age > max_age else None


def standing(tests: Iterable[T]) -> tuple[T, ...]:
    """Return the newest tests of one verdict, newest first: what stands of a pair's tests."""
    ordered = sorted(tests, key=_order, reverse=True)
    end = next(
        (place for place, test in enumerate(ordered) if test.passed != ordered[0].passed),
        len(ordered),
    )
    return tuple(ordered[:end])


def _order(test: Dated) -> tuple[int, str, bool, str]:
    # Without its Z, a time with a fraction sorts after the same second without one.
    placed = 1 if test.stale != "time" else 0 if test.passed else 2
    return placed, test.at.rstrip("Z"), not test.passed, test.evidence or ""
