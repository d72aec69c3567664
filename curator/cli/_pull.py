"""What the verbs for pullers share: which host, which index, and how both are told."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from curator.cli._console import Console, located
from curator.errors import Diagnostic, InputError, RefusedError, TemporaryError
from curator.settings import ADDRESS, reader_cache

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from curator.ports import Store
    from curator.resolve import Catalogue, Gpu, Host, Judgement

MAX_PASTE: Final = 1024 * 1024
TIMEOUT_S: Final = 30.0


class _Paste(click.File):
    """A file, or stdin if that is open."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:  # noqa: ANN401 - click's own
        if value == "-" and sys.stdin is None:
            self.fail("stdin is closed", param, ctx)
        return super().convert(value, param, ctx)


def _options(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def decorated(function: Any) -> Any:  # noqa: ANN401 - a verb
        for option in reversed(options):
            function = option(function)
        return function

    return decorated


host_options = _options(
    click.option("--driver", metavar="VERSION", help="NVIDIA driver: 535, 535.104.05."),
    click.option(
        "--gpu",
        "gpus",
        multiple=True,
        metavar="NAME",
        help="GPU: A100, 'RTX 4090', sm_80, 8.0; several times, or with commas, for several.",
    ),
    click.option("--arch", metavar="NAME", help="x86_64 (amd64) or aarch64 (arm64)."),
    click.option(
        "--nvidia-smi",
        "pasted",
        type=_Paste("r", errors="replace"),
        metavar="FILE",
        help="What nvidia-smi printed, in place of --driver and --gpu; - is stdin.",
    ),
)
index_options = _options(
    click.option(
        "--index",
        metavar="PLACE",
        help="The index: https://HOST/PATH, a directory, or azure:CONTAINER (CURATOR_INDEX; else "
        "the farm's store).",
    ),
    click.option(
        "--key",
        "keys",
        multiple=True,
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        metavar="FILE",
        help="A public key that has to sign the index.",
    ),
    click.option("--threshold", type=click.IntRange(1), default=1, help="How many have to sign."),
    click.option("--offline", is_flag=True, help="Read the copy of before; ask no network."),
)


def catalogue_of(
    console: Console, given: dict[str, Any], *, timeout_s: float = TIMEOUT_S
) -> Catalogue:
    """Return the images of the index that the flags name.

    Raises:
        RefusedError: there is none, or no copy of it where nothing else may be asked.
    """
    from curator.reader import read_catalogue  # noqa: PLC0415 - not for every verb

    place = place_of(console, given["index"])
    offline = given["offline"]
    try:
        return read_catalogue(
            place if offline else opened(place, given["index"]),
            keys=given["keys"],
            threshold=given["threshold"],
            cache=reader_cache(place),
            offline=offline,
            timeout_s=timeout_s,
        )
    except RefusedError as error:
        told = f"{_shown(place)}: {error}: name another place (--index, CURATOR_INDEX)"
        raise RefusedError(told) from error
    except TemporaryError as error:
        if not offline:
            raise
        told = f"{_shown(place)} was never read here: read it once without --offline"
        raise RefusedError(told) from error


def opened(place: str, index: str | None) -> str | Store:
    """Return how to read a place: an index as everybody does, a store in Azure with its login."""
    is_index = bool(index or os.environ.get("CURATOR_INDEX"))
    if not ADDRESS.match(place) or (is_index and not place.lower().startswith("azure:")):
        return place
    from curator.store import open_store  # noqa: PLC0415 - not for every verb

    return open_store(place, os.environ)


def _shown(place: str) -> str:
    from curator.store import shown  # noqa: PLC0415 - not for every verb

    return shown(place)


def place_of(console: Console, index: str | None) -> str:
    """Return where the index is: flag, environment, the farm that we stand in, the embedded one."""
    environ = os.environ
    place = located(index or environ.get("CURATOR_INDEX") or environ.get("CURATOR_STORE"))
    if place:
        return place
    from curator.settings import Overrides, cache_directory, find_root, resolve  # noqa: PLC0415

    try:
        root = find_root(Path())
    except InputError:
        return str(cache_directory(environ) / "store")
    _, loaded = console.load()
    return resolve(root, loaded.farm, environ, Overrides()).store


def is_host_told(given: dict[str, Any]) -> bool:
    """Say whether flags describe a host."""
    return given["pasted"] is not None or any(given[name] for name in ("driver", "gpus", "arch"))


def host_of(given: dict[str, Any]) -> Host:
    """Return the host that the flags describe, or without any of them this one."""
    from curator import resolve as rules  # noqa: PLC0415

    file, driver, arch = given["pasted"], given["driver"], given["arch"]
    try:
        if not is_host_told(given):
            from curator.host import this_host  # noqa: PLC0415

            return this_host(os.environ)
        host = rules.Host() if file is None else rules.pasted(file.read(MAX_PASTE))
        gpus = _gpus(given["gpus"]) or host.gpus
        return rules.Host(
            driver=rules.driver(driver) if driver else host.driver,
            gpus=gpus,
            architecture=rules.architecture(arch) if arch else rules.architecture_of(gpus),
        )
    except ValueError as error:
        raise InputError(Diagnostic(code="host", message=str(error))) from error


def _gpus(texts: Iterable[str]) -> tuple[Gpu, ...]:
    from curator import resolve as rules  # noqa: PLC0415

    names = [name for text in texts for name in text.split(",") if name.strip()]
    return tuple(rules.gpu(name) for name in names)


def described(host: Host) -> str:
    """Say what a host is, in a few words."""
    gpus = ", ".join(str(gpu) for gpu in host.gpus)
    driver = f"driver {host.driver}" if host.driver else "a driver that is not known"
    if not host.gpus and host.driver is None:
        return f"a host of which no NVIDIA GPU is known ({host.architecture})"
    return f"{gpus or 'a GPU that is not known'} with {driver} ({host.architecture})"


def gate_lines(judgement: Judgement) -> Iterator[str]:
    """Yield each gate with its rule, numbers and source."""
    for gate in judgement.gates:
        about = "" if gate.gpu is None else f" GPU {gate.gpu}"
        yield f"  {gate.gate}{about} {gate.answer.says:<7} {gate.answer.text}"
        yield f"      [{gate.answer.rule}] {gate.answer.source}"
