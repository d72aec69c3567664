"""Places in Azure: what they are called, what opens them, and that it is never shown."""

from __future__ import annotations

import json
import logging
import re
import socket
import subprocess
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from curator.errors import (
    ConflictError,
    CuratorError,
    HostError,
    InputError,
    IntegrityError,
    RefusedError,
)
from curator.store import DirectoryStore, open_store, shown
from curator.store._location import AzureLocation, parse_location
from curator.store.azure_blob import open_container
from tests.azurite import Azurite, BlobProxy, data, fresh
from tests.faults import Fault, Kind, always, answer, matching

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from curator.ports import Store

DOCUMENT = json.dumps({"entries": ["pytorch-2.9.1-cuda12.8-py3.12"] * 40}).encode()
KEY = "c2VjcmV0LWtleS1vZi1hbi1hY2NvdW50"
SAS = "sv=2024-11-04&sp=racwl&sig=c2VjcmV0LXNpZ25hdHVyZQ%3D%3D"
HOST = "https://acct.blob.core.windows.net"
STRING = f"AccountName=acct;AccountKey={KEY}"
ACCOUNT = "AZURE_STORAGE_ACCOUNT"
BY_STRING, BY_KEY, BY_SAS = (
    "AZURE_STORAGE_CONNECTION_STRING",
    "AZURE_STORAGE_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
)


@pytest.fixture
def container(azurite: Azurite) -> str:
    """A container that stands there, empty."""
    return azurite.created()


@pytest.fixture
def store(azurite: Azurite, container: str) -> Store:
    return open_store(azurite.location(container), azurite.environ)


@pytest.mark.parametrize(
    "location",
    ["", "s3://bucket", "file:///tmp/x", "azur:curator", "azure:", "azure:A", "azure:a--b",
     "azure:curator/../x", "azure:curator//x", "azure:curator/.x", "https://",
     "https://acct.blob.core.windows.net", "https://acct.blob.core.windows.net/c c",
     "https://acct.blob.core.windows.net/curator?sv=1", "https://[::1/curator",
     "https://u:hidden@acct.blob.core.windows.net/curator", "http://acct.example/a/curator",
     "http://127.0.0.1:10000/devstoreaccount1", "https://a.example:port/curator",
     "https://acct.blob.core.windows.net/curator#x"],
)  # fmt: skip
def test_what_is_no_place_of_a_store_is_said_with_a_hint(location: str, azurite: Azurite) -> None:
    with pytest.raises(InputError) as caught:
        open_store(location, azurite.environ)
    assert caught.value.diagnostics[0].hint
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {BY_STRING: "nonsense"},
        {BY_STRING: "AccountName=a;AccountKey="},
        {BY_STRING: "AccountName=a;AccountKey=hidden!"},
        {BY_STRING: "AccountName=a;SharedAccessSignature=hidden"},
        {BY_STRING: f"{STRING};BlobEndpoint=http://a.example"},
    ],
)
def test_a_connection_string_that_opens_nothing_is_said(environ: dict[str, str]) -> None:
    with pytest.raises(InputError) as caught:
        open_store("azure:curator", environ)
    assert caught.value.diagnostics[0].hint
    assert not re.search(f"hidden|{KEY}", str(caught.value))


