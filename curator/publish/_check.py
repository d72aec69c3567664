"""Holding a store's documents against each other: everything that can be known without a registry.

Nothing here writes. A finding that `repair` can mend says so; what is damaged below the head
cannot be mended in place, and is made again by `rebuild`.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from curator.errors import CuratorError, Diagnostic, InputError, IntegrityError
from curator.index import (
    CONFIG_PATH,
    HEAD_PATH,
    Config,
    evidence_path,
    generation_path,
    group_path,
    parse,
    parse_group,
    parse_head,
    parse_shard,
    read_generation,
    read_groups,
    shard_path,
)
from curator.oci import sha256
from curator.publish._finish import MARKER_PATH
from curator.publish._head import LostError, is_damaged, own_config
from curator.publish._site import SITE_PATH
from curator.sign import verify_head

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from curator.index import Entry, Index, SigningKey, Tip
    from curator.oci import Digest
    from curator.ports import Store

LOOKS: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is not as it should be; `code` names its class."""

    code: str
    subject: str
    message: str
    repairable: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the finding as `--json` shows it."""
        return {
            "code": self.code,
            "subject": self.subject,
            "message": self.message,
            "repairable": self.repairable,
        }


class EarlierConfig(Config):
    """A configuration of before registries were held to what engines take."""

    registry: str

    def renamed(self, registry: str) -> Config:
        """Return the same configuration with a registry that engines take."""
        return parse(Config, self.model_copy(update={"registry": registry}).data, CONFIG_PATH)


@dataclass(slots=True)
class Checked:
    """What a check found, and the newest state as far as it could be read."""

    index: Index | None = None
    tip: Tip | None = None
    config: Config | None = None
    findings: list[Finding] = field(default_factory=list)

    def note(self, code: str, subject: str, message: object, *, repairable: bool = False) -> None:
        """Add a finding."""
        self.findings.append(
            Finding(code=code, subject=subject, message=str(message), repairable=repairable)
        )


def check_store(
    store: Store, now: str, *, keys: Sequence[SigningKey] = (), threshold: int = 1
) -> Checked:
    """Check config, head, the whole chain, and the newest state down to its evidence.

    `keys` are the ones to trust; without any, those that the store's own configuration names.
    """
    return standing(store, lambda: looked_at(store, now, keys, threshold))


def standing(store: Store, look: Callable[[], Checked]) -> Checked:
    """Look until nobody published meanwhile: what was in flux is no finding.

    Beside publishers who never rest, what is said is what two looks found.
    """
    last: list[Finding] = []
    for _ in range(LOOKS):
        before = _moving(store)
        checked = look()
        if not checked.findings or _moving(store) == before:
            return checked
        last, twice = checked.findings, [item for item in checked.findings if item in last]
    checked.findings = twice
    return checked


def _moving(store: Store) -> tuple[object, ...]:
    """Return what every publisher changes: the chain, its head, and what follows them."""
    paths = (HEAD_PATH, MARKER_PATH, SITE_PATH)
    return store.list("v1/gen/"), *(_bytes(store, path) for path in paths)


def _bytes(store: Store, path: str) -> bytes | None:
    try:
        blob = store.read(path)
    except IntegrityError:
        return None
    return blob.data if blob else None


def looked_at(
    store: Store, now: str, keys: Sequence[SigningKey] = (), threshold: int = 1
) -> Checked:
    """Check what `check_store` checks in one look, in which what is in flux is a finding."""
    checked = Checked()
    checked.tip = _chain(store, checked)
    if checked.tip is None:
        return checked
    checked.config = _config(store, checked.tip, checked)
    if not keys and checked.config is not None:
        keys, threshold = checked.config.keys, checked.config.threshold
    _head(store, checked, keys, threshold, now)
    try:
        checked.index = read_groups(store, checked.tip)
    except IntegrityError:
        _below(store, checked.tip, checked)
        return checked
    for entry in checked.index.entries:
        _evidence(store, entry, checked)
    return checked


def _chain(store: Store, checked: Checked) -> Tip | None:
    """Walk every generation from the first; return the last, or None where the chain is broken."""
    tip: Tip | None = None
    last = max((_number(path) for path in store.list("v1/gen/")), default=0)
    for number in range(1, last + 1):
        path = generation_path(number)
        try:
            found = read_generation(store, number)
        except IntegrityError as error:
            checked.note("generation", path, error)
            return None
        if found is None:
            checked.note("generation", path, f"is missing, generation {last} is there")
            return None
        if found.generation.parent != (tip.sha256 if tip else None):
            checked.note("fork", path, f"continues {found.generation.parent}, not its forerunner")
            return None
        if found.generation.record is not None:
            _named(store, evidence_path(found.generation.record), found.generation.record, checked)
        tip = found
    return tip


def _config(store: Store, tip: Tip, checked: Checked) -> Config | None:
    blob = store.read(CONFIG_PATH)
    data = blob.data if blob else None
    try:
        return own_config(data, tip)
    except IntegrityError as error:
        is_earlier = data is not None and earlier_config(data) is not None
        is_repairable = is_earlier or isinstance(error, LostError)
        checked.note("config", CONFIG_PATH, error, repairable=is_repairable)
    return None


def earlier_config(data: bytes) -> EarlierConfig | None:
    """Return a configuration of which nothing but the registry is refused."""
    with suppress(IntegrityError):
        parse(Config, data, CONFIG_PATH)
        return None
    with suppress(IntegrityError):
        return parse(EarlierConfig, data, CONFIG_PATH)
    return None


def _number(path: str) -> int:
    stem = path.rpartition("/")[2].removesuffix(".json")
    return int(stem) if stem.isdecimal() else 0


def _head(
    store: Store, checked: Checked, keys: Sequence[SigningKey], threshold: int, now: str
) -> None:
    tip = checked.tip
    if tip is None:
        return
    blob = store.read(HEAD_PATH)
    if blob is None:
        checked.note("head", HEAD_PATH, "is missing", repairable=True)
        return
    try:
        head = parse_head(blob.data)
    except IntegrityError as error:
        checked.note("head", HEAD_PATH, error, repairable=is_damaged(blob.data))
        return
    number = tip.generation.number
    if head.gen < number:
        message = f"names generation {head.gen}, {number} is committed"
        checked.note("head-behind", HEAD_PATH, message, repairable=True)
    elif head.gen > number or (head.sha256, head.store) != (tip.sha256, tip.generation.store):
        message = f"names generation {head.gen} as {head.sha256}, the chain ends with {number}"
        checked.note("mixed", HEAD_PATH, message)
    if keys:
        try:
            verify_head(head, keys, threshold)
        except IntegrityError as error:
            checked.note("signature", HEAD_PATH, error, repairable=True)
        if head.expires is None or head.expires < now:
            message = f"its signature ended at {head.expires}"
            checked.note("freeze", HEAD_PATH, message, repairable=True)


def _below(store: Store, tip: Tip, checked: Checked) -> None:
    """Say which groups and shards of a state cannot be read, each of them."""
    for name, link in tip.generation.groups.items():
        try:
            data = _named(store, group_path(link.sha256), link.sha256, checked)
            shards = parse_group(data, name, link).shards if data is not None else {}
        except CuratorError as error:
            checked.note("group", name, error)
            continue
        for key, part in shards.items():
            try:
                data = _named(store, shard_path(part.sha256), part.sha256, checked)
                if data is not None:
                    parse_shard(data, key, part)
            except CuratorError as error:
                checked.note("shard", key, error)


def _evidence(store: Store, entry: Entry, checked: Checked) -> None:
    for test in entry.tests:
        _named(store, evidence_path(test.evidence), test.evidence, checked)


def _named(store: Store, path: str, digest: Digest, checked: Checked) -> bytes | None:
    """Return a document that is named by its hash, or note what is wrong with it."""
    kind = path.split("/")[1]
    try:
        blob = store.read(path)
    except IntegrityError as error:
        checked.note(kind, path, error)
        return None
    if blob is None:
        checked.note(kind, path, "is missing")
        return None
    if sha256(blob.data) != digest:
        checked.note(kind, path, f"its bytes hash to {sha256(blob.data)}")
        return None
    return blob.data


def generations(store: Store) -> Iterator[Tip]:
    """Yield the chain's generations, oldest first."""
    number = 1
    while (tip := read_generation(store, number)) is not None:
        yield tip
        number += 1


def generation_of(store: Store, publish: str) -> int | None:
    """Return the number of the generation that holds a publish, by the beginning of its id.

    Raises:
        InputError: several ids begin so.
    """
    found: dict[str, int] = {}
    for tip in generations(store):
        for name in tip.generation.publishes:
            if name.startswith(publish):
                found.setdefault(name, tip.generation.number)
    if len(found) > 1:
        message = f"{len(found)} publishes begin with {publish!r}"
        hint = f"write more of it: {', '.join(name[:16] for name in sorted(found)[:4])}"
        raise InputError(Diagnostic(code="publish", message=message, hint=hint))
    return next(iter(found.values()), None)
