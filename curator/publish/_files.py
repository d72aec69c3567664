"""Bringing the derived files up, by difference: what did not change is not written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING

from packaging.version import Version

from curator.derived import (
    FEED_PATH,
    MAX_ENTRIES,
    WHOLE_PATH,
    Framework,
    View,
    badge,
    badge_path,
    feed,
    framework_file,
    framework_path,
    listed,
    newest,
    schemas,
    whole_file,
)
from curator.index import generation_path, named, read_group, shard_path
from curator.oci import sha256
from curator.publish._head import forward

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from curator.derived import Listed, Recent
    from curator.index import Tip
    from curator.oci import Digest
    from curator.ports import Store
    from curator.publish._values import Target

GENERATION = re.compile(rb'\n"generation":(\d{1,18})')


def write_files(
    tip: Tip,
    tips: Sequence[Tip] | None,
    known: Mapping[str, str],
    recent: Sequence[Recent],
    target: Target,
) -> tuple[dict[str, str], list[str]]:
    """Write the derived files of a generation that differ; return all their hashes, and the paths.

    `tips` are the generations whose changes are missing (None: all), `known` the hashes that were
    written before.
    """
    hashes = dict(known)
    written: list[str] = []
    for path, data in derived_files(tip, tips, recent, target).items():
        if known.get(path) == sha256(data):
            continue
        hashes[path] = sha256(data)
        written += forward(target.store, path, partial(_newer, data, tip, target.store))
    return hashes, written


def derived_files(
    tip: Tip, tips: Sequence[Tip] | None, recent: Sequence[Recent], target: Target
) -> dict[str, bytes]:
    """Return the derived files that generations touched; with None all there are, by path."""
    registry, store = str(target.place), target.store
    is_small = tip.generation.count <= MAX_ENTRIES
    whole = _view(tip.generation.groups, tip, store) if is_small else None
    files = {WHOLE_PATH: whole_file(tip, registry, whole)}
    for name in _frameworks(tip, tips):
        framework = _framework(name, tip, store)
        files[framework_path(name)] = framework_file(tip, registry, framework)
        files[badge_path(name)] = badge(framework)
    files[FEED_PATH] = feed(tip.generation.store, registry, recent)
    return {**files, **schemas()}


def _view(names: Iterable[str], tip: Tip, store: Store) -> View:
    """Return what some groups hold; a shard that was read before is not read again."""
    entries: list[Listed] = []
    tags: dict[str, Digest] = {}
    for name in names:
        group = read_group(store, name, tip.generation.groups[name])
        tags |= group.tags
        for link in group.shards.values():
            entries += _listed(_Shard(link.sha256, store))
    return View(entries=entries, tags=tags)


@dataclass(frozen=True, slots=True, eq=False)
class _Shard:
    """A shard in a store, which is the same wherever its hash is."""

    sha256: Digest
    store: Store

    def __hash__(self) -> int:
        return hash(self.sha256)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Shard) and other.sha256 == self.sha256


@lru_cache(maxsize=256)
def _listed(shard: _Shard) -> tuple[Listed, ...]:
    return listed(named(shard.store, shard_path(shard.sha256), shard.sha256))


def _frameworks(tip: Tip, tips: Sequence[Tip] | None) -> list[str]:
    """Return the frameworks that changed: the last part of a repository's name is one."""
    everything = {name.partition("/")[0] for name in tip.generation.groups}
    if tips is None:
        return sorted(everything)
    changed = {
        change.repository.rpartition("/")[2]
        for later in tips
        for change in later.generation.changes
    }
    return sorted(changed & everything)


def _framework(name: str, tip: Tip, store: Store) -> Framework:
    groups = [group for group in tip.generation.groups if group.partition("/")[0] == name]
    count = sum(tip.generation.groups[group].entries for group in groups)
    if count <= MAX_ENTRIES:
        view = _view(groups, tip, store)
        return Framework(name=name, view=view, newest=newest(view.entries))
    return Framework(name=name, view=None, newest=_newest(groups, tip, store))


def _newest(groups: Iterable[str], tip: Tip, store: Store) -> Listed | None:
    """Return a framework's newest entry by reading as few of its groups as can be."""
    for group in sorted(groups, key=_minor, reverse=True):
        found = newest(_view([group], tip, store).entries)
        if found is not None:
            return found
    return None


def _minor(group: str) -> Version:
    return Version(group.rpartition("/")[2])


def _newer(data: bytes, tip: Tip, store: Store, found: bytes | None) -> bytes | None:
    """Return a derived file, unless what stands there is the same, or of a later generation."""
    is_later = found is not None and _is_later(found, tip.generation.number, store)
    return None if found == data or is_later else data


def _is_later(data: bytes, number: int, store: Store) -> bool:
    """Say whether a file is of a later generation of this chain, which may have been set back."""
    found = _generation_of(data)
    return found > number and store.read(generation_path(found)) is not None


def _generation_of(data: bytes) -> int:
    """Return the generation that a file of ours names; one that names none is older than any."""
    match = GENERATION.search(data)
    return int(match[1]) if match else 0