@pytest.mark.parametrize(
    ("location", "environ", "where", "sas", "key"),
    [
        (f"{HOST}/curator", {}, f"{HOST}/curator", None, None),
        (f"{HOST}/$web/dl/x/", {BY_KEY: KEY}, f"{HOST}/$web/dl/x", None, KEY),
        (f"{HOST}/curator?{SAS}", {BY_KEY: KEY}, f"{HOST}/curator", SAS, None),
        (f"{HOST}/curator", {BY_KEY: KEY, BY_SAS: f"?{SAS}"}, f"{HOST}/curator", SAS, None),
        (f"{HOST}/curator", {BY_STRING: STRING}, f"{HOST}/curator", None, KEY),
        (f"{HOST}/c-1", {BY_STRING: STRING.replace("acct", "other")}, f"{HOST}/c-1", None, None),
        ("https://cdn.example/curator", {ACCOUNT: "acct", BY_KEY: KEY},
         "https://cdn.example/curator", None, KEY),
        (f"{HOST}/curator", {ACCOUNT: "acct", BY_KEY: KEY}, f"{HOST}/curator", None, KEY),
        (f"{HOST}/curator", {ACCOUNT: "other", BY_KEY: KEY}, f"{HOST}/curator", None, None),
        (f"{HOST}/curator", {ACCOUNT: "other", BY_SAS: SAS}, f"{HOST}/curator", None, None),
        (f"{HOST}/curator", {ACCOUNT: "other", BY_STRING: STRING}, f"{HOST}/curator", None, KEY),
        (f"{HOST}/curator", {ACCOUNT: "other", BY_STRING: STRING.replace("acct", "other")},
         f"{HOST}/curator", None, None),
        (f"{HOST}/curator", {BY_STRING: f"BlobEndpoint={HOST}:443;SharedAccessSignature={SAS}"},
         f"{HOST}/curator", SAS, None),
        (f"{HOST}/curator",
         {BY_STRING: f"AccountName=acct;BlobEndpoint=https://o.example;AccountKey={KEY}"},
         f"{HOST}/curator", None, None),
        ("https://cdn.example/curator", {ACCOUNT: "acct", BY_STRING: STRING},
         "https://cdn.example/curator", None, None),
        ("https://cdn.example/curator",
         {ACCOUNT: "acct", BY_STRING: f"{STRING};BlobEndpoint=https://cdn.example"},
         "https://cdn.example/curator", None, KEY),
        ("azure:curator/dl", {BY_STRING: f"{STRING};EndpointSuffix=core.chinacloudapi.cn"},
         "https://acct.blob.core.chinacloudapi.cn/curator/dl", None, KEY),
        ("azure:curator", {BY_STRING: f"BlobEndpoint={HOST}/;SharedAccessSignature={SAS}"},
         f"{HOST}/curator", SAS, None),
    ],
)  # fmt: skip
def test_a_place_is_opened_by_the_first_of_what_opens_it(
    location: str, environ: dict[str, str], where: str, sas: str | None, key: str | None
) -> None:
    place = parse_location(location, environ)
    assert isinstance(place, AzureLocation)
    assert (str(place), place.account) == (where, "acct")
    assert (place.sas, place.key) == (sas, key)
    assert not re.search(f"{KEY}|c2Vj", repr(place) + repr(open_store(location, environ)))
    assert "sig" not in shown(location)


@pytest.mark.parametrize("location", ["store", "./a:b", "/srv/x y"])
def test_a_directory_is_a_place(location: str) -> None:
    assert isinstance(open_store(location, {}), DirectoryStore)


@pytest.mark.parametrize("by", ["query", "token", "key", "connection", "url and connection"])
def test_each_way_to_open_a_container_works(azurite: Azurite, container: str, by: str) -> None:
    url = f"{azurite.endpoint}/{container}/dl"
    sas = azurite.sas(container)
    location, environ = {
        "query": (f"{url}?{sas}", {}),
        "token": (url, {"AZURE_STORAGE_SAS_TOKEN": sas}),
        "key": (url, {"AZURE_STORAGE_KEY": azurite.key}),
        "connection": (azurite.location(f"{container}/dl"), dict(azurite.environ)),
        "url and connection": (url, dict(azurite.environ)),
    }[by]
    store = open_store(location, environ)
    store.add("v1/x.json", DOCUMENT)
    etag = store.replace("v1/head.json", b"1", None)
    store.replace("v1/head.json", b"2", etag)
    assert (data(store, "v1/x.json"), data(store, "v1/head.json")) == (DOCUMENT, b"2")
    assert store.list("") == ("v1/head.json", "v1/x.json")
    with store.turn("publish"), azurite.client(container) as client:
        assert client.download_blob("dl/v1/head.json").readall() == b"2"


def test_the_first_write_creates_the_container_and_reading_does_not(azurite: Azurite) -> None:
    name = fresh()
    store = open_store(azurite.location(name), azurite.environ)
    with azurite.client(name) as client:
        assert (store.read("v1/x"), store.list(""), client.exists()) == (None, (), False)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda number: store.add(f"v1/{number}", b"x"), range(4)))
        assert len(store.list("")) == 4


def test_what_may_not_create_the_container_is_told_how_it_is_made(azurite: Azurite) -> None:
    name = fresh()
    store = open_store(f"{azurite.endpoint}/{name}?{azurite.sas(name)}", {})
    with pytest.raises(HostError, match=f"az storage container create .* --name {name}"):
        store.replace("v1/head.json", b"1", None)


def test_who_may_only_read_is_refused_with_what_it_takes(
    azurite: Azurite, container: str, store: Store
) -> None:
    store.add("v1/x", b"x")
    reader = open_store(f"{azurite.endpoint}/{container}?{azurite.sas(container, 'rl')}", {})
    assert data(reader, "v1/x") == b"x"
    with pytest.raises(RefusedError, match="sp=racwl"):
        reader.add("v1/y", b"y")
    with pytest.raises(RefusedError, match="sp=racwl"):
        reader.replace("v1/head", b"y", None)


def test_who_may_create_but_not_overwrite_can_still_add(
    azurite: Azurite, container: str, store: Store
) -> None:
    # Azure's own words; Azurite has others for it.
    told = answer(403, headers={"x-ms-error-code": "UnauthorizedBlobOverwrite"})
    store.add("v1/x", b"x")
    with BlobProxy(azurite.address, matching("^PUT", told)) as proxy:
        adder = azurite.through(proxy.address).store(container)
        adder.add("v1/x", b"x")
        with pytest.raises(ConflictError):
            adder.add("v1/x", b"y")


