"""Logging in to a real registry: which tokens are asked for, how long they serve, who sees them."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

import pytest

from curator.errors import RefusedError
from curator.registry import HttpRegistry
from tests import layouts
from tests.faults import FaultProxy, answer, each_once, matching
from tests.tokens import TokenProxy, basic

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from curator.oci import Digest
    from curator.settings import Place
    from tests.layouts import Layout

ADA = {"ada": "s3cret:with a colon"}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return layouts.attested(tmp_path / "layout", (os.urandom(300_000), b"second"))


def logged_in(tmp_path: Path, logins: Mapping[str, Mapping[str, str]]) -> HttpRegistry:
    """Return a client with docker's logins: registry -> users and passwords."""
    directory = tmp_path / "docker"
    directory.mkdir(exist_ok=True)
    auths = {
        address: {"auth": basic(user, password).removeprefix("Basic ")}
        for address, users in logins.items()
        for user, password in users.items()
    }
    (directory / "config.json").write_text(json.dumps({"auths": auths}))
    return HttpRegistry(directory, deadline_s=10)


def publish(registry: HttpRegistry, proxy: FaultProxy, place: Place, layout: Layout) -> Digest:
    staged = proxy.through(place.repository("s")).with_tag("key")
    target = proxy.through(place.repository("x"))
    digest = registry.push(layout.path, staged)
    registry.copy(staged.with_digest(digest), target)
    return registry.tag(target.with_digest(digest), "one")


def assert_published(place: Place, layout: Layout) -> None:
    found = HttpRegistry().resolve(place.repository("x").with_tag("one"))
    assert found == layout.image.descriptor


def test_a_publication_asks_for_what_it_needs_and_no_more(
    registry_address: str, place: Place, layout: Layout, tmp_path: Path
) -> None:
    with TokenProxy(registry_address, logins=ADA) as proxy:
        publish(logged_in(tmp_path, {proxy.address: ADA}), proxy, place, layout)
        granted = proxy.granted
    assert_published(place, layout)
    staged, target = place.repository("s").repository, place.repository("x").repository
    assert {name for scopes in granted for name, _ in scopes} == {staged, target}
    assert (target, "push") in frozenset().union(*granted)
    # Parallel uploads may each have asked for the same token before one had it.
    assert len(set(granted)) <= 5
    assert len(granted) <= 8


def test_a_mount_asks_to_push_to_the_target_and_to_pull_from_the_source(
    registry_address: str, place: Place, layout: Layout, tmp_path: Path
) -> None:
    staged, target = place.repository("s"), place.repository("x")
    HttpRegistry().push(layout.path, staged.with_tag("key"))
    with TokenProxy(registry_address, logins=ADA) as proxy:
        registry = logged_in(tmp_path, {proxy.address: ADA})
        source = proxy.through(staged).with_digest(layout.digest)
        registry.copy(source, proxy.through(target))
        mounts = [e for e in proxy.exchanges if "mount=" in e.request.path]
    assert [e.status for e in mounts if e.status != 401] == [201] * len(layout.blobs)
    pull_only = {(staged.repository, "pull")}
    both = pull_only | {(target.repository, "pull"), (target.repository, "push")}
    assert pull_only in proxy.granted
    assert both in proxy.granted
    assert not any((staged.repository, "push") in scopes for scopes in proxy.granted)


def test_tokens_for_anybody_need_no_login(
    registry_address: str, place: Place, layout: Layout, tmp_path: Path
) -> None:
    with TokenProxy(registry_address) as proxy:
        publish(logged_in(tmp_path, {}), proxy, place, layout)
    assert_published(place, layout)


def test_an_identity_token_is_exchanged_for_a_token(
    registry_address: str, place: Place, layout: Layout, tmp_path: Path
) -> None:
    with TokenProxy(registry_address, logins=ADA, identity="refresh-me") as proxy:
        registry = logged_in(tmp_path, {})
        auths = {proxy.address: {"auth": "", "identitytoken": "refresh-me"}}
        (tmp_path / "docker/config.json").write_text(json.dumps({"auths": auths}))
        publish(registry, proxy, place, layout)
        asked = {e.request.method for e in proxy.exchanges if e.request.path.startswith("/token")}
    assert_published(place, layout)
    assert asked == {"POST"}


def test_a_revoked_token_is_renewed_once_for_each_request(
    registry_address: str, place: Place, layout: Layout, tmp_path: Path
) -> None:
    with TokenProxy(registry_address, logins=ADA, uses=1) as proxy:
        publish(logged_in(tmp_path, {proxy.address: ADA}), proxy, place, layout)
        used = [
            e for e in proxy.exchanges if e.request.headers.get("authorization", "")[:2] == "Be"
        ]
        accepted = [e.request.headers["authorization"] for e in used if e.status != 401]
    assert_published(place, layout)
    assert len(accepted) == len(set(accepted))


