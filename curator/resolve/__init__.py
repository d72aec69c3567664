"""Which image runs on a machine, how sure that is, and why the others do not. Pure.

    found = resolve(catalogue, host, Wishes(framework="pytorch"), facts())
    found.ranked[0].image, found.ranked[0].judgement.confidence     # what to pull
    found.misses                                                    # what would have to change

The order of what runs: not deprecated; no pre-release, unless the wish names one; the newest
framework version; tested on this compute capability and driver branch, tested on the compute
capability, following by rule; the stable channel; the newest CUDA and Python. With
`prefer="fastest"` a higher `matmul_fp16_gflops`, on the slowest of the host's compute capabilities,
goes before the version.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from curator.compat import begins
from curator.errors import Diagnostic, InputError
from curator.resolve._builds import Claim, Combination, claims, release_of
from curator.resolve._catalogue import Catalogue, catalogue, ordered
from curator.resolve._judge import PLATFORMS, Judge, platform_of
from curator.resolve._misses import Change, Miss, change, nearest
from curator.resolve._names import (
    architecture,
    architecture_of,
    called,
    driver,
    gpu,
    quoted,
    squeezed,
)
from curator.resolve._values import (
    OFFERED,
    RUN,
    Confidence,
    Gate,
    Gpu,
    Host,
    Image,
    Judgement,
    Kind,
    Label,
    Tested,
    Wishes,
    latest,
)
from curator.resolve._words import pasted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from curator.compat import Says
    from curator.facts import Facts

__all__ = [
    "OFFERED",
    "PLATFORMS",
    "RUN",
    "Catalogue",
    "Change",
    "Claim",
    "Combination",
    "Confidence",
    "Gate",
    "Gpu",
    "Host",
    "Image",
    "Judge",
    "Judgement",
    "Kind",
    "Label",
    "Match",
    "Miss",
    "Resolution",
    "Tested",
    "Wishes",
    "architecture",
    "architecture_of",
    "called",
    "catalogue",
    "change",
    "claims",
    "driver",
    "gpu",
    "judge",
    "latest",
    "matcher",
    "ordered",
    "pasted",
    "platform_of",
    "resolve",
    "why",
]

MOST_MISSES: Final = 3
# The one type that every framework is measured in and that tensor cores compute in.
SPEED: Final = "matmul_fp16_gflops"
_SURE: Final[Mapping[Confidence | None, int]] = {"tested": 0, "tested-sm": 1, "rule": 2, None: 3}
# The rules whose answers say why an image runs; the others only do not say no.
_TELLING: Final = frozenset(
    {
        "driver-floor",
        "driver-native",
        "driver-minor",
        "driver-forward",
        "kernel-cubin",
        "kernel-ptx",
        "test-passed",
        "test-old",
    }
)


@dataclass(slots=True)
class Match:
    """An image, by its place, and what the rules and tests say of it on the host."""

    catalogue: Catalogue
    place: int
    judgement: Judgement

    @property
    def image(self) -> Image:
        """The image itself."""
        return self.catalogue.image(self.place)

    def to_json(self) -> dict[str, Any]:
        """Return the match for machines."""
        image = self.image
        return {
            "id": image.id,
            "name": image.name,
            "reference": self.catalogue.reference(image),
            "framework": image.framework,
            "version": image.version,
            "cuda": image.label.cuda,
            "python": image.python,
            "digest": image.digest,
            "state": image.state,
            "reason": image.reason,
            "replaced_by": image.replaced_by,
            **self.judgement.to_json(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """The images that run, best first; those of which that is not known; those that do not.

    `considered` is how many images had everything that was wished.
    """

    ranked: tuple[Match, ...]
    unsure: tuple[Match, ...]
    rejected: tuple[Match, ...]
    misses: tuple[Miss, ...]
    considered: int

    @property
    def best(self) -> tuple[Match, ...]:
        """The best of each framework, by its name: versions of two frameworks say nothing."""
        first = {match.image.framework: match for match in reversed(self.ranked)}
        return tuple(first[name] for name in sorted(first))

    def to_json(self) -> dict[str, Any]:
        """Return the answer for machines."""
        return {
            "considered": self.considered,
            "ranked": [match.to_json() for match in self.ranked],
            "unsure": [match.to_json() for match in self.unsure],
            "rejected": [match.to_json() for match in self.rejected],
            "misses": [miss.to_json() for miss in self.misses],
        }


def judge(image: Image, host: Host, facts: Facts) -> Judgement:
    """Say whether one image runs on a host."""
    return Judge(host, facts)(image.label, image.tests)


def resolve(
    known: Catalogue, host: Host, wishes: Wishes, facts: Facts, most: int | None = None
) -> Resolution:
    """Return what runs on a host of what is offered and wished.

    With `most`, an image of a framework is not looked at once so many that come before it run, and
    no more than that are listed of those that do not.

    Raises:
        InputError: a wished version is neither a beginning nor a specifier.
    """
    places = _wished(known, wishes)
    turns = _turns(known, wishes)
    search = _Search(known, host, facts, turns)
    speeds: dict[int, int] = {}
    if wishes.prefer == "fastest":
        speeds = search.speeds()
        places.sort(key=lambda place: -speeds.get(place, 0))
    places.sort(key=turns.__getitem__)
    frameworks, versions = known.coded["framework"].at, known.coded["version"].at
    enough: Counter[int] = Counter()
    # Both are lazy: of what comes after enough nothing is looked at.
    left = (place for place in places if most is None or enough[frameworks[place]] < most)
    alike = groupby(left, key=lambda place: (turns[place], speeds.get(place), versions[place]))
    for _, group in alike:
        enough.update(frameworks[place] for place in search.look(group))
    return search.resolution(len(places), most)


def _turns(known: Catalogue, wishes: Wishes) -> Sequence[int]:
    """Return which images come before which, whatever else is said of them: the lower first."""
    is_asked = any(_is_early(part.lstrip(" =<>~")) for part in (wishes.version or "").split(","))
    early = known.coded["version"].where(lambda text: not is_asked and _is_early(text))
    late = known.coded["state"].where(lambda name: name == "deprecated")
    if not any(early) and not any(late):
        return bytes(len(known.coded["version"].at))
    columns = zip(known.coded["version"].at, known.coded["state"].at, strict=True)
    return bytes(early[version] + 2 * late[state] for version, state in columns)


def _is_early(text: str) -> bool:
    """Return whether a version is a pre-release, as pip takes only where it is named."""
    plain = squeezed(text).removesuffix(".*")
    try:
        return not plain.replace(".", "").isdigit() and Version(plain).is_prerelease
    except InvalidVersion:
        return False


def _wished(known: Catalogue, wishes: Wishes) -> list[int]:
    """Return the places of what is offered and has everything that is wished."""
    frameworks = known.coded["framework"].where(lambda name: wishes.framework in {None, name})
    channels = known.coded["channel"].where(lambda name: wishes.channel in {None, name})
    states = known.coded["state"].where(OFFERED.__contains__)
    versions = known.coded["version"].where(matcher("version", wishes.version))
    pythons = known.coded["python"].where(matcher("python", wishes.python))
    is_cuda = matcher("cuda", wishes.cuda)
    labels = [is_cuda(label.cuda) for label in known.labels]
    names = ("framework", "channel", "state", "version", "python", "label")
    columns = zip(*(known.coded[name].at for name in names), known.plain["tags"], strict=True)
    return [
        place
        for place, (framework, channel, state, version, python, label, tags) in enumerate(columns)
        if frameworks[framework]
        and versions[version]
        and labels[label]
        and pythons[python]
        and channels[channel]
        and states[state]
        and tags
    ]


class _Search:
    """Looks at images, and keeps what was found."""

    def __init__(self, known: Catalogue, host: Host, facts: Facts, turns: Sequence[int]) -> None:
        self._known, self._host, self._facts, self._turns = known, host, facts, turns
        self._judge = Judge(host, facts)
        self._sms = {gpu.sm for gpu in host.gpus}
        self._is_here = known.test_coded["sm"].where(self._sms.__contains__)
        self._is_tested_here = any(self._is_here)
        self._by_label: list[Judgement | None] = [None] * len(known.labels)
        self._ranked: list[tuple[int, Judgement]] = []
        self._others: dict[Says, list[tuple[int, Judgement]]] = {"unknown": [], "no": []}

    def look(self, places: Iterable[int]) -> list[int]:
        """Judge images that stand alike otherwise; return the places of those that run."""
        labels, known = self._known.coded["label"].at, self._by_label
        others, found = self._others, []
        for place in places:
            tests = self._known.tests(place, self._is_here) if self._is_tested_here else ()
            label = labels[place]
            if tests:
                judgement = self._judge(self._known.labels[label], tests)
            elif (judged := known[label]) is not None:
                judgement = judged
            else:
                judgement = known[label] = self._judge.label(self._known.labels[label])
            if judgement.says == "yes":
                order = _SURE[judgement.confidence], not self._is_stable(place), place
                found.append((order, judgement))
            else:
                others[judgement.says].append((place, judgement))
        found.sort(key=lambda pair: pair[0])
        self._ranked += [(order[-1], judgement) for order, judgement in found]
        return [order[-1] for order, _ in found]

    def _is_stable(self, place: int) -> bool:
        return bool(self._known.coded["channel"][place] == "stable")

    def speeds(self) -> dict[int, int]:
        """Return each image's rate on the slowest of the host's compute capabilities, by place.

        It is that of the newest test there, and none where that one failed.
        """
        known, found = self._known, dict[int, dict[int, int]]()
        is_pass = known.test_coded["verdict"].where(lambda name: name == "pass")
        codes = (known.test_coded[name].at for name in ("sm", "verdict"))
        plain = (known.test_plain[name] for name in ("at", "speed"))
        rows = [
            (at.rstrip("Z"), place, sm, is_pass[verdict], speed or {})
            for place, sm, verdict, at, speed in zip(known.tested, *codes, *plain, strict=True)
            if self._is_here[sm]
        ]
        for _, place, sm, has_passed, speed in sorted(rows, key=itemgetter(0)):
            rates = found.setdefault(place, {})
            if not has_passed:
                rates.pop(sm, None)
            elif SPEED in speed:
                rates[sm] = speed[SPEED]
        return {
            place: min(rates.values())
            for place, rates in found.items()
            if len(rates) == len(self._sms)
        }

    def resolution(self, considered: int, most: int | None) -> Resolution:
        """Return what was found, of what does not run at most so many."""
        ranked = tuple(self._matches(self._ranked))
        return Resolution(
            ranked=ranked,
            unsure=tuple(self._matches(self._others["unknown"][:most])),
            rejected=tuple(self._matches(self._others["no"][:most])),
            misses=nearest(self._known, self._host, self._newer(ranked), self._facts, MOST_MISSES),
            considered=considered,
        )

    def _matches(self, found: Iterable[tuple[int, Judgement]]) -> Iterator[Match]:
        return (Match(self._known, place, judgement) for place, judgement in found)

    def _newer(self, ranked: Iterable[Match]) -> list[tuple[int, Judgement]]:
        """Return what does not run; where something runs, only what would go before that.

        That is a later version of the framework, and the same one with a later CUDA.
        """
        frameworks = self._known.coded["framework"].at
        best: dict[int, int] = {}
        for match in ranked:
            best.setdefault(frameworks[match.place], match.place)
        if not best:
            return self._others["no"]
        return [
            row
            for row in self._others["no"]
            if (newest := best.get(frameworks[row[0]])) is None or self._goes_before(row[0], newest)
        ]

    def _goes_before(self, place: int, other: int) -> bool:
        versions = self._known.coded["version"].at
        one, two = ((self._turns[at], versions[at]) for at in (place, other))
        return one < two or (one == two and self._has_later_cuda(place, other))

    def _has_later_cuda(self, place: int, other: int) -> bool:
        one, two = self._known.label(place).cuda, self._known.label(other).cuda
        return Version(one) > Version(two)


def matcher(name: str, wish: str | None) -> Callable[[str], bool]:
    """Return what says whether a version is wished: one that begins so, or is in the range.

    Raises:
        InputError: the wish for `name` is neither a beginning nor a range.
    """
    if wish is None:
        return lambda _: True
    wish = squeezed(wish)
    try:
        if wish[:1].isdigit():
            Version(wish)
            beginning = release_of(wish) if name == "cuda" else wish
            return cache(lambda text: begins(text, beginning))
        asked = SpecifierSet(wish)
    except (InvalidVersion, InvalidSpecifier) as error:
        about = "is neither a version such as 2.9 nor a range such as >=2.6,<2.9"
        message = f"{name} {quoted(wish)} {about}"
        raise InputError(Diagnostic(code="version", message=message)) from error
    return cache(lambda text: asked.contains(text, prereleases=True))


def why(judgement: Judgement) -> str:
    """Return the reasons in one sentence: what decided, and for a yes what it rests on.

    What is said by gates that a passed test stands above is no reason against an image.
    """
    gates = [gate for gate in judgement.gates if gate.answer.says == judgement.says]
    if judgement.says == "yes":
        gates = [gate for gate in gates if gate.answer.rule in _TELLING]
    elif any(gate.answer.rule == "test-passed" for gate in judgement.gates):
        gates = [gate for gate in gates if gate.gate not in {"G2", "G3"}]
    return "; ".join(dict.fromkeys(gate.answer.text for gate in gates))
