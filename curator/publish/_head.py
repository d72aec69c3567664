"""The two documents that decide whom readers believe: the configuration, and the head.

- Where a chain exists, the chain says which store it is. A configuration that is lost, or another
  store's, stops every writer until a repair has written it again.
- On a signed index neither is written by anybody who lacks the keys.
- The head only moves forward; one that a newer curator wrote is left as it is. A signed one is
  signed again when half of its life is over.
- An index that becomes signed gets its signature first and names its keys then. In between nobody
  writes an unsigned head over it, so that a reader never looks for a signature in vain; should the
  first signer die there, all wait for its keys, or for the end of that signature. (Two who give
  one index different keys at once can write over each other, until the first one's publish ends.)
"""

from __future__ import annotations

import json
import logging
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from curator.errors import ConflictError, IntegrityError, MixedError, RefusedError, TemporaryError
from curator.index import (
    CONFIG_PATH,
    HEAD_PATH,
    SPEC,
    Config,
    head_document,
    head_of,
    parse,
    parse_head,
    read_config,
    read_tip,
)
from curator.sign import verify_head

if TYPE_CHECKING:
    from collections.abc import Callable

    from curator.index import Head, Signature, SigningKey, Tip
    from curator.ports import Store
    from curator.publish._values import Target

log = logging.getLogger(__name__)

HEAD_LIFE: Final = timedelta(days=30)
ATTEMPTS: Final = 100


def forward(store: Store, path: str, step: Callable[[bytes | None], bytes | None]) -> list[str]:
    """Replace a mutable document by what `step` makes of it; return what was written.

    `step` is asked again whenever somebody else was faster; None leaves the document as it is.
    """
    for _ in range(ATTEMPTS):
        blob = store.read(path)
        data = step(blob.data if blob else None)
        if data is None:
            return []
        try:
            store.replace(path, data, blob.etag if blob else None)
        except ConflictError:
            continue
        return [path]
    raise TemporaryError(f"{path} changed {ATTEMPTS} times while it was written: try again")


def require_writer(target: Target, tip: Tip | None) -> None:
    """See to it that this publisher may write to the store that holds a chain.

    Raises:
        MixedError: as `config_of`.
        RefusedError: the index is signed, or about to be, and the keys are not here.
        IntegrityError: a newer curator wrote the head.
    """
    config = config_of(target.store, tip) if tip else read_config(target.store)
    if config is None:
        return
    require_keys(config, target)
    if not config.keys and target.signer is None:
        blob = target.store.read(HEAD_PATH)
        _require_unsigned(_head(blob.data) if blob else None, target)


def _require_unsigned(head: Head | None, target: Target) -> None:
    """See to it that the head of an index that has no keys is not signed by who gives it some."""
    if head is not None and head.signatures and not _is_over(head, target, timedelta(0)):
        raise RefusedError(
            f"{HEAD_PATH} is signed, and {CONFIG_PATH} names no keys yet: somebody is giving this "
            f"index keys; publish with these in CURATOR_SIGNING_KEY, or after {head.expires}"
        )


def config_of(store: Store, tip: Tip) -> Config:
    """Return the configuration of a chain's store.

    Raises:
        MixedError: there is none, or another store's.
        IntegrityError: as `own_config`.
    """
    blob = store.read(CONFIG_PATH)
    return own_config(blob.data if blob else None, tip)


class LostError(MixedError):
    """A chain has no configuration that is its own, and is to get one again."""

    def __init__(self, why: str) -> None:
        super().__init__(f"{CONFIG_PATH} {why}: `curator audit --repair` writes it again")


def own_config(data: bytes | None, tip: Tip) -> Config:
    """Read a configuration that has to be the one of a chain's store.

    Raises:
        LostError: it is missing, damaged, or another store's.
        IntegrityError: there is something, and it is not ours to write over.
    """
    store = tip.generation.store
    if data is None:
        raise LostError(f"is missing, the chain is of store {store}")
    try:
        json.loads(data)
    except (ValueError, RecursionError) as error:
        raise LostError(f"is damaged: {error}") from error
    config = parse(Config, data, CONFIG_PATH)
    if config.store != store:
        raise LostError(f"is of store {config.store}, the chain of store {store}")
    return config


def mend_config(target: Target, tip: Tip) -> list[str]:
    """Write a lost configuration again: the store from its chain, the keys from its signed head.

    Raises:
        RefusedError: the head is signed and its keys are not here, or it cannot be asked.
        IntegrityError: as `own_config`.
    """

    def again(data: bytes | None) -> bytes | None:
        try:
            own_config(data, tip)
        except LostError:
            keys = _keys_of_head(target)
            return Config(
                store=tip.generation.store,
                registry=str(target.place),
                keys=keys,
                threshold=max(1, len(keys)),
            ).data
        return None

    return forward(target.store, CONFIG_PATH, again)


