"""The shape of each file below `matrix/`, and how a misshapen one is reported."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic_core import ErrorDetails

    from curator.matrix._source import Source


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


Release = Annotated[str, Field(pattern=r"^\d+\.\d+$")]


class CudaRow(_Model):
    """One CUDA release; `toolkit` is the release of the cuda-toolkit distribution, if any."""

    toolkit: str | None = None
    runtime: str | None = None
    driver_floor: str
    source: str = Field(min_length=1)
    read: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$")


class CudaFile(_Model):
    """`cuda.yaml`."""

    releases: dict[str, CudaRow] = Field(min_length=1)


class BaseRow(_Model):
    """A base, or with neither `suite` nor `reference` what others extend."""

    extends: str | None = None
    kind: Literal["mmdebstrap", "image"] | None = None
    suite: str | None = Field(default=None, pattern=r"^[a-z][a-z-]*$")
    python: str | None = None
    include: list[str] | None = None
    exclude_paths: list[str] | None = None
    keep_paths: list[str] | None = None
    epoch: int | None = None
    reference: str | None = None


class BasesFile(_Model):
    """`bases.yaml`."""

    bases: dict[str, BaseRow] = Field(min_length=1)


class Timeouts(_Model):
    """Seconds after which a step is given up."""

    build: int = Field(default=3600, ge=1)
    smoke: int = Field(default=900, ge=1)
    registry: int = Field(default=60, ge=1)


class Layers(_Model):
    """From which size on a wheel is a layer of its own."""

    alone_mib: int = Field(default=32, ge=1)


class EvidenceRow(_Model):
    """After how many days a test has to be made again."""

    max_age_days: int = Field(default=90, ge=1)


class FarmFile(_Model):
    """`farm.yaml`."""

    registry: str | None = None
    store: str | None = None
    jobs: int = Field(default=2, ge=1)
    timeouts: Timeouts = Timeouts()
    layers: Layers = Layers()
    evidence: EvidenceRow = EvidenceRow()
    epoch: int = Field(ge=0)
    demo: list[str] = Field(min_length=1)


Value = Annotated[str, Field(max_length=64)]


class Axes(_Model):
    """The values whose product is looked at."""

    version: list[Value] = Field(min_length=1)
    cuda: list[Value] = Field(min_length=1)
    python: list[Value] = Field(min_length=1)
    platform: list[Value] = Field(min_length=1)


class Condition(_Model):
    """Which combinations a rule is about: exact values or PEP 440 specifiers."""

    version: Value | None = None
    cuda: Value | None = None
    python: Value | None = None
    platform: Value | None = None


class ExcludeRow(Condition):
    """Combinations that are no cells, why, and who says so."""

    because: str = Field(min_length=1)
    source: str = Field(min_length=1)


class AlsoRow(Condition):
    """Requirements that some combinations need besides."""

    requirements: list[str] = Field(min_length=1)
    because: str = Field(min_length=1)


class SmRow(Condition):
    """The lowest compute capability that the wheels ship kernels for."""

    sm: str = Field(pattern=r"^\d+\.\d+$")
    source: str = Field(min_length=1)


class FrameworkFile(_Model):
    """`<framework>.yaml`."""

    framework: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    package: str
    module: str | None = Field(default=None, pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$")
    recipe: Literal["wheels", "toolkit"] = "wheels"
    bases: dict[str, str] = Field(min_length=1)
    axes: Axes
    requirements: list[str] = Field(min_length=1)
    also: list[AlsoRow] = []
    constrain: list[str] = Field(min_length=1)
    env: dict[str, str] = {}
    sm_min: list[SmRow] = []
    exclude: list[ExcludeRow] = []


Shape = TypeVar("Shape", bound=_Model)


def shape(source: Source, model: type[Shape]) -> Shape | None:
    """Return the file's data in its shape, or None with a finding for each misfit."""
    if source.value is None:
        return None
    try:
        return model.model_validate(source.value)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            _misfit(source, model, detail)
        return None


def _misfit(source: Source, model: type[BaseModel], detail: ErrorDetails) -> None:
    path = detail["loc"]
    name = path[-1] if path else ""
    kind = detail["type"]
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(str(name), _fields(model, path[:-1]), n=1)
        hint = f"did you mean {near[0]!r}?" if near else "remove it"
        finding = source.finding("unknown-key", f"unknown key {name!r}", path, hint=hint, key=True)
        source.findings.append(finding)
    elif kind == "missing":
        source.refuse("missing-key", f"{name!r} is missing", path[:-1])
    elif kind == "string_type" and isinstance(detail["input"], int | float):
        text = source.written.get(path, str(detail["input"]))
        message = f"{text} is read as the number {detail['input']}, not as text"
        source.refuse("unquoted", message, path, hint=f'quote it: "{text}"')
    else:
        message = detail["msg"][0].lower() + detail["msg"][1:]
        source.refuse("wrong-value", f"{name}: {message}", path)


def _fields(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """Return the keys that are known at a path, by walking the models along it."""
    here: Any = model
    for step in path:
        fields: Mapping[str, Any] = getattr(here, "model_fields", {})
        annotation = fields[str(step)].annotation if str(step) in fields else here
        here = _innermost(annotation)
    return list(getattr(here, "model_fields", {}))


def _innermost(annotation: Any) -> Any:  # noqa: ANN401 - a typing expression
    """Return the model inside `list[Model]` or `dict[str, Model]`."""
    arguments = getattr(annotation, "__args__", ())
    models = [item for item in arguments if isinstance(item, type) and issubclass(item, BaseModel)]
    return models[0] if models else annotation
