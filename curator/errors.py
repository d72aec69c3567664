"""Every error this package raises on purpose, in one tree.

The class carries what a caller decides on, so that nobody reads messages:

- `exit_code` is what the command line exits with (the table is in the README);
- `retryable` says that the same call, unchanged, may succeed later.

A cell that fails is a value (`curator.farm`), never one of these.

    CuratorError             1   ran, and it did not work
    ├── InputError           2   what was given is wrong; carries `diagnostics` with positions
    ├── EmptySelectionError  3   a selector matched nothing
    ├── NoFitError           4   no published image is known to run on the host
    ├── IntegrityError       1   bytes are not what their digest or our record says; never retried
    │   ├── SignatureError       too few of the keys that we trust signed this
    │   ├── RollbackError        an index older than one that was seen before
    │   ├── FreezeError          an index past its end: no newer one was signed, or is shown
    │   ├── ForkError            two histories of one index: another state under a known number
    │   ├── MixedError           documents of different states side by side
    │   └── StrangerError        another store than the one that was read here before
    ├── ConflictError        1   a condition of a write did not hold: somebody else was first
    ├── RefusedError         1   the other side said no, and would say it again (403, immutable)
    ├── BuildError           1   a build ran and failed; the message ends with the log's last lines
    ├── ProbeFaultError      1   a probe passed where it had to fail: nothing it says counts
    ├── HostError            1   this machine lacks something; the message says what to install
    ├── CancelledError     130   somebody asked to stop; nothing is left running
    └── TemporaryError      75   nothing is wrong with the input: try again unchanged
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal


def printable(text: str) -> str:
    """Return the text with spaces for what is not printable: breaks, escapes, bidi marks.

    So is shown what others wrote: it can neither look like a line of ours nor steer a terminal.
    """
    return "".join(letter if letter.isprintable() else " " for letter in text)


def printable_lines(text: str) -> str:
    """Return the text, line by line without what is not printable."""
    return "\n".join(map(printable, text.split("\n")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnostic:
    """One finding about an input, as a compiler would report it; lines and columns count from 1."""

    code: str
    message: str
    severity: Literal["error", "warning"] = "error"
    file: str | None = None
    line: int | None = None
    column: int | None = None
    hint: str | None = None

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part)
        text = f"{place}: {self.message}" if place else self.message
        return f"{text} ({self.hint})" if self.hint else text

    def to_json(self) -> dict[str, Any]:
        """Return the diagnostic as it stands in `--json` documents."""
        return asdict(self)


class CuratorError(Exception):
    """The root: something this package tried did not work."""

    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False
    code: ClassVar[str] = "failed"

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        """What `--json` reports for this error."""
        return (Diagnostic(code=self.code, message=str(self)),)


class InputError(CuratorError):
    """What was given is wrong: every finding at once, each with its position."""

    exit_code = 2
    code = "input"

    def __init__(self, *findings: Diagnostic) -> None:
        self._findings = findings
        super().__init__("\n".join(str(finding) for finding in findings))

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        """The findings, in the order of the input."""
        return self._findings


class EmptySelectionError(CuratorError):
    """A selector matched no cell; the message names the nearest ids."""

    exit_code = 3
    code = "empty-selection"


class NoFitError(CuratorError):
    """No image that was asked for is known to run on the host; the answer says what is nearest."""

    exit_code = 4
    code = "no-fit"


class IntegrityError(CuratorError):
    """Bytes do not have the digest, size or type that was promised."""

    code = "integrity"


class SignatureError(IntegrityError):
    """Too few of the trusted keys signed what was read."""

    code = "signature"


class RollbackError(IntegrityError):
    """An index is older than one that was seen before."""

    code = "rollback"


class FreezeError(IntegrityError):
    """An index is past the end that its signature gives it."""

    code = "freeze"


class ForkError(IntegrityError):
    """Two histories of one index: another state stands under a number that was seen before."""

    code = "fork"


class MixedError(IntegrityError):
    """Documents of different states of an index stand side by side."""

    code = "mixed"


class StrangerError(IntegrityError):
    """The store is another one than was read here before, or its keys or registry are others."""

    code = "stranger"


class ConflictError(CuratorError):
    """A conditional write found another state than the one it expected."""

    code = "conflict"


class RefusedError(CuratorError):
    """A server or a rule of ours refused, and would refuse again."""

    code = "refused"


class BuildError(CuratorError):
    """An image's build ran and failed; the message ends with the log's last lines."""

    code = "build"


class ProbeFaultError(CuratorError):
    """A probe passed its negative control: what it says of any image is worth nothing."""

    code = "probe-fault"


class HostError(CuratorError):
    """The machine cannot do it; the message says what is missing and how to get it."""

    code = "host"


class CancelledError(CuratorError):
    """Somebody asked to stop, and it was stopped."""

    exit_code = 130
    code = "cancelled"


class TemporaryError(CuratorError):
    """The same call may succeed later: a server is down, slow, or asked us to wait."""

    exit_code = 75
    retryable = True
    code = "temporary"