def _keys_of_head(target: Target) -> tuple[SigningKey, ...]:
    """Return the keys that signed the head, all of which have to be this publisher's."""
    blob = target.store.read(HEAD_PATH)
    head = _head(blob.data) if blob else None
    if head is None:
        raise RefusedError(
            f"neither {CONFIG_PATH} nor {HEAD_PATH} is there, so nobody can tell whether this "
            f"index is signed: put back a copy of {CONFIG_PATH}"
        )
    if not head.signatures and head.expires is None:
        return ()
    signed = {signature.keyid for signature in head.signatures}
    own = target.signer.public if target.signer else ()
    keys = tuple(key for key in own if key.keyid in signed)
    if not signed or len(keys) < len(signed):
        raise RefusedError(
            f"{CONFIG_PATH} is lost, and {HEAD_PATH} is signed by {len(signed)} keys, "
            f"{len(keys)} of them are here: name all of them in CURATOR_SIGNING_KEY"
        )
    verify_head(head, keys, len(keys))
    return keys


def require_keys(config: Config, target: Target) -> None:
    """See to it that this publisher can sign for the store, if the store is signed.

    Raises:
        RefusedError: the keys for that are not here.
    """
    if not _has_keys(config, target):
        raise RefusedError(
            f"this index is signed: {config.threshold} of {len(config.keys)} keys have to sign, "
            f"{_count(config, target)} of them are here: name them in CURATOR_SIGNING_KEY"
        )


def _has_keys(config: Config, target: Target) -> bool:
    return not config.keys or _count(config, target) >= config.threshold


def _count(config: Config, target: Target) -> int:
    have = {key.keyid for key in target.signer.public} if target.signer else set()
    return len(have & {key.keyid for key in config.keys})


def name_registry(target: Target) -> list[str]:
    """Let the configuration say where images are pulled from, if they moved.

    Raises:
        RefusedError: as `require_keys`.
    """

    def named(data: bytes | None) -> bytes | None:
        config = parse(Config, data, CONFIG_PATH) if data is not None else None
        if config is None or config.registry == str(target.place):
            return None
        require_keys(config, target)
        return config.model_copy(update={"registry": str(target.place)}).data

    return forward(target.store, CONFIG_PATH, named)


def move_head(tip: Tip, target: Target) -> list[str]:
    """Let the head name a generation, unless it names that or a later one, and is well signed.

    Raises:
        MixedError: as `config_of`.
        RefusedError: as `require_writer`.
        IntegrityError: a newer curator wrote the head.
    """
    store = target.store
    return forward(store, HEAD_PATH, lambda data: _moved(data, tip, config_of(store, tip), target))


def sign_first(config: Config, target: Target) -> list[str]:
    """Sign the head, whatever it names, with the keys that the configuration is about to name."""

    def signed(data: bytes | None) -> bytes | None:
        tip = read_tip(target.store)  # of this head, or a later one
        return _moved(data, tip, config, target) if tip else None

    return forward(target.store, HEAD_PATH, signed)


def _moved(data: bytes | None, tip: Tip, config: Config, target: Target) -> bytes | None:
    """Return the head that is to stand for a generation; None if the one that stands is good."""
    before = _head(data) if data is not None else None
    if before is not None and not _is_behind(before, tip, target, config):
        return None
    require_keys(config, target)
    if not config.keys:
        _require_unsigned(before, target)
    head = head_of(tip, target.now, _end(target.now) if config.keys else None, before)
    return head_document(head, _signatures(head, config, target)).data


def _signatures(head: Head, config: Config, target: Target) -> tuple[Signature, ...]:
    """Sign a head with those of this publisher's keys that the index has: it is to have no more."""
    named = {key.keyid for key in config.keys}
    made = target.signer.sign_head(head) if target.signer else ()
    return tuple(signature for signature in made if signature.keyid in named)


def is_damaged(data: bytes) -> bool:
    """Say whether a head that cannot be read is damaged, and not what a newer curator wrote."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return True
    spec = value.get("spec") if isinstance(value, dict) else None
    return not isinstance(spec, int) or spec <= SPEC


def _head(data: bytes) -> Head | None:
    """Return a head; a damaged one is as good as none, whoever can write makes it again."""
    try:
        return parse_head(data)
    except IntegrityError as error:
        if not is_damaged(data):
            raise
        log.warning("writing the head again: %s", error)
        return None


def _is_behind(head: Head, tip: Tip, target: Target, config: Config) -> bool:
    """Say whether a head has to be written again, to name `tip` or to be signed."""
    if head.gen != tip.generation.number:
        return head.gen < tip.generation.number
    if config.keys:
        try:
            verify_head(head, config.keys, config.threshold)
        except IntegrityError:
            return True
    elif head.expires is None:
        return False
    # Who cannot renew a signature leaves one that still holds as it is.
    is_ours = config.keys and _has_keys(config, target)
    return _is_over(head, target, HEAD_LIFE / 2 if is_ours else timedelta(0))


def _is_over(head: Head, target: Target, margin: timedelta) -> bool:
    """Say whether a head's signature ends before that much time is over."""
    return _instant(head.expires or target.now) - _instant(target.now) < margin


def _end(now: str) -> str:
    end = _instant(now).replace(microsecond=0) + HEAD_LIFE
    return end.isoformat().replace("+00:00", "Z")


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text)
