"""Azurite as tests use it: a real blob service, a container of its own for each test."""

from __future__ import annotations

import contextlib
import http.client
import uuid
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from azure.storage.blob import ContainerClient, generate_container_sas

from curator.errors import ConflictError
from curator.store._location import AzureLocation, parse_location
from curator.store.azure_blob import AzureBlobStore, open_container
from tests.faults import HOP_BY_HOP, UPSTREAM_TIMEOUT_S, FaultProxy, answer, healthy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from curator.ports import Store
    from tests.faults import Fault, Plan, Request
    from tests.wire import Body

ALL_RIGHTS = "racwl"


class BlobProxy(FaultProxy):
    """A proxy in front of Azurite, which tells how long its answers are: not all of them say."""

    def __init__(self, upstream: str = "", plan: Plan = healthy) -> None:
        super().__init__(upstream, plan)
        self._service = upstream

    def gate(self, request: Request, body: Body) -> Fault:
        """Answer with all that Azurite answers."""
        connection = http.client.HTTPConnection(self._service, timeout=UPSTREAM_TIMEOUT_S)
        with contextlib.closing(connection):
            connection.request(request.method, request.path, b"".join(body), request.headers)
            response = connection.getresponse()
            kept = {
                k.title(): v for k, v in response.headers.items() if k.lower() not in HOP_BY_HOP
            }
            return answer(response.status, response.read(), headers=kept)


@dataclass(frozen=True, slots=True, kw_only=True)
class Azurite:
    """An emulated account that answers, by its connection string."""

    connection: str

    @property
    def environ(self) -> Mapping[str, str]:
        """What `open_store` needs beside a location."""
        return {"AZURE_STORAGE_CONNECTION_STRING": self.connection}

    @property
    def endpoint(self) -> str:
        """The account's URL."""
        return self._field("BlobEndpoint")

    @property
    def account(self) -> str:
        """The account's name."""
        return self._field("AccountName")

    @property
    def key(self) -> str:
        """The account's key."""
        return self._field("AccountKey")

    @property
    def address(self) -> str:
        """Where it listens, as `host:port`."""
        return urlsplit(self.endpoint).netloc

    def location(self, container: str) -> str:
        """Return a container as a location that the connection string opens."""
        return f"azure:{container}"

    def through(self, address: str) -> Azurite:
        """Return the same account, seen through a proxy."""
        return replace(self, connection=self.connection.replace(self.address, address))

    def store(self, container: str, *, deadline_s: float = 60.0) -> AzureBlobStore:
        """Return the store in a container."""
        place = parse_location(self.location(container), self.environ)
        assert isinstance(place, AzureLocation)
        return open_container(place, deadline_s=deadline_s)

    def created(self) -> str:
        """Return the name of a container that stands there, empty."""
        name = fresh()
        with self.client(name) as client:
            client.create_container()
        return name

    def client(self, container: str) -> ContainerClient:
        """Return the SDK's own client, for what a store does not do."""
        return ContainerClient.from_connection_string(
            self.connection, container, max_single_put_size=256 << 20
        )

    def sas(self, container: str, rights: str = ALL_RIGHTS, *, seconds: int = 3600) -> str:
        """Return a shared access signature of a container for so long from now."""
        return str(
            generate_container_sas(
                self.account,
                container,
                account_key=self.key,
                permission=rights,
                start=datetime.now(UTC) - timedelta(days=1),
                expiry=datetime.now(UTC) + timedelta(seconds=seconds),
            )
        )

    def _field(self, name: str) -> str:
        fields = dict(item.split("=", 1) for item in self.connection.split(";") if item)
        return fields[name]


def fresh() -> str:
    """Return the name of a container that nobody has used."""
    return f"t-{uuid.uuid4().hex}"


def data(store: Store, path: str) -> bytes:
    """Return a document that is there."""
    blob = store.read(path)
    assert blob is not None
    return blob.data


def count_up(store: Store, times: int) -> int:
    """Count up so many times; return how often somebody else was first."""
    conflicts = 0
    for _ in range(times):
        while True:
            blob = store.read("v1/count")
            number = int(blob.data) if blob else 0
            try:
                store.replace("v1/count", str(number + 1).encode(), blob.etag if blob else None)
            except ConflictError:
                conflicts += 1
                continue
            break
    return conflicts