def test_a_token_that_is_never_accepted_is_asked_for_once_more_and_not_again(
    registry_address: str, place: Place, tmp_path: Path
) -> None:
    with TokenProxy(registry_address, logins=ADA, uses=0) as proxy:
        registry = logged_in(tmp_path, {proxy.address: ADA})
        reference = proxy.through(place.repository("x")).with_tag("one")
        for _ in range(2):
            proxy.granted.clear()
            proxy.forget()
            with pytest.raises(RefusedError, match=f"docker login {proxy.address}"):
                registry.resolve(reference)
            sent = [e.request.headers.get("authorization") for e in proxy.exchanges]
            bearers = [value for value in sent if value and value.startswith("Bearer")]
            assert len(bearers) == len(set(bearers))
            assert len(proxy.granted) <= 2


def test_a_token_is_renewed_before_it_ends(
    registry_address: str, place: Place, tmp_path: Path
) -> None:
    with TokenProxy(registry_address, logins=ADA, life_s=2) as proxy:
        registry = logged_in(tmp_path, {proxy.address: ADA})
        reference = proxy.through(place.repository("x")).with_tag("one")
        begin = time.monotonic()
        while time.monotonic() - begin < 4:
            assert registry.resolve(reference) is None
            time.sleep(0.02)
        refused = [e for e in proxy.exchanges if e.status == 401]
    assert len(refused) == 1
    assert 2 <= len(proxy.granted) <= 4


def test_a_wrong_password_is_refused_with_the_way_to_log_in(
    registry_address: str, place: Place, layout: Layout, tmp_path: Path
) -> None:
    target = place.repository("x").with_tag("one")
    with TokenProxy(registry_address, logins=ADA) as proxy:
        for logins in ({proxy.address: {"ada": "n0t-thi5"}}, {"other.example": ADA}, {}):
            proxy.forget()
            registry = logged_in(tmp_path, logins)
            with pytest.raises(RefusedError, match=f"docker login {proxy.address}") as caught:
                registry.push(layout.path, proxy.through(target))
            assert "n0t-thi5" not in str(caught.value)
    assert HttpRegistry().resolve(target) is None


def test_two_registries_never_see_each_others_secrets(
    registry_address: str, place: Place, layout: Layout, tmp_path: Path
) -> None:
    bob = {"bob": "other"}
    staged, target = place.repository("s"), place.repository("elsewhere")
    HttpRegistry().push(layout.path, staged.with_tag("key"))
    with (
        TokenProxy(registry_address, logins=ADA) as here,
        TokenProxy(registry_address, logins=bob) as there,
    ):
        registry = logged_in(tmp_path, {here.address: ADA, there.address: bob})
        source = here.through(staged).with_digest(layout.digest)
        assert registry.copy(source, there.through(target)) == layout.digest
        seen = [
            {e.request.headers.get("authorization") for e in proxy.exchanges} - {None}
            for proxy in (here, there)
        ]
    assert not seen[0] & seen[1]
    for blob in layout.blobs:
        assert HttpRegistry().blob(target, blob)


def test_a_token_that_ends_while_a_blob_streams_through_is_renewed(
    registry_address: str, place: Place, layout: Layout, tmp_path: Path
) -> None:
    staged, target = place.repository("s"), place.repository("elsewhere")
    HttpRegistry().push(layout.path, staged.with_tag("key"))
    with TokenProxy(registry_address) as proxy:
        challenge = f'Bearer realm="http://{proxy.address}/token"'
        ended = answer(401, headers={"WWW-Authenticate": challenge})
        proxy.plan = matching("^PUT .*/blobs/", ended, times=1)
        source = staged.with_digest(layout.digest)
        registry = logged_in(tmp_path, {})
        assert registry.copy(source, proxy.through(target)) == layout.digest


def test_a_token_that_ends_during_an_upload_is_renewed(
    registry_address: str, place: Place, layout: Layout, tmp_path: Path
) -> None:
    with TokenProxy(registry_address) as proxy:
        challenge = f'Bearer realm="http://{proxy.address}/token"'
        ended = answer(401, headers={"WWW-Authenticate": challenge})
        once = each_once(ended)
        proxy.plan = lambda asked: once(asked) if asked.method == "PUT" else None
        publish(logged_in(tmp_path, {}), proxy, place, layout)
    assert_published(place, layout)


def test_a_token_server_that_is_down_for_a_moment_is_waited_for(
    registry_address: str, place: Place, layout: Layout, tmp_path: Path
) -> None:
    with TokenProxy(registry_address, logins=ADA) as proxy:
        proxy.plan = matching("^GET /token", answer(503), times=3)
        publish(logged_in(tmp_path, {proxy.address: ADA}), proxy, place, layout)
    assert_published(place, layout)


def test_what_a_login_may_not_do_is_refused(
    registry_address: str, place: Place, layout: Layout, tmp_path: Path
) -> None:
    target = place.repository("x").with_tag("one")
    with TokenProxy(registry_address, logins=ADA) as proxy:
        proxy.plan = matching("^(POST|PUT) /v2/", answer(403))
        registry = logged_in(tmp_path, {proxy.address: ADA})
        with pytest.raises(RefusedError, match=r"403.*docker login"):
            registry.push(layout.path, proxy.through(target))
    assert HttpRegistry().resolve(target) is None
