"""What every verb shares: where it runs, how it answers, and the JSON envelope."""

from __future__ import annotations

import functools
import json
import logging
import os
import signal
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import click

from curator import settings
from curator.errors import Diagnostic, HostError, printable, printable_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from rich.console import Console as RichConsole

    from curator.matrix import Matrix, Tree

SCHEMA_VERSION = 1
STORE_HELP = "Where the index is: a directory, https://ACCOUNT.blob..., or azure:CONTAINER."

Call = TypeVar("Call", bound="Callable[..., Any]")


class Interrupted(Exception):  # noqa: N818 - a fact about the process, not an error
    """A signal stopped the verb after it had put everything in order."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


class _Formatter(logging.Formatter):
    """What servers and programs say is printed as text."""

    def format(self, record: logging.LogRecord) -> str:
        return printable_lines(super().format(record))


class Console:
    """The options that stand before the verb, and the two streams."""

    def __init__(self, arguments: Sequence[str] = ()) -> None:
        # Errors in the options themselves are answered as asked, too.
        self.json = "--json" in arguments
        self.quiet = False
        self.debug = "--debug" in arguments
        self.color = "auto"
        self.progress = "auto"
        self.command = ""
        self._warnings: list[Diagnostic] = []

    def configure(self, **options: Any) -> None:  # noqa: ANN401 - click's parsed options
        """Take the parsed options; every relative path is one of the directory that -C names."""
        if options["directory"] is not None:
            os.chdir(options["directory"])
        self.json = options["as_json"]
        self.quiet = options["quiet"]
        self.debug = options["debug"]
        self.color = options["color"]
        self.progress = options["progress"]
        level = logging.INFO if options["verbose"] else logging.WARNING
        talk = logging.StreamHandler(sys.stderr)
        talk.setFormatter(_Formatter("%(message)s"))
        logging.basicConfig(level=level, handlers=[talk])

    def root(self) -> Path:
        """Return the farm's directory."""
        return settings.find_root(Path())

    def tree(self) -> Tree:
        """Read the farm's files."""
        return settings.read_tree(self.root())

    def load(self) -> tuple[Tree, Matrix]:
        """Read and check the farm."""
        from curator import matrix  # noqa: PLC0415 - pydantic and yaml, not for every verb

        tree = self.tree()
        return tree, matrix.load(tree)

    def rich(self) -> RichConsole:
        """Return stderr for a run's progress."""
        from rich.console import Console as RichConsole  # noqa: PLC0415 - 60 ms

        coloured, terminal = self._is_coloured(sys.stderr), sys.stderr.isatty()
        return RichConsole(
            stderr=True,
            force_terminal=terminal,
            no_color=not coloured,
            color_system="standard" if coloured and not terminal else "auto",
        )

    def styled(self, text: str, colour: str | None) -> str:
        """Return a part of an answer in a colour, where answers have colours."""
        is_plain = colour is None or not self._is_coloured(sys.stdout)
        return text if is_plain else click.style(text, fg=colour)

    def _is_coloured(self, stream: TextIO | None) -> bool:
        """Say whether a stream has colours: the flag, then the environment, then the terminal.

        Source: no-color.org, force-color.org; terminfo's `dumb`.
        """
        if self.color != "auto":
            return self.color == "always"
        if os.environ.get("NO_COLOR"):
            return False
        if os.environ.get("FORCE_COLOR"):
            return True
        return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"

    def say(self, text: str) -> None:
        """Talk, on stderr."""
        if not self.quiet:
            click.echo(printable_lines(text), err=True)

    def warn(self, code: str, text: str) -> None:
        """Say what an answer lacks, on stderr and in the envelope."""
        self._warnings.append(Diagnostic(code=code, message=text, severity="warning"))
        self._tell(self._warnings[-1])

    def answer(self, text: str, data: object, *, status: str = "ok") -> None:
        """Print the answer on stdout: text for people, or the envelope with `data`."""
        if self.json:
            self._envelope(status, data, self._warnings)
        elif text:
            self._write(text)

    def lines(self, lines: Iterable[str], data: object, *, status: str = "ok") -> None:
        """Print an answer with text of others in it: what a line holds stays on that line."""
        self.answer("\n".join(map(printable, lines)), data, status=status)

    def fail(self, diagnostics: Iterable[Diagnostic]) -> None:
        """Print what is wrong; that this cannot be written either is told after it."""
        findings = tuple(diagnostics)
        if self.json:
            try:
                self._envelope("error", None, findings)
            except HostError as error:
                findings += error.diagnostics
        for finding in findings:
            self._tell(finding)

    def _tell(self, finding: Diagnostic) -> None:
        mark = f"{finding.severity}:"
        if self._is_coloured(sys.stderr):
            colour = "red" if finding.severity == "error" else "yellow"
            mark = click.style(mark, fg=colour, bold=True)
        click.echo(f"{mark} {printable_lines(str(finding))}", err=True, color=True)

    def _envelope(self, status: str, data: object, findings: Iterable[Diagnostic]) -> None:
        document = {
            "schema_version": SCHEMA_VERSION,
            "command": self.command or _command(),
            "status": status,
            "data": data,
            "diagnostics": [finding.to_json() for finding in findings],
        }
        self._write(json.dumps(document, indent=2, ensure_ascii=False))

    def _write(self, text: str) -> None:
        """Write to stdout, byte by byte as it is.

        Raises:
            HostError: it takes no more, as a full disk does.
        """
        try:
            click.echo(text, color=True)
        except BrokenPipeError:
            raise
        except OSError as error:
            self.json = False  # what is wrong is said on stderr alone
            raise _unwritable(error) from error


class Verb(click.Command):
    """A verb whose help is an answer, too: click prints it while it parses."""

    def make_context(self, *arguments: Any, **options: Any) -> click.Context:  # noqa: ANN401 - click's
        """Parse, which may print help.

        Raises:
            HostError: stdout takes no more.
        """
        try:
            with _answering():
                return super().make_context(*arguments, **options)
        except OSError as error:
            raise _unwritable(error) from error


class Group(Verb, click.Group):
    """Verbs whose broken pipes are told from failures: click ends with 1 for both."""

    command_class = Verb

    def invoke(self, context: click.Context) -> object:
        """Call the verb."""
        with _answering():
            return super().invoke(context)


@contextmanager
def _answering() -> Iterator[None]:
    """Stop where whoever reads the answer left."""
    try:
        yield
    except BrokenPipeError as error:
        abandon(sys.stdout)
        raise Interrupted(128 + signal.SIGPIPE) from error


def _unwritable(error: OSError) -> HostError:
    abandon(sys.stdout)
    return HostError(f"the answer cannot be written: {error.strerror}")


def abandon(*streams: TextIO) -> None:
    """Let what is still to be written go nowhere, so that ending does not fail, too."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        os.dup2(nowhere, stream.fileno())


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Write a file or directory that a flag named.

    Raises:
        HostError: it cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise HostError(f"cannot write {path}: {error.strerror}") from error


def _command() -> str:
    context = click.get_current_context(silent=True)
    return context.info_name or "" if context else ""


def located(store: str | None) -> str | None:
    """Return what a flag or the environment says of a place; a directory as an absolute path."""
    return settings.located(store, Path.cwd()) if store else None


def verb(function: Call) -> Call:
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
