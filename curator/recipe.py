"""The recipe of an image: a Dockerfile and its context as text, and the key of all of it.

- The key is the hash of everything that reaches the image and of nothing else: no clock, no
  registry host, no path of a machine.
- A wheel is one layer for the whole farm: big wheels stand alone, small ones in two groups by
  what they belong to; a layer's name is the hash of its lines, and layers stand in one global
  order, so that images with common wheels have a common chain.
- An undefined name in a template is an error with its file and line.

Source of the layout: measured; per-wheel layers store 37 % of what one layer per image stores.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import jinja2

from curator.compat import require_arch, require_cuda
from curator.errors import Diagnostic, InputError
from curator.lockfile import BaseLock
from curator.oci import canonical_json, hex_of, sha256

if TYPE_CHECKING:
    from collections.abc import Mapping

    from curator.lockfile import ImageLock, Lock, LockedWheel
    from curator.matrix import Base, Cell, Matrix, Tree
    from curator.oci import Platform

KEY_LABEL = "dev.curator.recipe"
_FOLDER = "dockerfiles/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """Wheels that are installed together; `name` is a stage's name made from their lines."""

    name: str
    wheels: tuple[LockedWheel, ...]

    @property
    def file(self) -> str:
        """The layer's requirements file in the build's context."""
        return f"layers/{self.name}.txt"

    @property
    def text(self) -> str:
        """What that file holds."""
        return "".join(wheel.line + "\n" for wheel in self.wheels)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything one build needs; `key` (64 hex digits) is its identity.

    `context` maps a relative path to text, `labels` are what the engine adds to the image.
    """

    cell: str
    framework: str
    dockerfile: str
    context: tuple[tuple[str, str], ...]
    base: str
    base_key: str
    platform: Platform
    epoch: int
    key: str

    @property
    def labels(self) -> dict[str, str]:
        """The label that cannot be in the Dockerfile, since it is made from it."""
        return {KEY_LABEL: self.key}


def layers(lock: Lock, alone_bytes: int) -> tuple[Layer, ...]:
    """Return the layers of a lock in the farm's one order.

    A wheel of at least `alone_bytes` is a layer of its own. Order: big CUDA wheels by name, the
    group of small CUDA wheels, other big wheels by name, the group of all other small ones; what
    most images share comes first.
    """
    cuda = [wheel for wheel in lock.wheels if wheel.is_cuda]
    other = [wheel for wheel in lock.wheels if not wheel.is_cuda]
    return (*_grouped(cuda, alone_bytes, "cuda"), *_grouped(other, alone_bytes, "rest"))


def _grouped(wheels: list[LockedWheel], alone_bytes: int, group: str) -> list[Layer]:
    alone = [wheel for wheel in wheels if wheel.size_bytes >= alone_bytes]
    small = tuple(wheel for wheel in wheels if wheel.size_bytes < alone_bytes)
    found = [_layer((wheel,), wheel.name) for wheel in alone]
    return [*found, _layer(small, group)] if small else found


def _layer(wheels: tuple[LockedWheel, ...], title: str) -> Layer:
    lines = "\n".join(wheel.line for wheel in wheels)
    return Layer(name=f"{title}-{hashlib.sha256(lines.encode()).hexdigest()[:12]}", wheels=wheels)


def base_key(base: Base, lock: BaseLock | ImageLock) -> str:
    """Return the identity of a base (64 hex digits): its root file system, or its digest."""
    what = lock.diff_id if isinstance(lock, BaseLock) else lock.digest
    return hex_of(sha256(canonical_json({"base": base.name, "epoch": base.epoch, "is": what})))


class Templates:
    """A farm's Dockerfile templates, compiled when first used."""

    def __init__(self, tree: Tree) -> None:
        self._texts = {
            name.removeprefix(_FOLDER): text
            for name, text in tree.items()
            if name.startswith(_FOLDER) and name.endswith(".j2")
        }
        self._environment = jinja2.Environment(
            loader=jinja2.FunctionLoader(self._source),
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            autoescape=False,  # noqa: S701 - Dockerfiles, not HTML
        )
        self._environment.filters["quoted"] = _quoted

    def _source(self, name: str) -> tuple[str, str, None] | None:
        return (self._texts[name], _FOLDER + name, None) if name in self._texts else None

    def render(self, name: str, values: Mapping[str, Any]) -> str:
        """Return a template's text.

        Raises:
            InputError: with the template's file and line.
        """
        try:
            return self._environment.get_template(name).render(values)
        except jinja2.TemplateSyntaxError as error:
            finding = _finding(error.name or name, error.lineno, error.message)
        except jinja2.TemplateNotFound as error:
            finding = _finding(name, 1, f"template {error.name!r} is not below {_FOLDER}")
        except Exception as error:  # noqa: BLE001 - a template is input: what it raises is a finding
            finding = _finding(*_where(error, name), _message(error))
        raise InputError(finding)


def base_keys(matrix: Matrix) -> dict[tuple[str, str], str]:
    """Return the key of every locked base: (base, platform) -> key."""
    return {
        (name, platform): base_key(matrix.bases[name], lock)
        for (name, platform), lock in matrix.base_locks.items()
    }


