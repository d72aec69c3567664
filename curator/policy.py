"""Which images are let through, under which names, and what a second look changes.

- `not-run` never opens a gate that asks for a GPU, and there is no way around a gate.
- An immutable tag contains the recipe key; its name is never used for another image.
- Moving tags are a property of the whole set: computed from all entries, newest version first,
  and versions are compared as versions (2.10 is newer than 2.9).
- An image that passed on a GPU is not demoted by a host that has none.

>>> repository("cupy", "stable"), repository("cupy", "candidate")
('cupy', 'candidate/cupy')
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Protocol

from packaging.version import Version

from curator.index import SHORT_KEY, Status, instant, minor_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from curator.index import Channel, Entry, Outcome, State, SuiteResult
    from curator.oci import Digest

PLAIN_PLATFORM: Final = "linux/amd64"
TAGGED: Final[frozenset[State]] = frozenset({"candidate", "active", "deprecated"})
# What a person decided; a test that passes does not undo it.
DECIDED: Final[frozenset[State]] = frozenset({"deprecated", "yanked", "quarantined", "expired"})


class Judged(Protocol):
    """The part of a smoke report that a gate looks at."""

    @property
    def contents(self) -> Outcome:
        """Whether the image holds what its label says."""
        ...

    @property
    def gpu(self) -> Outcome:
        """Whether it computed right on a GPU."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Which channel an image may enter; `reasons` say what keeps it out of the better one."""

    channel: Channel | None
    reasons: tuple[str, ...] = ()

    @property
    def state(self) -> State:
        """The state of an entry that enters with this verdict."""
        if self.channel is None:
            return "unpublished"
        return "active" if self.channel == "stable" else "candidate"


def gates(report: Judged) -> Verdict:
    """Return what a report opens: `candidate` asks for the contents, `stable` for a GPU as well."""
    failed = []
    if report.contents != "pass":
        failed.append(f"contents: {report.contents}, the candidate channel asks for a pass")
    if report.gpu == "fail":
        failed.append("gpu: fail, no channel takes an image that fails on a GPU")
    if failed:
        return Verdict(channel=None, reasons=tuple(failed))
    if report.gpu != "pass":  # a bad host is no witness against an image, nor for it
        reason = f"gpu: {report.gpu}, the stable channel asks for a pass"
        return Verdict(channel="candidate", reasons=(reason,))
    return Verdict(channel="stable")


def repository(framework: str, channel: Channel | None) -> str:
    """Return where a channel's images live; what no gate lets through stays in staging."""
    if channel == "stable":
        return framework
    return f"{channel or 'staging'}/{framework}"


def admitted(entry: Entry, verdict: Verdict, *, by: str = "gates") -> Entry:
    """Return the entry as a verdict leaves it: channel, repository, state, and immutable tag."""
    return entry.model_copy(
        update={
            "channel": verdict.channel,
            "repository": repository(entry.stack.framework, verdict.channel),
            "status": Status(state=verdict.state, reason="; ".join(verdict.reasons), by=by),
            "tags": (immutable_tag(entry),) if verdict.channel else (),
        }
    )


def immutable_tag(entry: Entry) -> str:
    """Return the name that only this image ever has: `<full moving tag>-<short recipe key>`."""
    return f"{full_tag(entry)}-{entry.recipe[:SHORT_KEY]}"


def full_tag(entry: Entry) -> str:
    """Return `<version>-cuda<x.y>-py<x.y>`; platforms other than linux/amd64 are appended."""
    stack = entry.stack
    return (
        f"{_plain(stack.version)}-cuda{_minor(stack.cuda)}-py{_minor(stack.python)}{_suffix(entry)}"
    )


def moving_tags(entry: Entry) -> tuple[str, ...]:
    """Return the moving names that an entry competes for.

    A pre-release competes for its full name only: nobody who asks for 2.10 means 2.10.0rc1.
    """
    version = _version(entry.stack.version)
    if version.is_prerelease:
        return (full_tag(entry),)
    minor, suffix = minor_of(entry.stack.version), _suffix(entry)
    major = _minor(entry.stack.cuda).partition(".")[0]
    return (full_tag(entry), f"{minor}-cuda{major}{suffix}", f"{minor}{suffix}")


def floating_tags(entries: Iterable[Entry]) -> dict[str, Digest]:
    """Return `repository:tag` -> digest for every moving tag of a whole set of entries.

    The newest framework wins, then the newest CUDA, then Python, then what was published last;
    a deprecated image holds a tag only where nothing else can.
    """
    best: dict[str, Entry] = {}
    for name, entry in _claims(entries):
        if name not in best or _rank(entry) > _rank(best[name]):
            best[name] = entry
    return {name: best[name].digest for name in sorted(best)}


def reconciled(old: Entry | None, new: Entry) -> Entry:
    """Return what the index should hold after a second look at an image that it knows.

    A report that tells nothing new changes nothing. Tests on other hosts are kept beside the new
    ones, and so are fields we do not know. What a person decided stays, and so does a channel
    that only a missing GPU would take away; a name once given is kept even by what fails later.
    """
    if old is None or old.digest != new.digest:
        return new
    tests = _tests(old.tests, new.tests)
    if tests == old.tests and new.status.state not in DECIDED:
        return old
    return new.model_copy(
        update={
            **old.extra,
            **new.extra,
            "created": old.created,
            "published": old.published,
            "tests": tests,
            **_standing(old, new),
        }
    )


def _standing(old: Entry, new: Entry) -> dict[str, object]:
    """Return status, channel and names after a second look."""
    demoted = old.status.state == "active" and new.status.state == "candidate"
    held = demoted or (old.status.state in DECIDED and new.status.state not in DECIDED)
    place = old if held or (old.tags and not new.tags) else new
    same = (old.status.state, old.status.reason) == (new.status.state, new.status.reason)
    return {
        "status": old.status if held or same else new.status,
        "channel": old.channel if held else new.channel,
        "repository": place.repository,
        "tags": place.tags,
    }


def _tests(old: tuple[SuiteResult, ...], new: tuple[SuiteResult, ...]) -> tuple[SuiteResult, ...]:
    """Keep one test for each suite and kind of host: the last one that says anything."""
    kept = {test.host: test for test in sorted((*old, *new), key=_weight)}
    return tuple(sorted(kept.values(), key=_test_order))


def _weight(test: SuiteResult) -> tuple[bool, str]:
    """Order tests of one kind: what was not run, or on a bad host, replaces no pass or failure."""
    return test.verdict in {"pass", "fail"}, instant(test.at)


def _test_order(test: SuiteResult) -> tuple[str, str, str]:
    return test.suite, instant(test.at), test.evidence


def _claims(entries: Iterable[Entry]) -> Iterator[tuple[str, Entry]]:
    for entry in entries:
        if entry.status.state in TAGGED and entry.channel:
            for tag in moving_tags(entry):
                yield f"{entry.repository}:{tag}", entry


def _rank(entry: Entry) -> tuple[bool, Version, Version, Version, str, str]:
    stack = entry.stack
    return (
        entry.status.state != "deprecated",
        _version(stack.version),
        _version(stack.cuda),
        _version(stack.python),
        instant(entry.published),
        entry.id,
    )


@lru_cache(maxsize=1024)
def _version(text: str) -> Version:
    return Version(text)


def _suffix(entry: Entry) -> str:
    others = [name for name in entry.platforms if name != PLAIN_PLATFORM]
    return f"-{others[0].partition('/')[2]}" if others else ""


def _plain(version: str) -> str:
    # A tag cannot hold the + of a local version; charts of the field write _ for it.
    return version.replace("+", "_").replace("!", "_")


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])
