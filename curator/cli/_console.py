"""What every verb shares: where it runs, how it answers, and the JSON envelope."""

from __future__ import annotations

import functools
import json
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from curator import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from rich.console import Console as RichConsole

    from curator.errors import Diagnostic
    from curator.matrix import Matrix, Tree

SCHEMA_VERSION = 1
STORE_HELP = "Where the index is: a directory, https://ACCOUNT.blob..., or azure:CONTAINER."

Verb = TypeVar("Verb", bound="Callable[..., Any]")


class Interrupted(Exception):  # noqa: N818 - a fact about the process, not an error
    """A signal stopped the verb after it had put everything in order."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


class Console:
    """The options that stand before the verb, and the two streams."""

    def __init__(self, arguments: Sequence[str] = ()) -> None:
        self.directory = Path()
        # Errors in the options themselves are answered as asked, too.
        self.json = "--json" in arguments
        self.quiet = False
        self.debug = "--debug" in arguments
        self.color = "auto"
        self.progress = "auto"
        self.command = ""

    def configure(self, **options: Any) -> None:  # noqa: ANN401 - click's parsed options
        """Take the parsed options."""
        self.directory = Path(options["directory"])
        self.json = options["as_json"]
        self.quiet = options["quiet"]
        self.debug = options["debug"]
        self.color = options["color"]
        self.progress = options["progress"]
        level = logging.INFO if options["verbose"] else logging.WARNING
        logging.basicConfig(level=level, format="%(message)s", stream=sys.stderr)

    def root(self) -> Path:
        """Return the farm's directory."""
        return settings.find_root(self.directory)

    def tree(self) -> Tree:
        """Read the farm's files."""
        return settings.read_tree(self.root())

    def load(self) -> tuple[Tree, Matrix]:
        """Read and check the farm."""
        from curator import matrix  # noqa: PLC0415 - pydantic and yaml, not for every verb

        tree = self.tree()
        return tree, matrix.load(tree)

    def rich(self) -> RichConsole:
        """Return stderr with colours as asked for; NO_COLOR and FORCE_COLOR are honoured."""
        from rich.console import Console as RichConsole  # noqa: PLC0415 - 60 ms

        forced = {"always": True, "never": False, "auto": None}[self.color]
        return RichConsole(stderr=True, force_terminal=forced, no_color=forced is False or None)

    def say(self, text: str) -> None:
        """Talk, on stderr."""
        if not self.quiet:
            click.echo(text, err=True)

    def answer(self, text: str, data: object, *, status: str = "ok") -> None:
        """Print the answer on stdout: text for people, or the envelope with `data`."""
        if self.json:
            self._envelope(status, data, ())
        elif text:
            click.echo(text)

    def fail(self, diagnostics: Iterable[Diagnostic]) -> None:
        """Print what is wrong."""
        findings = tuple(diagnostics)
        if self.json:
            self._envelope("error", None, findings)
        for finding in findings:
            mark = click.style(f"{finding.severity}:", fg="red", bold=True)
            click.echo(f"{mark} {finding}", err=True, color=self._colour())

    def _colour(self) -> bool | None:
        if self.color != "auto":
            return self.color == "always"
        if os.environ.get("NO_COLOR"):
            return False
        return True if os.environ.get("FORCE_COLOR") else None

    def _envelope(self, status: str, data: object, findings: tuple[Diagnostic, ...]) -> None:
        document = {
            "schema_version": SCHEMA_VERSION,
            "command": self.command or _command(),
            "status": status,
            "data": data,
            "diagnostics": [finding.to_json() for finding in findings],
        }
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def _command() -> str:
    context = click.get_current_context(silent=True)
    return context.info_name or "" if context else ""


def located(store: str | None) -> str | None:
    """Return what a flag says of the store; a directory is relative to where we stand."""
    return settings.located(store, Path.cwd()) if store else None


def verb(function: Verb) -> Verb:
    """Give a verb the console, and let `--json` stand after the verb too."""

    @click.option("--json", "json_here", is_flag=True, help="Answer with one JSON document.")
    @click.pass_context
    @functools.wraps(function)
    def wrapped(context: click.Context, /, json_here: bool, **options: Any) -> Any:  # noqa: ANN401, FBT001
        console = context.ensure_object(Console)
        console.json = console.json or json_here
        console.command = context.command_path.removeprefix("curator ")
        return function(console, **options)

    return wrapped  # type: ignore[return-value]
