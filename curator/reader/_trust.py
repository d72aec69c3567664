"""What a head is held against: keys, clock, and what was seen of the index before."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from curator.errors import (
    ForkError,
    FreezeError,
    IntegrityError,
    MixedError,
    RollbackError,
    StrangerError,
)
from curator.places import CONFIG_PATH
from curator.reader._values import MovedError, Pins

if TYPE_CHECKING:
    from collections.abc import Callable

    from curator.index import Config, Head, SigningKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """The keys that were given, of which so many have to sign; the clock; and where pins stand."""

    trusted: tuple[SigningKey, ...]
    threshold: int
    now: Callable[[], str]
    pins_file: str

    def verify(self, head: Head, config: Config, pins: Pins | None, *, is_offline: bool) -> None:
        """Hold a head against keys, clock, and what was seen before.

        A copy was held against what was seen when it was made, and may be older than that since.

        Raises:
            IntegrityError: as the module's text says.
        """
        keys, threshold = self._keys(config, pins)
        if keys:
            from curator.sign import verify_head  # noqa: PLC0415 - only where it is signed

            verify_head(head, keys, threshold)
        self._refuse_strange(head, config, pins)
        if config.store != head.store:
            raise MixedError(f"{CONFIG_PATH} is of store {config.store}, the head of another")
        if not is_offline:
            _refuse_old(head, pins)
        if head.expires is not None and _instant(head.expires) < _instant(self.now()):
            raise FreezeError(
                f"generation {head.gen} was signed until {head.expires}: nobody has signed a newer "
                "one, or it is held back"
            )

    def _refuse_strange(self, head: Head, config: Config, pins: Pins | None) -> None:
        if pins is None:
            return
        if pins.store != head.store:
            told = f"store {head.store} stands where {pins.store} was read before"
        elif pins.keys and pins.registry != config.registry:
            # The signature is not over it, so that whoever writes the store could lead us there.
            told = f"its images were in {pins.registry} and are said to be in {config.registry}"
        else:
            return
        raise StrangerError(f"{told}: if that is right, delete {self.pins_file}")

    def _keys(self, config: Config, pins: Pins | None) -> tuple[tuple[SigningKey, ...], int]:
        """Return the keys to trust: those that were given, else the pinned, else the index's own.

        Raises:
            StrangerError: the index names other keys, or a lower threshold, than are pinned.
        """
        if self.trusted:
            return self.trusted, self.threshold
        if pins is None or not pins.keys:
            return config.keys, config.threshold
        if _named_keys(config) != pins.keys or config.threshold < pins.threshold:
            raise StrangerError(
                "the index names other keys than those it was first read with: if that is right, "
                f"delete {self.pins_file}"
            )
        from curator.sign import public_key  # noqa: PLC0415 - only where it is signed

        return tuple(public_key(pem.encode()) for pem in pins.keys.values()), pins.threshold

    def risen(self, now: Pins | None, before: Pins | None, head: Head, config: Config) -> Pins:
        """Return the pins after a verified head.

        Raises:
            MovedError: another reader saw a later head meanwhile: look again.
            StrangerError: another reader saw another store meanwhile.
        """
        self._refuse_strange(head, config, now)
        if now is not None and now != before and now.gen > head.gen:
            raise MovedError(RollbackError(f"generation {now.gen} was seen here meanwhile"))
        _refuse_old(head, now)
        keys = _named_keys(config) or {key.keyid: key.public for key in self.trusted}
        return Pins(
            store=head.store,
            registry=config.registry,
            keys=now.keys if now and now.keys else keys,
            threshold=max(config.threshold, now.threshold if now else 1),
            gen=head.gen,
            sha256=head.sha256,
        )


def _named_keys(config: Config) -> dict[str, str]:
    return {key.keyid: key.public for key in config.keys}


def _refuse_old(head: Head, pins: Pins | None) -> None:
    if pins is None:
        return
    if head.gen < pins.gen:
        raise RollbackError(f"generation {head.gen} is shown, {pins.gen} was seen here before")
    if head.gen == pins.gen and head.sha256 != pins.sha256:
        raise ForkError(f"generation {head.gen} is {head.sha256}, it was {pins.sha256} before")


def _instant(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise IntegrityError(f"{text!r} is no time: {error}") from error
