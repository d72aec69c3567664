"""An index that readers are tried on, and what opens it."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest

import curator
from curator.cli._ports import now
from curator.oci import canonical_json
from tests.publishing import Farm
from tests.wire import identity

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from curator.reader._reader import IndexReader
    from curator.sign import Signer
    from tests.serving import Site

EMPTY = {"Content-Length": "0"}


def opened(place: Site | str, cache: Path | None = None, **options: Any) -> IndexReader:
    """Open an index as a tool would, with patience."""
    address = place if isinstance(place, str) else place.address
    return curator.open_index(address, cache=cache, **{"timeout_s": 10.0, **options})


def kind_of(path: str) -> str:
    """Return which document a path names: `head`, `config`, `gen`, `group` or `shard`."""
    return path.split("/")[1].removesuffix(".json")


def new_farm(root: Path, signer: Signer | None = None) -> Farm:
    """Return an index of two images in two groups."""
    farm = Farm(root, signer=signer)
    farm.publish(farm.change(), farm.change("14.1.1"), now=now())
    return farm


def changed(farm: Farm, path: str, **fields: object) -> None:
    """Write over fields of a document of a store."""
    file = farm.root / "store" / path
    file.write_bytes(canonical_json(json.loads(file.read_bytes()) | fields))


@contextlib.contextmanager
def trusting(directory: Path) -> Iterator[None]:
    """Trust one certificate and not the system's many, which take longest of all to load."""
    _, certificate = identity("127.0.0.1", directory)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(certificate))
        yield
