"""Docker's logins, and what registries ask for: what goes into the Authorization header."""

from __future__ import annotations

import base64
import json
import logging
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from curator.errors import CuratorError, HostError, RefusedError
from curator.oci import Reference
from curator.registry import HttpRegistry
from tests.faults import Fault, FaultProxy, Request, answer
from tests.tokens import basic

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BASIC = {"WWW-Authenticate": 'Basic realm="a registry"'}


class Server(FaultProxy):
    """A registry without images that asks for a login, and keeps what it was told."""

    challenge = BASIC

    def __init__(self) -> None:
        super().__init__(plan=self.answer)

    def answer(self, request: Request) -> Fault:
        if request.path.startswith("/token"):
            return answer(200, b'{"access_token": "t0ken"}')
        known = "authorization" in request.headers
        return answer(404) if known else answer(401, headers=self.challenge)

    @property
    def told(self) -> list[str]:
        """The Authorization headers so far."""
        headers = (exchange.request.headers for exchange in self.exchanges)
        return [found["authorization"] for found in headers if "authorization" in found]

    @property
    def tokens(self) -> list[str]:
        """What the token server was asked."""
        return [asked for asked in self.asked if "/token" in asked]

    @property
    def image(self) -> Reference:
        return Reference(registry=self.address, repository="x", tag="one")


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest.fixture
def config(tmp_path: Path) -> Path:
    directory = tmp_path / "docker"
    directory.mkdir()
    return directory


def write(config: Path, value: object) -> None:
    (config / "config.json").write_text(json.dumps(value))


def encoded(user: str, secret: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{secret}".encode()).decode()}


def helper(tmp_path: Path, name: str, body: str) -> None:
    """Put a credential helper on PATH; what it is asked is appended to `asked`."""
    program = tmp_path / "bin" / f"docker-credential-{name}"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!/bin/sh\nread host\necho $1 $host >> {tmp_path}/asked\n{body}\n")
    program.chmod(0o755)


def gives(user: str, secret: str) -> str:
    document = json.dumps({"ServerURL": "x", "Username": user, "Secret": secret})
    return f"echo '{document}'"


@pytest.fixture
def helpers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    return tmp_path


# Where a login comes from


def test_a_login_of_docker_is_used(server: Server, config: Path) -> None:
    write(config, {"auths": {server.address: encoded("ada", "a:b c")}})
    assert HttpRegistry(config).resolve(server.image) is None
    assert server.told == [basic("ada", "a:b c")]


@pytest.mark.parametrize("key", ["HOST", "https://HOST", "http://HOST/v1/", "https://HOST/v2/"])
def test_a_login_is_found_under_every_key_that_docker_writes(
    key: str, server: Server, config: Path, helpers: Path
) -> None:
    key = key.replace("HOST", server.address)
    write(config, {"auths": {"other.example": encoded("eve", "x"), key: encoded("ada", "x")}})
    HttpRegistry(config).resolve(server.image)
    helper(helpers, "own", gives("own", "1"))
    write(config, {"auths": {key: {}}, "credsStore": "own"})
    HttpRegistry(config).resolve(server.image)
    assert server.told == [basic("ada", "x"), basic("own", "1")]
    assert (helpers / "asked").read_text() == f"get {key}\n"  # it knows the login by that


def test_the_very_host_goes_before_its_addresses(server: Server, config: Path) -> None:
    auths = {
        f"https://{server.address}/v1/": encoded("old", "1"),
        server.address: encoded("a", "2"),
    }
    write(config, {"auths": auths})
    HttpRegistry(config).resolve(server.image)
    assert server.told == [basic("a", "2")]


def test_a_login_in_plain_fields_is_used(server: Server, config: Path) -> None:
    write(config, {"auths": {server.address: {"username": "ada", "password": "a:b"}}})
    HttpRegistry(config).resolve(server.image)
    assert server.told == [basic("ada", "a:b")]


def test_a_registry_whose_helper_is_none_has_its_login_in_the_file(
    server: Server, config: Path
) -> None:
    auths = {server.address: encoded("ada", "x")}
    write(
        config, {"auths": auths, "credHelpers": {server.address: ""}, "credsStore": "never-there"}
    )
    HttpRegistry(config).resolve(server.image)
    assert server.told == [basic("ada", "x")]


def test_docker_config_names_the_directory(
    server: Server, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(config, {"auths": {server.address: encoded("ada", "x")}})
    monkeypatch.setenv("DOCKER_CONFIG", str(config))
    HttpRegistry().resolve(server.image)
    monkeypatch.delenv("DOCKER_CONFIG")
    monkeypatch.setenv("HOME", str(config.parent))
    config.rename(config.parent / ".docker")
    HttpRegistry().resolve(server.image)
    assert server.told == [basic("ada", "x")] * 2


def test_a_registrys_own_helper_goes_before_the_store_and_the_store_before_the_file(
    server: Server, config: Path, helpers: Path
) -> None:
    helper(helpers, "own", gives("own", "1"))
    helper(helpers, "store", gives("store", "2"))
    settings: dict[str, Any] = {
        "credHelpers": {server.address: "own"},
        "credsStore": "store",
        "auths": {server.address: encoded("file", "3")},
    }
    for expected in (("own", "1"), ("store", "2"), ("file", "3")):
        write(config, settings)
        server.forget()
        HttpRegistry(config).resolve(server.image)
        assert set(server.told) == {basic(*expected)}
        settings.pop(next(iter(settings)))
    asked = (helpers / "asked").read_text().splitlines()
    assert set(asked) == {f"get {server.address}"}


def test_a_helper_that_knows_nothing_is_no_login(
    server: Server, config: Path, helpers: Path
) -> None:
    helper(helpers, "empty", "echo credentials not found; exit 1")
    write(config, {"credsStore": "empty"})
    with pytest.raises(RefusedError, match=f"docker login {server.address}"):
        HttpRegistry(config).resolve(server.image)
    assert server.told == []


def test_a_helper_that_fails_is_not_taken_for_no_login(
    server: Server, config: Path, helpers: Path
) -> None:
    helper(helpers, "locked", "echo error getting credentials: the store is locked; exit 1")
    write(config, {"credsStore": "locked"})
    with pytest.raises(HostError, match=r"docker-credential-locked fails.*the store is locked"):
        HttpRegistry(config).resolve(server.image)
    assert server.told == []


def test_a_helper_is_asked_once(server: Server, config: Path, helpers: Path) -> None:
    helper(helpers, "own", gives("own", "1"))
    write(config, {"credsStore": "own"})
    registry = HttpRegistry(config)
    for _ in range(4):
        registry.resolve(server.image)
    assert len((helpers / "asked").read_text().splitlines()) == 1


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        {"auths": {}},
        {"auths": {"other.example": {"auth": "YTpi"}}},
        {"auths": {"other.example:80": {"auth": "YTpi"}}, "credHelpers": {"other.example": "x"}},
        [],
    ],
)
def test_no_login_is_no_error_until_one_is_needed(
    value: object, server: Server, config: Path
) -> None:
    if value is not None:
        write(config, value)
    with pytest.raises(RefusedError, match=f"docker login {server.address}"):
        HttpRegistry(config).resolve(server.image)
    assert server.told == []


