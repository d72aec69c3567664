"""The verb page: the static site of an index, written, served or published beside it."""

from __future__ import annotations

import mimetypes
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from curator.cli._console import Console, verb
from curator.cli._pull import catalogue_of, index_options, place_of
from curator.errors import CuratorError, HostError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from curator.ports import Store


@click.command()
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
@click.option("--publish", is_flag=True, help="Write the site into the store, by difference.")
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

    data: dict[str, Any] = {}
    lines = []
    if publish:
        data["published"] = _published(place_of(console, given["index"]))
        lines.append(f"{len(data['published'])} files published")
    if output or serve:
        files = site(catalogue_of(console, given), facts())
        if output:
            _write(files, output)
            data["written"] = sorted(files)
            lines.append(f"{len(files)} files in {output}: open {output / 'index.html'}")
        if serve:
            _serve(console, files, place_of(console, given["index"]), port)
    console.answer("\n".join(lines), data)


def write_page(console: Console, store: Store) -> None:
    """Bring the page up beside a store's documents; that it fails is said, and fails nothing."""
    from curator.publish import write_site  # noqa: PLC0415

    try:
        write_site(store)
    except CuratorError as error:
        console.say(f"the page was not written: {error} (`curator page --publish` writes it)")


def _published(place: str) -> list[str]:
    from curator.publish import write_site  # noqa: PLC0415
    from curator.store import open_store  # noqa: PLC0415

    return list(write_site(open_store(place, os.environ)))


def _write(files: Mapping[str, bytes], output: Path) -> None:
    for name, data in files.items():
        path = output / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.is_file() or path.read_bytes() != data:
                path.write_bytes(data)
        except OSError as error:
            raise HostError(f"cannot write {path}: {error.strerror}") from error


def _serve(console: Console, files: Mapping[str, bytes], place: str, port: int) -> None:
    """Serve the site, and below it the documents of an index that is a directory."""
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer  # noqa: PLC0415 - 18 ms

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.partition("?")[0].lstrip("/") or "index.html"
            data = files.get(name) or _document(place, name)
            if data is None:
                self.send_error(404)
                return
            kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except OSError as error:
        raise HostError(f"cannot serve at port {port}: {error.strerror}: try --port 0") from error
    with server:
        console.say(f"http://127.0.0.1:{server.server_address[1]}/ (Ctrl-C ends it)")
        server.serve_forever()


def _document(place: str, name: str) -> bytes | None:
    """Return a document of an index in a directory."""
    root = Path(place).resolve()
    path = (root / name).resolve()
    if name.startswith("v1/") and path.is_relative_to(root) and path.is_file():
        return path.read_bytes()
    return None
