"""Where index documents live: one contract, several backends.

    open_store("https://ACCOUNT.blob.core.windows.net/CONTAINER", os.environ)

The library of a cloud is loaded when a store there is opened, and not before.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from curator.errors import HostError
from curator.store._location import parse_location, shown
from curator.store.directory import DirectoryStore

if TYPE_CHECKING:
    from collections.abc import Mapping

    from curator.ports import Store

__all__ = ["DirectoryStore", "open_store", "shown"]


def open_store(location: str, environ: Mapping[str, str]) -> Store:
    """Return the store at a location; nothing is asked or created yet.

    A location is a directory, `https://ACCOUNT.blob.core.windows.net/CONTAINER[/PREFIX]`, or
    `azure:CONTAINER[/PREFIX]` with AZURE_STORAGE_CONNECTION_STRING. What opens an https address is
    a shared access signature (its query, or AZURE_STORAGE_SAS_TOKEN), else AZURE_STORAGE_KEY, else
    the connection string of the same account there, else this machine's login. What belongs to
    another AZURE_STORAGE_ACCOUNT than the address names is not used.

    Raises:
        InputError: the location is none of these, or what should open it is malformed.
        HostError: a library is not installed.
    """
    place = parse_location(location, environ)
    if isinstance(place, Path):
        return DirectoryStore(place)
    try:
        from curator.store import azure_blob  # noqa: PLC0415 - a third of a second
    except ImportError as error:
        message = f"a store in Azure needs more packages: pip install 'curator[azure]' ({error})"
        raise HostError(message) from error
    return azure_blob.open_container(place, certificates=environ.get("SSL_CERT_FILE") or None)
