"""`curator page`: written elsewhere, served from anywhere, published; its links lead somewhere."""

from __future__ import annotations

import functools
import json
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from curator.cli import main
from curator.index import SuiteResult
from curator.publish import write_site
from tests.pages import Parsed
from tests.publishing import NOW, Farm

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from curator.publish import Change

PLACES = ("directory", "http")


def on_a_gpu(change: Change) -> Change:
    """Return a change whose image a GPU ran, too."""
    contents = change.entry.tests[0]
    found = SuiteResult(
        suite="gpu", verdict="pass", evidence=contents.evidence, at=NOW, probe="0" * 64,
        gpu="A100", sm="8.0", driver="535.216.01",
    )  # fmt: skip
    more = {"tests": (contents, found), "requires": {}}
    return replace(change, entry=change.entry.model_copy(update=more))


class Quiet(SimpleHTTPRequestHandler):
    asked: list[str] = []  # noqa: RUF012 - cleared by each test

    def log_message(self, *_: Any) -> None:
        self.asked.append(self.path)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    farm = Farm(tmp_path / "farm")
    farm.publish(on_a_gpu(farm.change()), on_a_gpu(farm.change("14.1.1")), farm.change("14.0.1"))
    return tmp_path / "farm/store"


@pytest.fixture
def place(store: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """An index in a directory, or on a server."""
    if request.param == "directory":
        yield str(store)
        return
    handler = functools.partial(Quiet, directory=str(store))
    Quiet.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CURATOR_CACHE", str(tmp_path / "cache"))
    for name in ("CURATOR_INDEX", "CURATOR_STORE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def curator(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


def dead_links(root: Path) -> set[str]:
    """Return the links of a site's pages that lead to no file."""
    found = set()
    for page in root.rglob("*.html"):
        for link in Parsed(page.read_text()).links:
            path = link.partition("#")[0]
            if path and not (page.parent / path).is_file():
                found.add(link)
    return found


@pytest.mark.parametrize("place", PLACES, indirect=True)
def test_a_page_that_is_written_elsewhere_has_all_that_it_links(place: str, tmp_path: Path) -> None:
    assert curator("page", "-o", "site", "--index", place) == 0
    assert dead_links(tmp_path / "site") == set()
    for page in (tmp_path / "site/image").iterdir():
        assert re.search(
            r'href="\.\./v1/evidence/[0-9a-f]{64}\.json">report on the', page.read_text()
        )
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "site").rglob("*.*")}
    Quiet.asked.clear()
    assert curator("page", "-o", "site", "--index", place) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert not [path for path in Quiet.asked if "evidence" in path]


def test_a_page_that_is_written_into_its_store_changes_no_document(store: Path) -> None:
    before = {path: path.read_bytes() for path in (store / "v1").rglob("*.*")}
    assert curator("page", "-o", str(store), "--index", str(store)) == 0
    assert {path: path.read_bytes() for path in (store / "v1").rglob("*.*")} == before
    assert dead_links(store) == set()


def test_evidence_that_is_not_what_its_name_says_is_not_written(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (store / "v1/evidence").iterdir():
        path.write_bytes(b"{}")
    assert curator("page", "-o", "site", "--index", str(store)) == 1
    assert "does not have that hash" in capsys.readouterr().err
    assert not (tmp_path / "site/v1/evidence").exists()


def test_a_document_that_is_gone_is_told(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (store / "v1/feed.xml").unlink()
    assert curator("page", "-o", "site", "--index", str(store)) == 0
    assert "not there, though the page links it: v1/feed.xml\n" in capsys.readouterr().err


def test_offline_the_page_is_written_and_what_is_missing_told(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert curator("page", "-o", "first", "--index", str(store)) == 0
    assert curator("page", "-o", "site", "--index", str(store), "--offline") == 0
    assert "not there, though the page links it: v1/" in capsys.readouterr().err


def test_where_no_index_is_nothing_is_published(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert curator("page", "--publish", "--index", "nowhere") == 1
    said = capsys.readouterr()
    assert "nowhere: no index here" in said.err
    assert said.out == ""
    assert not (tmp_path / "nowhere").exists()


def test_what_is_published_has_no_dead_links(store: Path) -> None:
    write_site(Farm(store.parent).documents)
    assert dead_links(store) == set()


@contextmanager
def serving(place: str) -> Iterator[str]:
    """Serve the page of an index with the command; yield its address."""
    program = "from curator.cli import main; main()"
    command = [sys.executable, "-c", program, "page", "--serve", "--port", "0", "--index", place]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:
        try:
            assert running.stderr is not None
            yield running.stderr.readline().split()[0]
        finally:
            running.send_signal(signal.SIGINT)
            running.communicate(timeout=30)


@pytest.mark.parametrize("place", PLACES, indirect=True)
def test_a_page_is_served_with_the_documents_of_any_index(place: str, store: Path) -> None:
    with serving(place) as address:
        for path in ("v1/head.json", "v1/feed.xml", "v1/framework/cupy.json"):
            for method in ("GET", "HEAD"):
                request = urllib.request.Request(address + path, method=method)  # noqa: S310
                with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
                    data = (store / path).read_bytes()
                    assert answer.read() == (data if method == "GET" else b"")
                    assert answer.headers["Content-Length"] == str(len(data))
        for path in ("v1/nothing.json", "v1/../../x.json", "registry", "v1/"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(address + path, timeout=10)  # noqa: S310
        head = urllib.request.Request(address, method="HEAD")  # noqa: S310
        with urllib.request.urlopen(head, timeout=10) as answer:  # noqa: S310
            assert answer.headers["Content-Type"] == "text/html"


def test_the_command_of_the_page_without_javascript_works(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_site(Farm(store.parent).documents)
    page = (store / "index.html").read_text()
    (told,) = re.findall(r"<code>curator (resolve [^<]*)</code>", page)
    words = told.replace("ADDRESS", str(store)).replace("pytorch", "cupy").split()
    capsys.readouterr()
    assert curator(*words, "--json") == 0
    assert json.loads(capsys.readouterr().out)["status"] == "ok"
