"""Secrets of builds: what a package index asks for reaches nothing but the index."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from curator.engine import build_secrets
from curator.errors import BuildError
from curator.oci import Reference
from curator.registry import HttpRegistry
from tests.indexes import Index, serving
from tests.workshop import WHEELS, Workshop, fresh, recipe_of, secrets_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from curator.ports import EngineAddress

LOGIN = "farmer:s3cret-of-the-index"
PASSWORD = b"s3cret-of-the-index"


@pytest.fixture
def guarded(workshop: Workshop) -> Iterator[tuple[Workshop, Index]]:
    """A workshop whose index asks for a password."""
    with serving(Index(WHEELS, login=LOGIN)) as index:
        secrets = secrets_for(index.address_with_login, workshop.directory)
        yield replace(workshop, secrets=secrets), index


def test_a_password_reaches_the_index_and_nothing_else(
    guarded: tuple[Workshop, Index], registry_address: str, engine_address: EngineAddress
) -> None:
    workshop, index = guarded
    cold = replace(workshop, engine=replace(workshop.engine, cache=False))
    layout = cold.build(recipe_of(*WHEELS))
    assert index.asked
    written = [workshop.log, *(path for path in layout.path.rglob("*") if path.is_file())]
    assert [path for path in written if PASSWORD in path.read_bytes()] == []

    target = Reference(registry=registry_address, repository="t/engine/guarded", tag="latest")
    image = str(target.with_digest(HttpRegistry().push(layout.path, target)))
    docker = engine_address.command
    search = ["grep", "-rlF", PASSWORD.decode(), "/opt", "/home", "/etc", "/root", "/run", "/tmp"]  # noqa: S108
    as_root = [*docker, "run", "--rm", "--network", "none", "--user", "0"]
    found = subprocess.run([*as_root, image, *search], capture_output=True, text=True, check=False)
    told = subprocess.run(
        [*docker, "history", "--no-trunc", image], capture_output=True, check=True
    )
    subprocess.run([*docker, "rmi", image], capture_output=True, check=False)
    assert (found.stdout, found.returncode) == ("", 1), found.stderr
    assert PASSWORD not in told.stdout


def test_a_password_is_not_in_what_a_failure_tells(guarded: tuple[Workshop, Index]) -> None:
    workshop, index = guarded
    index.login = "farmer:another"
    error = workshop.failure(recipe_of(fresh()))
    assert type(error) is BuildError
    assert PASSWORD.decode() not in str(error)
    assert PASSWORD not in workshop.log.read_bytes()


@pytest.mark.parametrize("status", [404, 503])
def test_a_password_is_not_in_what_an_outage_tells(
    guarded: tuple[Workshop, Index], status: int
) -> None:
    workshop, index = guarded
    index.status = status
    error = workshop.failure(recipe_of(fresh()))
    assert PASSWORD.decode() not in str(error)
    assert PASSWORD not in workshop.log.read_bytes()


def test_secrets_are_what_this_machine_uses(tmp_path: Path) -> None:
    bundle = tmp_path / "authorities.pem"
    bundle.write_text("pem")
    found = build_secrets(
        {
            "SSL_CERT_FILE": str(tmp_path / "gone.pem"),
            "PIP_CERT": str(bundle),
            "PIP_INDEX_URL": "https://farmer:p%22w@index.example/simple",
            "UV_EXTRA_INDEX_URL": "https://one.example/simple https://two.example/simple",
        },
        tmp_path / "secrets",
    )
    assert found["ca"] == bundle
    assert found["uv"].stat().st_mode & 0o777 == 0o600
    assert found["uv"].read_text() == (
        'index-url = "https://farmer:p%22w@index.example/simple"\n'
        'extra-index-url = ["https://one.example/simple", "https://two.example/simple"]\n'
    )


def test_secrets_are_private_where_a_file_was_there_already(tmp_path: Path) -> None:
    (tmp_path / "uv.toml").touch(0o644)
    assert build_secrets({}, tmp_path)["uv"].stat().st_mode & 0o777 == 0o600


def test_a_machine_without_settings_has_no_index_of_its_own(tmp_path: Path) -> None:
    assert build_secrets({}, tmp_path)["uv"].read_text() == "\nextra-index-url = []\n".lstrip()
