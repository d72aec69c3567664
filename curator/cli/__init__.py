"""The command line: parse, call, print. The only place that prints, catches and exits.

- stdout is the answer, stderr is talk; with `--json` stdout is one document, on errors too.
- Exit codes: 0 done, 1 failures, 2 bad input, 3 empty selection, 75 try again, 130/143 signal,
  141 where who reads the answer left, as programs that die of SIGPIPE do.
- A traceback is shown with `--debug` only.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from curator.cli._console import Console, Group, Interrupted, abandon
from curator.cli._doctor import doctor
from curator.cli._engine import engine
from curator.cli._explain import explain
from curator.cli._inputs import lock, matrix, validate
from curator.cli._page import page
from curator.cli._publish import publish
from curator.cli._published import audit, index
from curator.cli._resolve import resolve
from curator.cli._run import demo, plan, render, run
from curator.cli._smoke import probe, smoke
from curator.errors import CuratorError, Diagnostic

if TYPE_CHECKING:
    from collections.abc import Sequence


@click.group(
    cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.option(
    "-C",
    "directory",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Run as if started in DIR.",
)
@click.option("--json", "as_json", is_flag=True, help="Answer with one JSON document.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but the answer and errors.")
@click.option("-v", "--verbose", is_flag=True, help="Say more about what is being done.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.option("--color", type=click.Choice(["auto", "always", "never"]), default="auto")
@click.option("--progress", type=click.Choice(["auto", "tty", "plain", "none"]), default="auto")
@click.version_option(package_name="curator")
@click.pass_context
def cli(context: click.Context, /, **options: object) -> None:
    """Build, test on GPUs, and publish deep-learning images with the evidence for every tag."""
    console = context.ensure_object(Console)
    console.configure(**options)


VERBS = (
    audit,
    demo,
    doctor,
    engine,
    explain,
    index,
    lock,
    matrix,
    page,
    plan,
    probe,
    publish,
    render,
    resolve,
    run,
    smoke,
    validate,
)
for verb in (*VERBS, validate):
    cli.add_command(verb)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with the code that README's table gives."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    console = Console(given)
    try:
        code = _code(console, given)
    except BrokenPipeError:
        # Nobody reads what is wrong, either.
        abandon(sys.stdout, sys.stderr)
        code = 128 + signal.SIGPIPE
    sys.exit(code)


def _code(console: Console, given: list[str]) -> int:
    try:
        code = cli.main(given, prog_name="curator", standalone_mode=False, obj=console)
    except CuratorError as error:
        return _fail(console, error)
    except click.ClickException as error:
        return _usage(console, error)
    except (KeyboardInterrupt, click.Abort):
        console.fail([Diagnostic(code="interrupted", message="interrupted")])
        return 130
    except Interrupted as stopped:
        return stopped.exit_code
    except Exception as error:
        if console.debug:
            raise
        message = f"internal error: {error!r}"
        hint = "run again with --debug and report what it shows"
        console.fail([Diagnostic(code="internal", message=message, hint=hint)])
        return 1
    return code if isinstance(code, int) else 0


def _fail(console: Console, error: CuratorError) -> int:
    if console.debug:
        raise error
    console.fail(error.diagnostics)
    return error.exit_code


def _usage(console: Console, error: click.ClickException) -> int:
    context, message = getattr(error, "ctx", None), error.format_message()
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        if not console.json:
            click.echo(message, err=True)
            return 2
        message = "no verb is named"
    hint = f"see `{context.command_path} --help`" if context else None
    console.fail([Diagnostic(code="usage", message=message, hint=hint)])
    return 2
