"""The verb page: the static site of an index, written, served or published beside it."""

from __future__ import annotations

import mimetypes
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from curator.cli._console import Console, Verb, verb
from curator.cli._pull import catalogue_of, index_options, opened, place_of
from curator.errors import CuratorError, HostError, RefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from curator.ports import Store

DOCUMENT: Final = re.compile(r"v1(/[A-Za-z0-9][A-Za-z0-9._+-]{0,250}){1,4}\.(json|xml)")
# Documents whose names are their hashes never change.
NAMED: Final = re.compile(r"v1/[a-z]+/[0-9a-f]{64}\.json")


@click.command(cls=Verb)
@index_options
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write the site into DIR; what is there under other names stays.",
)
@click.option("--serve", is_flag=True, help="Serve the site to this machine until Ctrl-C.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, help="Of --serve; 0: any.")
@click.option("--publish", is_flag=True, help="Write what the store lacks of the site.")
@verb
def page(
    console: Console,
    *,
    output: Path | None,
    serve: bool,
    port: int,
    publish: bool,
    **given: Any,  # noqa: ANN401 - click's options
) -> None:
    """Make the page that says which image runs where: the same bytes for the same index."""
    if not (output or serve or publish):
        raise click.UsageError("say what to do with it: -o DIR, --serve or --publish")
    from curator.facts import facts  # noqa: PLC0415
    from curator.page import site  # noqa: PLC0415

    place = place_of(console, given["index"])
    data: dict[str, Any] = {}
    lines = []
    if publish:
        data["published"] = _published(place)
        lines.append(f"{len(data['published'])} files published")
    if output or serve:
        files = site(catalogue_of(console, given), facts())
        source = opened(place, given["index"])
        if output:
            _write(files, output)
            documents = _write_documents(console, files, output, source, offline=given["offline"])
            data["written"] = [*files, *documents]
            lines.append(f"{len(data['written'])} files in {output}: open {output / 'index.html'}")
        if serve:
            _serve(console, files, source, port)
    console.answer("\n".join(lines), data)


def _published(place: str) -> list[str]:
    from curator.publish import mend_site, read_catalogue  # noqa: PLC0415
    from curator.store import open_store  # noqa: PLC0415

    store = open_store(place, os.environ)
    written = mend_site(store)
    if not written and read_catalogue(store) is None:
        raise RefusedError(f"{place}: no index here, so that there is no page of it")
    return list(written)


def _write(files: Mapping[str, bytes], output: Path) -> None:
    for name, data in files.items():
        path = output / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.is_file() or path.read_bytes() != data:
                path.write_bytes(data)
        except OSError as error:
            raise HostError(f"cannot write {path}: {error.strerror}") from error


def _write_documents(
    console: Console,
    files: Mapping[str, bytes],
    output: Path,
    source: str | Store,
    *,
    offline: bool,
) -> list[str]:
    """Write what the pages link of the index beside them, by difference; return what is there."""
    from curator.page import linked  # noqa: PLC0415
    from curator.reader import read_documents  # noqa: PLC0415

    paths = linked(files)
    there = {path for path in paths if NAMED.fullmatch(path) and (output / path).is_file()}
    if not offline:
        for path, data in read_documents(source, sorted(set(paths) - there)):
            _write({path: data}, output)
            there.add(path)
    if missing := sorted(set(paths) - there):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        console.say(f"not there, though the page links it: {missing[0]}{more}")
    return sorted(there)


def _serve(console: Console, files: Mapping[str, bytes], source: str | Store, port: int) -> None:
    """Serve the site, and below it the documents of the index, wherever that is."""
    from http import HTTPStatus  # noqa: PLC0415 - 18 ms
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer  # noqa: PLC0415

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.wfile.write(self._answered())

        def do_HEAD(self) -> None:
            self._answered()

        def _answered(self) -> bytes:
            """Send an answer's head; return its body."""
            name = self.path.partition("?")[0].lstrip("/") or "index.html"
            try:
                data = files.get(name) or _document(source, name)
            except CuratorError as error:
                self.send_error(HTTPStatus.BAD_GATEWAY, explain=str(error))
                return b""
            if data is None:
                self.send_error(HTTPStatus.NOT_FOUND)
                return b""
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", _kind(name))
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            return data

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except OSError as error:
        raise HostError(f"cannot serve at port {port}: {error.strerror}: try --port 0") from error
    with server:
        console.say(f"http://127.0.0.1:{server.server_address[1]}/ (Ctrl-C ends it)")
        server.serve_forever()


def _kind(name: str) -> str:
    return mimetypes.guess_type(name)[0] or "application/octet-stream"


def _document(source: str | Store, name: str) -> bytes | None:
    """Return a document of the index."""
    from curator.reader import read_documents  # noqa: PLC0415

    if not DOCUMENT.fullmatch(name):
        return None
    return next((data for _, data in read_documents(source, [name])), None)
