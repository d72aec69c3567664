"""From axes to combinations: excludes, requirements and the facts that rules attach."""

from __future__ import annotations

import itertools
import re
import string
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from curator.errors import InputError
from curator.matrix._values import Cell, Rejected
from curator.oci import Platform

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from curator.matrix._model import Condition, FrameworkFile
    from curator.matrix._source import Source
    from curator.matrix._values import Cuda

AXES = ("version", "cuda", "python", "platform")
FIELDS = frozenset({"version", "cuda", "cuda_major", "cuda_toolkit"})
DEFAULT_PLATFORM = "linux/amd64"
_OPERATORS = "<>=!~"
# What can be part of a tag, and is written as PEP 440 normalises it.
_VERSION = re.compile(r"[0-9]+(\.[0-9]+)*((a|b|rc)[0-9]+)?(\.post[0-9]+)?(\.dev[0-9]+)?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

version = cache(Version)
specifiers = cache(SpecifierSet)


@dataclass(slots=True)
class Expansion:
    """What one framework's file expands to; `order` has the id of every combination."""

    order: list[str] = field(default_factory=list)
    cells: list[Cell] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Combination:
    version: str
    cuda: str
    python: str
    platform: str

    def id(self, framework: str) -> str:
        platform = "" if self.platform == DEFAULT_PLATFORM else "-" + self.platform.split("/")[1]
        return f"{framework}-{self.version}-cuda{self.cuda}-py{self.python}{platform}"


def matches(rule: Condition, combination: _Combination) -> bool:
    """Whether a rule is about a combination: each axis that it names agrees."""
    wanted = ((axis, getattr(rule, axis)) for axis in AXES)
    return all(_agrees(axis, want, getattr(combination, axis)) for axis, want in wanted if want)


def _agrees(axis: str, want: str, value: str) -> bool:
    if axis == "platform" or want == value:
        return want == value
    if want[0] in _OPERATORS:
        return specifiers(want).contains(version(value), prereleases=True)
    return version(want) == version(value)


def check_rules(framework: FrameworkFile, source: Source) -> None:
    """Find axis values and conditions that are no versions, and unknown template fields."""
    for axis in AXES:
        values = getattr(framework.axes, axis)
        seen: set[object] = set()
        for number, value in enumerate(values):
            path = ("axes", axis, number)
            meaning = _check_value(axis, value, source, path)
            if meaning is not None and meaning in seen:
                source.refuse("duplicate-value", f"{value!r} is on the axis already", path)
            seen.add(meaning)
    for section in ("exclude", "also", "sm_min"):
        for number, rule in enumerate(getattr(framework, section)):
            _check_condition(rule, source, (section, number))
    for number, text in enumerate(framework.requirements):
        _check_template(text, source, ("requirements", number))
    for number, rule in enumerate(framework.also):
        for position, text in enumerate(rule.requirements):
            _check_template(text, source, ("also", number, "requirements", position))
    _check_template(framework.package, source, ("package",))
    _check_environment(framework, source)


def _check_environment(framework: FrameworkFile, source: Source) -> None:
    for name, value in framework.env.items():
        if not _VARIABLE.fullmatch(name) or not value.isprintable():
            message = f"{name!r} is no environment variable with a value of one line"
            source.refuse("bad-variable", message, ("env", name))


def _check_value(
    axis: str, value: str, source: Source, path: tuple[str | int, ...]
) -> Platform | Version | None:
    """Return what a value means, having found out whether it means anything."""
    try:
        if axis == "platform":
            return Platform.parse(value)
        if _VERSION.fullmatch(value):
            return version(value)
    except (InvalidVersion, InputError):
        pass
    expected = "a platform such as linux/amd64" if axis == "platform" else "a version"
    source.refuse("bad-value", f"{value!r} is not {expected}", path)
    return None


def _check_condition(rule: Condition, source: Source, path: tuple[str | int, ...]) -> None:
    named = [(axis, getattr(rule, axis)) for axis in AXES if getattr(rule, axis) is not None]
    if not named and path[0] == "exclude":
        source.refuse("no-condition", "the rule names no axis, so it would match everything", path)
    for axis, want in named:
        try:
            if want[:1] and want[0] in _OPERATORS and axis != "platform":
                specifiers(want)
            else:
                _check_value(axis, want, source, (*path, axis))
        except InvalidSpecifier:
            message = f"{want!r} is no specifier such as '>=2.16,<2.18'"
            source.refuse("bad-specifier", message, (*path, axis))


def _check_template(text: str, source: Source, path: tuple[str | int, ...]) -> None:
    try:
        fields = [field for field in string.Formatter().parse(text) if field[1] is not None]
    except ValueError as error:
        source.refuse("bad-template", f"{text!r}: {error}", path)
        return
    if any(spec or conversion for _, _, spec, conversion in fields):
        source.refuse("bad-template", f"{text!r}: a field is a name in braces, no more", path)
    for name in sorted({str(name) for _, name, _, _ in fields} - FIELDS):
        hint = "known: " + ", ".join(sorted(FIELDS))
        source.refuse("unknown-field", f"{text!r} names an unknown field {name!r}", path, hint=hint)


def expand(
    framework: FrameworkFile,
    source: Source,
    cuda: Mapping[str, Cuda],
) -> Expansion:
    """Return every combination of the axes, as a cell or with the reason why it is none."""
    found = Expansion()
    used: set[int] = set()
    lines = {
        value: source.place(("axes", "version", number))[0]
        for number, value in enumerate(framework.axes.version)
    }
    for combination in _combinations(framework):
        found.order.append(combination.id(framework.framework))
        rule = _first(framework.exclude, combination)
        if rule is not None:
            used.update(_all(framework.exclude, combination))
            excluded = framework.exclude[rule]
            why = excluded.because, excluded.source
            found.rejected.append(_rejected(framework.framework, combination, *why))
            continue
        place = (source.file, lines[combination.version])
        _add(found, framework, combination, cuda[combination.cuda], place)
    for number in range(len(framework.exclude)):
        if number not in used:
            message = "the rule matches no combination of the axes"
            source.refuse("idle-exclude", message, ("exclude", number), hint="remove or correct it")
    return found


def _combinations(framework: FrameworkFile) -> Iterable[_Combination]:
    axes = framework.axes
    orders = [sorted(getattr(axes, axis), key=version) for axis in AXES[:3]]
    for values in itertools.product(*orders, sorted(axes.platform)):
        yield _Combination(*values)


def _first(rules: Iterable[Condition], combination: _Combination) -> int | None:
    return next((n for n, rule in enumerate(rules) if matches(rule, combination)), None)


def _all(rules: Iterable[Condition], combination: _Combination) -> list[int]:
    return [number for number, rule in enumerate(rules) if matches(rule, combination)]


def _rejected(framework: str, combination: _Combination, because: str, source: str) -> Rejected:
    return Rejected(
        id=combination.id(framework),
        framework=framework,
        version=combination.version,
        cuda=combination.cuda,
        python=combination.python,
        platform=Platform.parse(combination.platform),
        because=because,
        source=source,
    )


def _add(
    found: Expansion,
    framework: FrameworkFile,
    combination: _Combination,
    cuda: Cuda,
    place: tuple[str, int],
) -> None:
    templates = [*framework.requirements]
    for rule in framework.also:
        if matches(rule, combination):
            templates += rule.requirements
    if cuda.toolkit is None and any("{cuda_toolkit}" in text for text in templates):
        because = f"the package index has no cuda-toolkit release for CUDA {cuda.version}"
        rejected = _rejected(framework.framework, combination, because, cuda.source)
        found.rejected.append(rejected)
        return
    values = {
        "version": combination.version,
        "cuda": combination.cuda,
        "cuda_major": combination.cuda.split(".")[0],
        "cuda_toolkit": cuda.toolkit,
    }
    lowest = _first(framework.sm_min, combination)
    found.cells.append(
        Cell(
            id=combination.id(framework.framework),
            framework=framework.framework,
            version=combination.version,
            cuda=combination.cuda,
            python=combination.python,
            platform=Platform.parse(combination.platform),
            base=framework.bases[combination.python],
            recipe=framework.recipe,
            package=framework.package.format(**values),
            module=framework.module or framework.framework,
            requirements=tuple(text.format(**values) for text in templates),
            constrain=tuple(framework.constrain),
            env=tuple(sorted(framework.env.items())),
            sm_min=framework.sm_min[lowest].sm if lowest is not None else None,
            file=place[0],
            line=place[1],
        )
    )
