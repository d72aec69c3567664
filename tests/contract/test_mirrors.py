"""Where packages come from: the mirror, proxies and configuration of this machine's own apt.

Each call runs with an `/etc/apt` of its own; its mirror is ours, writes down what it is asked for,
and has nothing.
"""

from __future__ import annotations

import http.server
import threading
from typing import TYPE_CHECKING

import pytest

from tests import machines

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


class _Empty(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Mirror)
        self.server.asked.append(self.path)
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


class Mirror(http.server.ThreadingHTTPServer):
    """A server that has nothing, and knows what it was asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Empty)
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def archives(self) -> set[str]:
        """What stood before `/dists/` in what was asked for."""
        return {path.partition("/dists/")[0] for path in self.asked}


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with Mirror() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(
    directory: Path,
    mirror: Mirror,
    files: Mapping[str, str],
    *,
    programs: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> machines.Answer:
    """Call `up`, or with `programs` `make_base`, on a machine whose /etc/apt has these files."""
    apt = directory / "apt"
    (apt / "apt.conf.d").mkdir(parents=True)
    for name, text in files.items():
        file = apt / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text.replace("URL", mirror.url))
    on = machines.changed(f"mount --bind {apt} /etc/apt")
    cache = directory / "cache"
    verb, arguments = "up", [cache]
    if programs:
        machines.lend_programs(programs, cache)
        verb, arguments = "base", [cache, directory / "layout"]
    environment = {"DOCKER_HOST": machines.NOBODY, "no_proxy": "", **(environment or {})}
    return machines.call(verb, *arguments, on=on, environment=environment)


LINE = "deb URL/debian bookworm main\n"
STANZA = "Types: deb\nURIs: URL/debian/\nSuites: bookworm bookworm-updates\nComponents: main\n"
OTHER = "Types: deb\nURIs: URL/linux/debian\nSuites: bookworm\nComponents: stable\n"


FOREIGN = f"{STANZA}Signed-By: /usr/share/keyrings/other.gpg\n".replace("/debian", "/other/debian")
SNAPSHOT = STANZA.replace("/debian/", "/debian/20260101T000000Z")


@pytest.mark.parametrize(
    "files",
    [
        {"sources.list": LINE},
        {"sources.list": f"# deb URL/commented/debian bookworm main\n\n{LINE}"},
        {"sources.list": f"deb-src URL/sources/debian bookworm main\n{LINE}"},
        {"sources.list": LINE.replace("deb ", "deb [arch=amd64 signed-by=/k.gpg] ")},
        {"sources.list.d/debian.list": LINE},
        {"sources.list.d/debian.sources": STANZA},
        {"sources.list.d/debian.sources": f"# a comment\n{STANZA}Signed-By: /k.gpg\n"},
        {"sources.list.d/debian.sources": STANZA.replace("URIs: ", "URIs:\n ")},
        {"sources.list.d/a.sources": f"Enabled: no\n{OTHER}\n{STANZA}"},
        {"sources.list.d/a.sources": f"{OTHER.replace('deb', 'deb-src', 1)}\n{STANZA}"},
        {"sources.list.d/docker.sources": OTHER, "sources.list": LINE},
        {"sources.list.d/a.sources": FOREIGN, "sources.list": LINE},
        {"sources.list": LINE, "sources.list.d/docker.list": LINE.replace("/", "/linux/", 1)},
    ],
    ids=[
        "a line",
        "a comment",
        "a line for sources",
        "options",
        "a line in a file of its own",
        "a stanza",
        "a comment in a stanza",
        "a folded field",
        "a disabled stanza",
        "a stanza for sources",
        "another repository's stanza",
        "another vendor's key",
        "another repository's line",
    ],
)
def test_packages_come_from_the_machines_own_debian_archive(
    tmp_path: Path, mirror: Mirror, files: dict[str, str]
) -> None:
    answer = ask(tmp_path, mirror, files)
    assert answer.error == "TemporaryError", answer
    assert mirror.archives == {"/debian"}
    assert "/debian/dists/trixie/InRelease" in mirror.asked


def test_a_snapshot_is_an_archive(tmp_path: Path, mirror: Mirror) -> None:
    answer = ask(tmp_path, mirror, {"sources.list.d/debian.sources": SNAPSHOT})
    assert answer.error == "TemporaryError", answer
    assert mirror.archives == {"/debian/20260101T000000Z"}


def test_a_list_of_mirrors_is_an_archive(tmp_path: Path, mirror: Mirror) -> None:
    named = STANZA.replace("URL/debian/", "mirror+file:///etc/apt/mirrors/debian.list")
    files = {"mirrors/debian.list": "URL/debian\n", "sources.list.d/debian.sources": named}
    answer = ask(tmp_path, mirror, files)
    assert answer.error == "TemporaryError", answer
    assert mirror.archives == {"/debian"}


def test_a_machine_without_a_debian_archive_is_told_so(tmp_path: Path, mirror: Mirror) -> None:
    answer = ask(tmp_path, mirror, {"sources.list": "deb URL/ubuntu noble main\n"})
    assert answer.error == "HostError"
    assert "no Debian archive" in answer.message
    assert mirror.asked == []


def test_a_base_comes_from_the_machines_own_archives(
    tmp_path: Path, mirror: Mirror, programs: Path
) -> None:
    lines = f"{LINE}deb URL/debian-security bookworm-security main\n"
    answer = ask(tmp_path, mirror, {"sources.list": lines}, programs=programs)
    assert answer.error == "TemporaryError", answer
    asked = {path.removesuffix("/InRelease") for path in mirror.asked}
    suites = {"/debian/dists/bookworm", "/debian/dists/bookworm-updates"}
    assert suites | {"/debian-security/dists/bookworm-security"} <= asked


ELSEWHERE = {"sources.list": "deb http://mirror.invalid/debian bookworm main\n"}


@pytest.mark.parametrize("by", ["configuration", "environment"])
@pytest.mark.parametrize("call", ["up", "make_base"])
def test_the_machines_proxy_is_used(
    tmp_path: Path, mirror: Mirror, programs: Path, by: str, call: str
) -> None:
    files, environment = dict(ELSEWHERE), {}
    if by == "configuration":
        files["apt.conf.d/80proxy"] = 'Acquire::http::Proxy "URL";\n'
    else:
        environment["http_proxy"] = mirror.url
    lent = programs if call == "make_base" else None
    answer = ask(tmp_path, mirror, files, programs=lent, environment=environment)
    assert answer.error == "TemporaryError", answer
    assert mirror.archives == {"http://mirror.invalid/debian"}


def test_the_machines_own_hooks_do_not_run(tmp_path: Path, mirror: Mirror) -> None:
    events = ("Post-Invoke", "Post-Invoke-Success", "Post-Invoke-Failure")
    hooks = [f'APT::Update::{event} {{"touch {tmp_path}/{event}";}};\n' for event in events]
    ask(tmp_path, mirror, {"sources.list": LINE, "apt.conf.d/80hooks": "".join(hooks)})
    assert mirror.asked
    assert [event for event in events if (tmp_path / event).exists()] == []