BROKEN: dict[str, str] = {
    "no-json": "{",
    "latin": "\udcff",
    "not-base64": '{"auths": {"HOST": {"auth": "abc"}}}',
    "not-ascii": '{"auths": {"HOST": {"auth": "\u00e4"}}}',
    "not-text": '{"auths": {"HOST": {"auth": "/w=="}}}',
    "auths-null": '{"auths": null}',
    "helpers-null": '{"credHelpers": null}',
    "helper-path": '{"credsStore": "../../bin/sh"}',
    "helper-absent": '{"credsStore": "never-installed"}',
    "helper-words": '{"credsStore": "words"}',
    "helper-list": '{"credsStore": "list"}',
    "helper-latin": '{"credsStore": "latin"}',
    "helper-deep": '{"credsStore": "deep"}',
    "deep": "[" * 200_000,
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_configuration(name: str, server: Server, config: Path, helpers: Path) -> None:
    helper(helpers, "words", "echo hello")
    helper(helpers, "list", "echo '[]'")
    helper(helpers, "latin", r"printf '\377\376'")
    helper(helpers, "deep", "head -c 200000 /dev/zero | tr '\\0' '['")
    text = BROKEN[name].replace("HOST", server.address)
    (config / "config.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(CuratorError) as caught:
        HttpRegistry(config).resolve(server.image)
    assert isinstance(caught.value, HostError) or "docker login" in str(caught.value)


def test_secrets_are_neither_logged_nor_in_errors(
    server: Server, config: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(config, {"auths": {server.address: encoded("ada", "s3cret")}})
    caplog.set_level(logging.DEBUG)
    registry = HttpRegistry(config, deadline_s=0.5)
    server.plan = lambda asked: answer(
        503 if "authorization" in asked.headers else 401, headers=BASIC
    )
    with pytest.raises(CuratorError) as caught:
        registry.resolve(server.image)
    for text in (str(caught.value), caplog.text, repr(registry)):
        assert "s3cret" not in text
        assert basic("ada", "s3cret").removeprefix("Basic ") not in text


# What a registry asks for


@pytest.mark.parametrize(
    "challenge",
    [
        'Bearer realm="REALM",service="a b",scope="repository:x:pull"',
        'bearer service="a b", realm="REALM"',
        'Basic realm="basic, please", Bearer realm="REALM",service="a b"',
        'Bearer realm="REALM",service="a b",error="invalid_token", Basic realm="bearer"',
        'Bearer realm="REALM", Service="a b"',
        'Bearer realm="REALM", service = "a b"',
    ],
)
def test_a_token_is_asked_for_where_the_challenge_says(
    challenge: str, server: Server, config: Path
) -> None:
    realm = f"http://{server.address}/token?account=1"
    server.challenge = {"WWW-Authenticate": challenge.replace("REALM", realm)}
    write(config, {"auths": {server.address: encoded("ada", "x")}})
    assert HttpRegistry(config).resolve(server.image) is None
    assert server.told == [basic("ada", "x"), "Bearer t0ken"]
    (asked,) = server.tokens
    assert asked.startswith("GET /token?account=1&")
    assert "service=a+b" in asked
    assert "scope=repository%3Ax%3Apull" in asked


def test_a_service_without_quotes_is_understood(server: Server, config: Path) -> None:
    realm = f"http://{server.address}/token"
    server.challenge = {"WWW-Authenticate": f'Bearer realm="{realm}",service=here'}
    assert HttpRegistry(config).resolve(server.image) is None
    assert "service=here" in server.tokens[0]


@pytest.mark.parametrize("header", ["", "Negotiate", "Digest realm=x", ",,,", "Bearing gifts"])
def test_what_we_cannot_answer_is_refused(header: str, server: Server, config: Path) -> None:
    server.challenge = {"WWW-Authenticate": header} if header else {}
    write(config, {"auths": {server.address: encoded("ada", "x")}})
    with pytest.raises(RefusedError, match=f"401.*docker login {server.address}"):
        HttpRegistry(config).resolve(server.image)
    assert len(server.asked) == 1
    assert server.told == []


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{}", b"[]", b'{"token": null}', b"<html>", b'{"token": "t", "expires_in": "x"}',
        b'{"token": "a\\r\\nX: y"}', b'{"token": "a\\nb"}', b'{"token": "\\u4e2d"}',
        b'{"token": "t\xc3\xb6k"}', b'{"token": "a b"}', b'{"token": [1]}', b'{"token": 1}',
        b"[" * 60_000,
    ],
)  # fmt: skip
def test_a_token_server_without_a_token_is_refused(
    body: bytes, server: Server, config: Path
) -> None:
    challenge = {"WWW-Authenticate": f'Bearer realm="http://{server.address}/token"'}
    server.plan = lambda asked: (
        answer(200, body) if asked.path.startswith("/token") else answer(401, headers=challenge)
    )
    with pytest.raises(RefusedError, match="no token"):
        HttpRegistry(config).resolve(server.image)


@pytest.mark.parametrize("life", ["-5", "0", "NaN", "Infinity", "-Infinity", '"nan"', "1e308"])
def test_a_token_whose_life_is_no_time_is_used_for_a_while(
    life: str, server: Server, config: Path
) -> None:
    challenge = {"WWW-Authenticate": f'Bearer realm="http://{server.address}/token"'}
    given = answer(200, f'{{"token": "t", "expires_in": {life}}}'.encode())

    def plan(asked: Request) -> Fault:
        if asked.path.startswith("/token"):
            return given
        return answer(404) if "authorization" in asked.headers else answer(401, headers=challenge)

    server.plan = plan
    registry = HttpRegistry(config)
    for _ in range(3):
        assert registry.resolve(server.image) is None
    assert len(server.tokens) == 1


def test_a_user_without_a_home_has_no_login(server: Server) -> None:
    if os.getuid():
        pytest.skip("only root becomes another user")
    program = (
        "import os, pwd, sys\n"
        "from curator.oci import Reference\n"
        "from curator.registry import HttpRegistry\n"
        "image = Reference.parse(sys.argv[1])\n"
        "HttpRegistry().resolve(image)\n"  # what it takes is loaded as a user who may read it
        "os.environ.pop('HOME', None)\n"
        "os.setgid(54321), os.setuid(54321)\n"
        "print(HttpRegistry().resolve(image))\n"
    )
    server.plan = lambda _: answer(404)
    command = [sys.executable, "-c", program, str(server.image)]
    environment = {"PATH": os.environ["PATH"], "HOME": "/root"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "None\n", done.stderr
