"""What is about a store in Azure alone: HTTP as readers see it, and what others wrote there."""

from __future__ import annotations

import gzip
import http.client
import io
import json
import os
import time
import tracemalloc
import zlib
from typing import TYPE_CHECKING

import pytest
from azure.storage.blob import ContentSettings

from curator.errors import ConflictError, IntegrityError
from curator.store import open_store
from curator.store._location import AzureLocation, parse_location
from curator.store.azure_blob import open_container
from curator.store.directory import MAX_BYTES
from tests.azurite import Azurite, data

if TYPE_CHECKING:
    from collections.abc import Mapping

    from curator.ports import Store

DOCUMENT = json.dumps({"entries": ["pytorch-2.9.1-cuda12.8-py3.12"] * 40}).encode()


@pytest.fixture
def container(azurite: Azurite) -> str:
    """A container that stands there, empty."""
    return azurite.created()


@pytest.fixture
def store(azurite: Azurite, container: str) -> Store:
    return open_store(azurite.location(container), azurite.environ)


def upload(
    azurite: Azurite, container: str, path: str, stored: bytes, encoding: str | None = None
) -> None:
    """Put bytes there as they are, as somebody else would."""
    settings = ContentSettings(content_encoding=encoding)
    with azurite.client(container) as client:
        client.upload_blob(path, stored, content_settings=settings)


def get(
    azurite: Azurite, container: str, path: str, headers: Mapping[str, str] | None = None
) -> tuple[int, Mapping[str, str], bytes]:
    """Ask for a document as any reader would."""
    connection = http.client.HTTPConnection(azurite.address, timeout=10)
    where = f"/{azurite.account}/{container}/{path}?{azurite.sas(container, 'r')}"
    connection.request("GET", where, headers=dict(headers or {}))
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, {k.lower(): v for k, v in response.headers.items()}, body


def test_immutable_documents_are_small_and_may_be_kept_for_ever(
    azurite: Azurite, container: str, store: Store
) -> None:
    store.add("v1/gen/1.json", DOCUMENT)
    status, headers, body = get(azurite, container, "v1/gen/1.json")
    assert status == 200
    assert headers["cache-control"] == "public, max-age=31536000, immutable"
    assert headers["content-encoding"] == "gzip"
    assert (len(body) < len(DOCUMENT) / 4, gzip.decompress(body)) == (True, DOCUMENT)
    assert data(store, "v1/gen/1.json") == DOCUMENT


def test_what_gzip_would_not_make_smaller_is_stored_as_it_is(
    azurite: Azurite, container: str, store: Store
) -> None:
    noise = os.urandom(512)
    store.add("v1/noise", noise)
    _, headers, body = get(azurite, container, "v1/noise")
    assert ("content-encoding" in headers, body) == (False, noise)


def test_the_same_document_is_stored_as_the_same_bytes(azurite: Azurite, container: str) -> None:
    for prefix in ("a", "b"):
        open_store(f"azure:{container}/{prefix}", azurite.environ).add("x.json", DOCUMENT)
        time.sleep(0.6)
    stored = [get(azurite, container, f"{prefix}/x.json")[2] for prefix in ("a", "b")]
    assert stored[0] == stored[1]


def test_mutable_documents_are_asked_for_each_time_and_sent_when_they_changed(
    azurite: Azurite, container: str, store: Store
) -> None:
    etag = store.replace("v1/head.json", DOCUMENT, None)
    status, headers, body = get(azurite, container, "v1/head.json")
    assert (status, body) == (200, DOCUMENT)
    assert (headers["cache-control"], headers["etag"]) == ("no-cache", etag)
    assert get(azurite, container, "v1/head.json", {"If-None-Match": etag})[0] == 304
    newer = store.replace("v1/head.json", b"{}", etag)
    assert newer != etag
    assert get(azurite, container, "v1/head.json", {"If-None-Match": etag})[0] == 200


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("index.json", "application/json"),
        ("feed.xml", "application/atom+xml"),
        ("badge.svg", "image/svg+xml"),
        ("index.html", "text/html; charset=utf-8"),
        ("README.md", "text/markdown; charset=utf-8"),
        ("v1/json", "application/octet-stream"),
        ("v1/lock.txt", "application/octet-stream"),
    ],
)
def test_browsers_are_told_what_a_document_is(
    azurite: Azurite, container: str, store: Store, path: str, media_type: str
) -> None:
    store.add(path, b"x")
    assert get(azurite, container, path)[1]["content-type"] == media_type


