"""The real ports of a run on this machine."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from curator import provision
from curator.engine import BuildxEngine, build_secrets
from curator.errors import Diagnostic, HostError, InputError
from curator.farm import Ports, sweep
from curator.host import host_facts
from curator.registry import HttpRegistry
from curator.runner import DockerRunner, Slots
from curator.settings import Place
from curator.store import open_store

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator, Mapping

    from curator.matrix import FarmConfig
    from curator.oci import Digest
    from curator.ports import Registry, Store
    from curator.settings import Settings
    from curator.sign import Signer


@contextmanager
def connected(settings: Settings, farm: FarmConfig, cancelled: threading.Event) -> Iterator[Ports]:
    """Give the ports of one run, and tidy up after it and after killed ones.

    Raises:
        HostError: no engine answers, or no registry is configured and none is embedded.
    """
    found = provision.status(settings.cache)
    if found.engine is None:
        raise HostError("no docker engine answers: start Docker, or run `curator engine up`")
    to, host = destination(settings, farm), host_facts()
    work = settings.cache / "work" / str(os.getpid())
    sweep(work)
    slots = Slots(settings.cache / "gpus" / "local", [gpu.uuid for gpu in host.gpus])
    runner = DockerRunner(found.engine, cancelled, slots)
    runner.sweep()
    try:
        yield Ports(
            engine=BuildxEngine(address=found.engine),
            registry=to.registry,
            runner=runner,
            store=to.store,
            place=to.place,
            host=host,
            secrets=build_secrets(os.environ, work),
            make_base=lambda base, platform, destination: provision.make_base(
                base, platform, destination, cache=settings.cache
            ),
            now=to.now,
            signer=to.signer,
            work=work,
            logs=_logs(settings),
        )
    finally:
        shutil.rmtree(work, ignore_errors=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class RealDestination:
    """`curator.farm.Destination` on this machine's configuration."""

    registry: Registry
    store: Store
    place: Place
    now: Callable[[], str]
    signer: Signer | None
    expect: Mapping[str, Digest | None] = field(default_factory=dict)


def destination(settings: Settings, farm: FarmConfig) -> RealDestination:
    """Return where images and the index are published.

    Raises:
        HostError: no registry is configured and none is embedded.
    """
    place = registry_of(settings)
    if place is None:
        raise HostError(
            "no registry is configured: name one (--registry, CURATOR_REGISTRY, matrix/farm.yaml), "
            "or run `curator engine up` for an embedded one"
        )
    registry = HttpRegistry(deadline_s=farm.registry_timeout_s)
    store = open_store(settings.store, os.environ)
    return RealDestination(
        registry=registry, store=store, place=place, now=now, signer=signer_of(os.environ)
    )


def signer_of(environ: Mapping[str, str]) -> Signer | None:
    """Return who signs, if `CURATOR_SIGNING_KEY` names private keys (PEM files, with : between).

    Raises:
        InputError: a file cannot be read, or is no key.
    """
    from curator.sign import signer  # noqa: PLC0415 - 60 ms

    paths = [Path(text) for text in environ.get("CURATOR_SIGNING_KEY", "").split(":") if text]
    if not paths:
        return None
    try:
        pems = [path.read_bytes() for path in paths]
    except OSError as error:
        message = f"CURATOR_SIGNING_KEY: cannot read {error.filename}: {error.strerror}"
        raise InputError(Diagnostic(code="key", message=message)) from error
    password = environ.get("CURATOR_SIGNING_PASSWORD")
    return signer(pems, password.encode() if password else None)


def registry_of(settings: Settings) -> Place | None:
    """Return the configured registry, else the embedded one if it runs."""
    name = settings.registry or provision.status(settings.cache).registry
    return Place.parse(name) if name else None


def _logs(settings: Settings) -> Path:
    return settings.logs / f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{os.getpid()}"


def now() -> str:
    """Return the time as documents hold it."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
