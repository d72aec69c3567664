"""The text of a probe: the harness, a framework's part, and what its label promises."""

from __future__ import annotations

import ast
import functools
import hashlib
import json
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from curator.errors import Diagnostic, InputError
from curator.smoke._values import CONTROL, GPU_CHECK, GPU_CHECKS

if TYPE_CHECKING:
    from curator.lockfile import Lock
    from curator.matrix import Cell, Tree

MAX_PROGRAM_BYTES = 120 * 1024
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
HARNESS = ("_run", "_contents", "_kernels", "_driver", "_numbers", "_tensor")
CELL_CHECKS = ("python", "libraries", "packages", "framework", "kernels", CONTROL, *GPU_CHECKS)
BARE_CHECKS = (CONTROL, *GPU_CHECKS)
ON_A_GPU = {GPU_CHECK: {"device": "cuda"}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A test program; `key` (64 hex digits) is its identity, `checks` what it reports, in order.

    `text` is shared between the cells of a framework, `promises` is one cell's own.
    """

    text: str
    promises: str
    checks: tuple[str, ...]
    key: str

    @property
    def program(self) -> str:
        """The program, but for the call that runs it."""
        return self.text + self.promises


class Probes:
    """A farm's probes, each with the harness they share."""

    def __init__(self, tree: Tree) -> None:
        self._harness = harness(*HARNESS)
        self._tree = tree
        self._texts: dict[str, str] = {}

    def assemble(self, cell: Cell, lock: Lock) -> Probe:
        """Return a cell's probe: harness, the framework's checks, and what its label promises.

        Raises:
            InputError: the framework's probe is missing, no Python, or too long to travel.
        """
        return self._probe(cell.framework, CELL_CHECKS, expectations(cell, lock))

    def framework(self, name: str) -> Probe:
        """Return a framework's probe for an image that promises nothing: it has to compute right.

        Raises:
            InputError: as `assemble`.
        """
        return self._probe(name, BARE_CHECKS, ON_A_GPU)

    def bare(self) -> Probe:
        """Return the probe that asks the driver alone; any image with a Python can run it."""
        text = f"{self._harness}\n{harness('_bare')}"
        return _made(text, BARE_CHECKS, ON_A_GPU, "the driver's probe")

    def host(self) -> Probe:
        """Return the probe that asks a machine what it is, by the driver in a container there."""
        return _made(self._harness, ("host",), {}, "the host's probe")

    def _probe(self, framework: str, checks: tuple[str, ...], expected: dict[str, Any]) -> Probe:
        file = f"dockerfiles/{framework}/probe.py"
        if file not in self._texts:
            self._texts[file] = f"{self._harness}\n{_python(file, self._tree)}"
        return _made(self._texts[file], checks, expected, file)


def _python(file: str, tree: Tree) -> str:
    """Return a probe's own text, having found that it is Python."""
    text = tree.get(file)
    if text is None:
        hint = "a framework's directory below dockerfiles/ holds its probe.py"
        raise InputError(Diagnostic(code="probe", message="no such file", file=file, hint=hint))
    try:
        compile(text, file, "exec")
    except (SyntaxError, ValueError) as error:
        finding = Diagnostic(
            code="probe",
            message=f"no Python: {getattr(error, 'msg', error)}",
            file=file,
            line=getattr(error, "lineno", 1),
            column=getattr(error, "offset", 1),
        )
        raise InputError(finding) from error
    return text


def _made(text: str, checks: tuple[str, ...], expected: dict[str, Any], file: str) -> Probe:
    promises = f"\nEXPECT.update({json.dumps(expected, sort_keys=True)})\n"
    made = Probe(text=text, promises=promises, checks=checks, key="")
    shared, size = _begun(text)
    own = run_program(made, nonce="")[len(text) :].encode()
    if size + len(own) > MAX_PROGRAM_BYTES:
        message = f"{size + len(own)} bytes with the harness, more than {MAX_PROGRAM_BYTES}"
        raise InputError(Diagnostic(code="probe", message=message, file=file))
    whole = shared.copy()
    whole.update(own)
    return replace(made, key=whole.hexdigest())


@functools.lru_cache(maxsize=32)
def _begun(text: str) -> tuple[hashlib._Hash, int]:
    """Return the hash of what many programs begin with, to go on from, and its size in bytes."""
    data = text.encode()
    return hashlib.sha256(data), len(data)


def harness(*modules: str) -> str:
    """Return modules of `curator.harness` as one text, without their imports of each other."""
    folder = files("curator").joinpath("harness")
    texts = [folder.joinpath(f"{name}.py").read_text(encoding="utf-8") for name in modules]
    head = "from __future__ import annotations\n\n" if "_run" in modules else ""
    return head + "\n".join(_standalone(text) for text in texts)


def _standalone(text: str) -> str:
    lines = text.splitlines(keepends=True)
    for node in ast.parse(text).body:
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith(
            ("curator.harness", "__future__")
        ):
            for number in range(node.lineno - 1, node.end_lineno or node.lineno):
                lines[number] = ""
    return "".join(lines)


def expectations(cell: Cell, lock: Lock) -> dict[str, dict[str, Any]]:
    """Return what each check has to find in the image: its label and its lock, as data."""
    return {
        "python": {
            "python": cell.python,
            "machine": MACHINES.get(cell.platform.architecture, cell.platform.architecture),
            **{wheel.name: wheel.version for wheel in lock.wheels},
        },
        "packages": {"package": cell.package, "constraints": ["PIP_CONSTRAINT", "UV_CONSTRAINT"]},
        "framework": {"version": cell.version, "cuda": cell.cuda},
        "kernels": {"sm_min": cell.sm_min} if cell.sm_min else {},
        **ON_A_GPU,
    }


def run_program(probe: Probe, nonce: str, *, no_gpu: str = "") -> str:
    """Return the text of one run.

    The nonce marks its report; `no_gpu` says why it was given no GPU, if it was given none.
    """
    return f"{probe.program}\nmain({nonce!r}, {probe.checks!r}, {no_gpu!r})\n"