# What stands there and is not ours


def zeros(size_bytes: int) -> bytes:
    """Return as many zeros, compressed."""
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=1, mtime=0) as file:
        for _ in range(size_bytes >> 20):
            file.write(bytes(1 << 20))
    return buffer.getvalue()


def test_a_bomb_is_refused_before_it_fills_the_memory(
    azurite: Azurite, container: str, store: Store
) -> None:
    upload(azurite, container, "v1/bomb", zeros(4 * MAX_BYTES), "gzip")
    upload(azurite, container, "v1/largest", zeros(MAX_BYTES), "gzip")
    tracemalloc.start()
    with pytest.raises(IntegrityError, match="more than any document has"):
        store.read("v1/bomb")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.5 * MAX_BYTES
    assert len(data(store, "v1/largest")) == MAX_BYTES


def test_what_is_too_big_is_neither_read_nor_written(
    azurite: Azurite, container: str, store: Store
) -> None:
    big = bytes(MAX_BYTES + 1)
    upload(azurite, container, "v1/big", big)
    with pytest.raises(IntegrityError, match="more than any document has"):
        store.read("v1/big")
    with pytest.raises(IntegrityError, match="more than any document has"):
        store.add("v1/too", big)
    with pytest.raises(IntegrityError, match="more than any document has"):
        store.replace("v1/too", big, None)


@pytest.mark.parametrize(
    ("stored", "encoding"),
    [
        (gzip.compress(DOCUMENT, mtime=0)[:-9], "gzip"),
        (gzip.compress(DOCUMENT, mtime=0) * 2, "gzip"),
        (gzip.compress(DOCUMENT, mtime=0) + b"more", "gzip"),
        (DOCUMENT, "gzip"),
        (b"", "gzip"),
        (zlib.compress(DOCUMENT), "deflate"),
        (DOCUMENT, "br"),
        (gzip.compress(gzip.compress(DOCUMENT, mtime=0), mtime=0), "gzip, gzip"),
    ],
)
def test_what_is_not_encoded_as_we_do_is_refused(
    azurite: Azurite, container: str, store: Store, stored: bytes, encoding: str
) -> None:
    upload(azurite, container, "v1/x", stored, encoding)
    with pytest.raises(IntegrityError, match="v1/x"):
        store.read("v1/x")


def test_the_same_bytes_by_another_compressor_are_the_same(
    azurite: Azurite, container: str, store: Store
) -> None:
    upload(azurite, container, "v1/x.json", gzip.compress(DOCUMENT, compresslevel=1), "gzip")
    store.add("v1/x.json", DOCUMENT)
    with pytest.raises(ConflictError):
        store.add("v1/x.json", DOCUMENT + b" ")


def test_what_somebody_else_wrote_can_be_replaced(
    azurite: Azurite, container: str, store: Store
) -> None:
    upload(azurite, container, "v1/head.json", b"1")
    blob = store.read("v1/head.json")
    assert blob is not None
    etag = store.replace("v1/head.json", b"2", blob.etag)
    assert (data(store, "v1/head.json"), store.replace("v1/head.json", b"3", etag) != etag) == (
        b"2",
        True,
    )


def test_a_list_has_every_page_and_only_our_names(azurite: Azurite, container: str) -> None:
    place = parse_location(f"azure:{container}/p", azurite.environ)
    assert isinstance(place, AzureLocation)
    store = open_container(place, page_size=3)
    paths = [f"v1/gen/{number}.json" for number in range(10)]
    for path in paths:
        store.add(path, path.encode())
    for name in ("p/v1/gen/.hidden", "p/v1//x", "px/v1/gen/1", "v1/gen/1", "p/v1/gen/é"):
        upload(azurite, container, name, b"x")
    assert store.list("v1/gen/") == tuple(paths)
    assert store.list("") == tuple(paths)