def test_what_opened_it_once_and_has_expired_is_said(azurite: Azurite, container: str) -> None:
    late = azurite.sas(container, seconds=-60)
    store = open_store(f"{azurite.endpoint}/{container}?{late}", {})
    with pytest.raises((HostError, RefusedError)):
        store.read("v1/x")


@pytest.mark.parametrize(
    ("status", "code", "error", "told"),
    [
        (403, "AuthenticationFailed", HostError, "this machine's clock"),
        (401, "NoAuthenticationInformation", HostError, "is not accepted"),
        (403, "KeyBasedAuthenticationNotPermitted", HostError, "az login"),
        (403, "AuthorizationPermissionMismatch", RefusedError, "Storage Blob Data Contributor"),
        (403, "AccountIsDisabled", RefusedError, "AccountIsDisabled"),
        (404, "", RefusedError, "404"),
        (400, "InvalidHeaderValue", RefusedError, "400"),
        (307, "", RefusedError, "307"),
        (200, "", IntegrityError, "no answer of blob storage"),
    ],
)
def test_a_refusal_is_told_with_what_to_do_and_not_repeated(
    azurite: Azurite, status: int, code: str, error: type[CuratorError], told: str
) -> None:
    headers = {"x-ms-error-code": code} if code else {"Location": "http://127.0.0.1:9/"}
    with BlobProxy(plan=always(answer(status, b"<html>", headers=headers))) as proxy:
        store = azurite.through(proxy.address).store(fresh())
        with pytest.raises(error, match=told) as caught:
            store.read("v1/x")
        assert len(proxy.exchanges) == 1
    assert type(caught.value) is error


def test_without_any_login_it_is_said_what_opens_a_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential")
    store = open_store("https://acct.blob.invalid/curator", {})
    with pytest.raises(HostError, match=r"AZURE_STORAGE_SAS_TOKEN .* `az login`"):
        store.read("v1/x")


def run_python(program: str) -> str:
    command = [sys.executable, "-c", program]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_the_library_is_loaded_when_a_store_in_azure_is_opened() -> None:
    program = (
        "import sys; from curator.store import open_store; open_store('store', {});"
        "print([name for name in sys.modules if name in {'azure', 'requests'}])"
    )
    assert run_python(program) == "[]\n"


def test_without_the_library_it_is_said_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "azure.py").write_text("")
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from curator.errors import HostError\n"
        "from curator.store import open_store\n"
        f"try: open_store('https://acct.blob.core.windows.net/curator?{SAS}', {{}})\n"
        "except HostError as error: print(error)"
    )
    told = run_python(program)
    assert "pip install 'curator[azure]'" in told
    assert "sig=" not in told


# Secrets


def failing(store: Store) -> list[BaseException]:
    """Return what each call of a store that does not work raises."""
    calls: list[Callable[[], object]] = [
        lambda: store.read("v1/x"),
        lambda: store.add("v1/x", b"x"),
        lambda: store.replace("v1/x", b"x", None),
        lambda: store.replace("v1/x", b"x", '"1"'),
        lambda: store.list("v1/"),
    ]
    caught: list[BaseException] = []
    for call in calls:
        with pytest.raises(CuratorError) as raised:
            call()
        caught.append(raised.value)
    return caught


def chain(error: BaseException | None) -> list[BaseException]:
    """Return an error and everything that it came from."""
    found: list[BaseException] = []
    while error is not None:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


@pytest.mark.parametrize(
    "fault",
    [
        answer(403, headers={"x-ms-error-code": "AuthenticationFailed"}),
        answer(400, b"<html>"),
        answer(500),
        answer(302, headers={"Location": "http://127.0.0.1:9/"}),
        Fault(kind=Kind.RESET_BEFORE),
        None,
    ],
    ids=["403", "400", "500", "302", "reset", "nobody"],
)
def test_what_opens_a_store_is_never_shown(
    fault: Fault | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with BlobProxy(plan=always(fault or answer(500))) as proxy, socket.create_server(("", 0)) as s:
        nobody = f"127.0.0.1:{s.getsockname()[1]}"
        s.close()
        url = f"http://{proxy.address if fault else nobody}/acct/curator"
        for location, environ in ((f"{url}?{SAS}", {}), (url, {"AZURE_STORAGE_KEY": KEY})):
            place = parse_location(location, environ)
            assert isinstance(place, AzureLocation)
            store = open_container(place, deadline_s=0.05)
            errors = [link for error in failing(store) for link in chain(error)]
            told = [repr(store), repr(vars(store)), *map(repr, errors), *map(str, errors)]
            told += ["".join(traceback.format_exception(error)) for error in errors]
            everything = "\n".join([*told, *(record.getMessage() for record in caplog.records)])
            assert not re.search("c2Vj", everything)
            assert proxy.exchanges or not fault