def render(cell: Cell, matrix: Matrix, templates: Templates, *, installer: str) -> Recipe:
    """Return a cell's recipe; `installer` names the program that writes the wheels' files.

    Raises:
        InputError: a template is wrong; with its file and line.
    """
    lock = matrix.locks[cell.id]
    base_lock = matrix.base_locks[cell.base, str(cell.platform)]
    base = matrix.bases[cell.base]
    parts = layers(lock, matrix.farm.alone_bytes)
    dockerfile = _dockerfile(cell, parts, base, templates)
    context = {layer.file: layer.text for layer in parts}
    context["constraints.txt"] = constraints(cell, lock)
    recipe_base_key = base_key(base, base_lock)
    value = {
        "dockerfile": dockerfile,
        "context": context,
        "base": recipe_base_key,
        "platform": str(cell.platform),
        "epoch": matrix.farm.epoch,
        "installer": installer,
    }
    return Recipe(
        cell=cell.id,
        framework=cell.framework,
        dockerfile=dockerfile,
        context=tuple(sorted(context.items())),
        base=cell.base,
        base_key=recipe_base_key,
        platform=cell.platform,
        epoch=matrix.farm.epoch,
        key=hex_of(sha256(canonical_json(value))),
    )


def constraints(cell: Cell, lock: Lock) -> str:
    """Return the constraint file that keeps `pip install x` from swapping the framework."""
    held = (
        wheel
        for wheel in lock.wheels
        if any(fnmatchcase(wheel.name, pattern) for pattern in (cell.package, *cell.constrain))
    )
    return "".join(f"{wheel.name}=={wheel.version}\n" for wheel in held)


def image_environment(cell: Cell) -> dict[str, str]:
    """Return the environment of a cell's image, the cell's own entries last.

    `CUDA_VERSION` is left out on purpose: where it stands without a requirement, NVIDIA's runtime
    implies one that is stricter than the driver family's floor.

    Source: nvidia-container-toolkit, internal/config/image/cuda_image.go (IsLegacy).
    """
    arch = require_arch(cell.sm_min)
    return {
        "PATH": "/opt/env/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "VIRTUAL_ENV": "/opt/env",
        "PIP_CONSTRAINT": "/opt/env/constraints.txt",
        "UV_CONSTRAINT": "/opt/env/constraints.txt",
        "NVIDIA_VISIBLE_DEVICES": "all",
        "NVIDIA_DRIVER_CAPABILITIES": "compute,utility",
        "NVIDIA_REQUIRE_CUDA": require_cuda(cell.cuda),
        **({"NVIDIA_REQUIRE_ARCH": arch} if arch else {}),
        **dict(cell.env),
    }


def image_labels(cell: Cell, base: Base) -> dict[str, str]:
    """Return the labels that say what an image is.

    Source: OCI image specification, annotations; `dev.curator.*` are ours.
    """
    return {
        "org.opencontainers.image.title": cell.framework,
        "org.opencontainers.image.version": cell.version,
        "org.opencontainers.image.base.name": base.reference or base.name,
        "org.opencontainers.image.description": (
            f"{cell.framework} {cell.version} for CUDA {cell.cuda}, Python {cell.python}"
        ),
        "dev.curator.cell": cell.id,
        "dev.curator.cuda": cell.cuda,
        "dev.curator.python": cell.python,
    }


def check(matrix: Matrix, tree: Tree, *, installer: str) -> None:
    """Render every cell for its errors alone.

    Raises:
        InputError: with each template's first finding.
    """
    findings: dict[Diagnostic, None] = {}
    templates = Templates(tree)
    for cell in matrix.cells:
        try:
            render(cell, matrix, templates, installer=installer)
        except InputError as error:
            findings.update(dict.fromkeys(error.diagnostics))
    if findings:
        raise InputError(*findings)


def _dockerfile(cell: Cell, parts: tuple[Layer, ...], base: Base, templates: Templates) -> str:
    values = {
        "cell": cell,
        "recipe": f"{cell.recipe}.j2",
        "layers": parts,
        "env": list(image_environment(cell).items()),
        "labels": list(image_labels(cell, base).items()),
    }
    return templates.render(f"{cell.framework}/Dockerfile.j2", values)


def _finding(name: str, line: int, message: str | None) -> Diagnostic:
    return Diagnostic(
        code="template",
        message=message or "the template cannot be rendered",
        file=_FOLDER + name,
        line=line,
        column=1,
        hint="a template knows: cell, recipe, layers, env, labels",
    )


def _message(error: Exception) -> str:
    """Return an error's words; those of Python's own need their kind to be understood."""
    if isinstance(error, jinja2.TemplateError):
        return error.message or ""
    return f"{type(error).__name__}: {error}"


def _where(error: Exception, name: str) -> tuple[str, int]:
    """Return the template and line an error came from: the traceback's last template frame."""
    found = (name, 1)
    trace = error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if file.startswith(_FOLDER):
            found = (file.removeprefix(_FOLDER), trace.tb_lineno)
        trace = trace.tb_next
    return found


def _quoted(value: str) -> str:
    """Return a value as a Dockerfile's double-quoted word."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
    return f'"{escaped}"'
