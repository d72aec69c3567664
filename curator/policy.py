"""Which images are let through, under which names, and what a second look changes.

- `not-run` never opens a gate that asks for a GPU, and there is no way around a gate.
- What an image stands for follows from all its tests, the last of each kind of host: a failure
  counts until that kind of host passes, whichever report came first.
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
from typing import TYPE_CHECKING, Final, TypeVar

from packaging.version import Version

from curator.index import SHORT_KEY, Model, Status, instant, minor_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from curator.index import Channel, Entry, State, SuiteResult
    from curator.oci import Digest

ModelT = TypeVar("ModelT", bound=Model)

PLAIN_PLATFORM: Final = "linux/amd64"
TAGGED: Final[frozenset[State]] = frozenset({"candidate", "active", "deprecated"})
# What a person decided; a test that passes does not undo it.
DECIDED: Final[frozenset[State]] = frozenset({"deprecated", "yanked", "quarantined", "expired"})


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


def gates(tests: Sequence[SuiteResult]) -> Verdict:
    """Return what an image's tests open: `candidate` asks for the contents, `stable` for a GPU too.

    A failure anywhere closes every channel, and one pass is enough where nothing failed.
    """
    contents, gpu = (_together(tests, suite) for suite in ("contents", "gpu"))
    failed = []
    if contents != "pass":
        failed.append(f"contents: {contents}, the candidate channel asks for a pass")
    if gpu.startswith("fail"):
        failed.append(f"gpu: {gpu}, no channel takes an image that fails on a GPU")
    if failed:
        return Verdict(channel=None, reasons=tuple(failed))
    if gpu != "pass":  # a bad host is no witness against an image, nor for it
        reason = f"gpu: {gpu}, the stable channel asks for a pass"
        return Verdict(channel="candidate", reasons=(reason,))
    return Verdict(channel="stable")


def _together(tests: Sequence[SuiteResult], suite: str) -> str:
    """Return what the tests of one suite come to, a failure with where it was."""
    found = {test.verdict: test for test in sorted(tests, key=_test_order) if test.suite == suite}
    if failed := found.get("fail"):
        where = (("sm", failed.sm), ("driver", failed.driver))
        told = ", ".join(f"{name} {value}" for name, value in where if value)
        return f"fail ({told})" if told else "fail"
    return next((name for name in ("pass", "bad-host", "not-run") if name in found), "not-run")


def repository(framework: str, channel: Channel | None) -> str:
    """Return where a channel's images live; what no gate lets through stays in staging."""
    if channel == "stable":
        return framework
    return f"{channel or 'staging'}/{framework}"


def admitted(entry: Entry) -> Entry:
    """Return the entry as its tests leave it: channel, repository, state, and immutable tag."""
    verdict = gates(entry.tests)
    return entry.model_copy(
        update={
            "channel": verdict.channel,
            "repository": repository(entry.stack.framework, verdict.channel),
            "status": Status(state=verdict.state, reason="; ".join(verdict.reasons), by="gates"),
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
    ones, and the gates are asked again with all of them, so that the order of reports decides
    nothing. What a person decided stays; a name once given is kept even by what fails later; and
    fields that we do not know are kept at every level.
    """
    if old is None or old.digest != new.digest:
        return new
    tests = _tests(old.tests, new.tests)
    if tests == old.tests and new.status.state not in DECIDED:
        return old
    seen = {"created": old.created, "published": old.published, "tests": tests}
    known = new.model_copy(update=seen)
    return _with_unknown(old, known.model_copy(update=_standing(old, known)))


def _standing(old: Entry, new: Entry) -> dict[str, object]:
    """Return status, channel and names of an image that has all these tests."""
    judged = admitted(new)
    kept = {"repository": old.repository, "tags": old.tags}
    for decided in (new.status, old.status):
        if decided.state in DECIDED:
            # It stays where it is, but there is no way around the gates for it either.
            channel = _channel(old)
            opened = judged.channel in {channel, "stable"}
            return {**kept, "status": decided, "channel": channel if opened else None}
    same = (old.status.state, old.status.reason) == (judged.status.state, judged.status.reason)
    return {
        "repository": judged.repository,
        "tags": judged.tags,
        **(kept if old.tags and judged.channel is None else {}),
        "status": old.status if same else judged.status,
        "channel": judged.channel,
    }


def _channel(entry: Entry) -> Channel | None:
    """Return the channel whose repository an entry stands in."""
    channels: tuple[Channel, ...] = ("stable", "candidate")
    framework = entry.stack.framework
    return next((c for c in channels if repository(framework, c) == entry.repository), None)


def _with_unknown(old: Model, new: ModelT) -> ModelT:
    """Return the new value with the fields of the old one that no version here knows."""
    both = [(name, getattr(old, name), getattr(new, name)) for name in type(new).model_fields]
    inner = {
        name: _with_unknown(before, after)
        for name, before, after in both
        if isinstance(before, Model) and isinstance(after, Model)
    }
    return new.model_copy(update={**old.extra, **new.extra, **inner})


def _tests(old: tuple[SuiteResult, ...], new: tuple[SuiteResult, ...]) -> tuple[SuiteResult, ...]:
    """Keep one test for each suite and kind of host: the last one that says anything."""
    kept = {test.host: test for test in sorted((*old, *new), key=_weight)}
    return tuple(sorted(kept.values(), key=_test_order))


def _weight(test: SuiteResult) -> tuple[bool, str, bool, str]:
    """Order tests of one kind: what was not run, or on a bad host, replaces no pass or failure.

    Of two at the same instant the failure counts, and then no more than a total order is asked for.
    """
    tells = test.verdict in {"pass", "fail"}
    return tells, instant(test.at), test.verdict == "fail", f"{test.evidence} {test.verdict}"


def _test_order(test: SuiteResult) -> tuple[str, str, str, str]:
    # Two kinds of hosts can have the same test in one report.
    return test.suite, instant(test.at), test.evidence, f"{test.sm} {test.driver}"


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
