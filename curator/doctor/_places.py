"""The places that are published to: the registry, the store, and the index in it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from curator.doctor._values import Embedded, Finding, Look
from curator.errors import CuratorError, InputError, TemporaryError
from curator.index import HEAD_PATH, read_index, read_tip
from curator.registry import HttpRegistry
from curator.settings import ADDRESS, Place
from curator.store import open_store, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

DEADLINE_S = 8.0
NO_REGISTRY = "name one (--registry, CURATOR_REGISTRY, matrix/farm.yaml), or: curator engine up"


def look_at_registry(look: Look, embedded: Embedded) -> Finding:
    """Ask the registry for tags of the farm's, which takes an answer and the right to read."""
    name = "registry"
    text = look.registry
    if text is None and embedded.status is not None:
        text = embedded.status.registry
    if text is None:
        return Finding(name=name, state="skip", text="none is configured", fix=NO_REGISTRY)
    try:
        place = Place.parse(text)
        HttpRegistry(_logins(look), deadline_s=DEADLINE_S).tags(place.repository("doctor"))
    except InputError as error:
        return _misnamed(name, error, NO_REGISTRY)
    except TemporaryError as error:
        fix = f"is it up, and is {text.partition('/')[0]} its address? (a proxy: HTTPS_PROXY)"
        return Finding(name=name, state="fail", text=str(error), fix=fix)
    except CuratorError as error:
        told, _, login = str(error).partition(": run `docker login")
        fix = f"docker login {place.registry}" if login else "see the message: it names the cause"
        return Finding(name=name, state="fail", text=told, fix=fix)
    return Finding(name=name, state="ok", text=f"{place} answers, and lets us read")


def _misnamed(name: str, error: InputError, fix: str) -> Finding:
    (finding,) = error.diagnostics
    return Finding(name=name, state="fail", text=finding.message, fix=finding.hint or fix)


def _logins(look: Look) -> Path:
    home = Path(look.environ.get("HOME") or Path.home())
    return Path(look.environ.get("DOCKER_CONFIG") or home / ".docker")


def look_at_store(look: Look) -> Iterator[Finding]:
    """Read the head of the store's index, then all of it."""
    if look.store is None:
        fix = "name one (--store, CURATOR_STORE, matrix/farm.yaml)"
        yield Finding(name="store", state="skip", text="none is configured", fix=fix)
        return
    place = shown(look.store)
    try:
        store = open_store(look.store, look.environ)
        head = store.read(HEAD_PATH)
    except InputError as error:
        yield _misnamed("store", error, _opening(look.store))
        return
    except CuratorError as error:
        yield Finding(name="store", state="fail", text=str(error), fix=_opening(look.store))
        return
    if head is None and not ADDRESS.match(look.store) and not Path(look.store).is_dir():
        text = f"there is no directory {place} yet: the first publish makes it"
        yield Finding(name="store", state="warn", text=text, fix="check its name, or publish")
        return
    yield Finding(name="store", state="ok", text=f"{place} answers")
    if head is None:
        yield Finding(name="index", state="skip", text="nothing is published there yet")
        return
    try:
        tip, found = read_tip(store), read_index(store)
    except CuratorError as error:
        fix = f"curator index verify --store {place}"
        yield Finding(name="index", state="fail", text=str(error), fix=fix)
        return
    number = tip.generation.number if tip else 0
    text = f"generation {number} with {len(found.entries)} entries, all of it as its hashes say"
    yield Finding(name="index", state="ok", text=text)


def _opening(store: str) -> str:
    if ADDRESS.match(store):
        return "az login, or AZURE_STORAGE_SAS_TOKEN, AZURE_STORAGE_KEY or a connection string"
    return f"ls -la {store}: who may read it?"
