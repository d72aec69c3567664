"""What NVIDIA and the frameworks document, each fact once, with its source and when it was read.

The JSON files beside this module are the facts; every row has `source` and `read` (a date), and a
test refuses rows without them or in conflict with each other.

- `gpus.json`: compute capabilities, and the branches of the Linux driver. `first_cuda` is the first
  CUDA release whose compiler knows a capability, `last_cuda` the last major release that supports
  it, `first_driver` and `last_driver` the branches that know it; absent means no such end. A
  branch's `cuda` is the release its drivers speak, `ptx` the newest PTX version they compile.
  Jetson boards are left out: their drivers come with the board's system and have other branches.
- `products.json`: the names that GPUs are sold and called by, and first drivers of single ones.
- `forward.json`: the driver branches that forward compatibility packages are made for.
- `frameworks.json`: which releases of a framework were built for which CUDA and Python.
- `rules.json`: each rule of `curator.compat`: its gate, its source, and how its answers read.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "Build",
    "Capability",
    "DriverBranch",
    "Facts",
    "Forward",
    "Gpus",
    "Product",
    "Rule",
    "facts",
    "read",
]

T = TypeVar("T")
NAMES = ("gpus", "products", "forward", "frameworks", "rules")


@dataclass(frozen=True, slots=True, kw_only=True)
class Capability:
    """A compute capability, the CUDA releases that support it, and the drivers that know it."""

    sm: str
    architecture: str
    first_cuda: str
    last_cuda: str | None = None
    first_driver: int | None = None
    last_driver: int | None = None
    source: str
    read: str

    @property
    def order(self) -> tuple[int, ...]:
        """The number by which capabilities are sorted."""
        return tuple(int(part) for part in self.sm.split("."))

    def has(self, branch: int) -> bool:
        """Return whether drivers of this branch know the GPU."""
        first, last = self.first_driver or branch, self.last_driver or branch
        return first <= branch <= last


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverBranch:
    """A driver branch (the first number of a driver version): what its drivers speak."""

    number: int
    cuda: str
    ptx: str | None = None
    source: str
    read: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpus:
    """What there is to run on, in ascending order."""

    capabilities: tuple[Capability, ...] = ()
    branches: tuple[DriverBranch, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """A GPU as it is sold, its other names, and its compute capability.

    `first_driver` is the first driver version that is known to run it, where that is a later one
    than the first of its capability's first branch.
    """

    name: str
    sm: str
    kind: str
    aliases: tuple[str, ...] = ()
    first_driver: str | None = None
    source: str
    read: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """A forward compatibility package, and the driver branches it takes."""

    cuda: str
    branches: tuple[int, ...]
    source: str
    read: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """Releases of a framework (a PEP 440 specifier) and what its publisher built them for.

    `loads` says which other CUDA releases they load on: a specifier, absent where only those in
    `cuda` are known to do. `experimental` are those of `cuda` that the publisher calls so.
    """

    framework: str
    versions: str
    cuda: tuple[str, ...]
    python: str | None = None
    cudnn: str | None = None
    loads: str | None = None
    experimental: tuple[str, ...] = ()
    note: str | None = None
    source: str
    read: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A rule's gate and source, and its sentence for each answer it can give.

    `change` is what other hardware, or engine, would turn its no around, as (kind, text); a rule
    without one depends on the driver.
    """

    name: str
    gate: str
    says: Mapping[str, str]
    change: tuple[tuple[str, str], ...] = ()
    source: str
    read: str


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All facts, looked up by name."""

    capabilities: Mapping[str, Capability]
    branches: Mapping[int, DriverBranch]
    products: Mapping[str, Product]
    forward: Mapping[str, Forward]
    builds: tuple[Build, ...]
    rules: Mapping[str, Rule]

    @cached_property
    def gpus(self) -> Gpus:
        """Capabilities and branches in ascending order."""
        return Gpus(
            capabilities=tuple(sorted(self.capabilities.values(), key=lambda found: found.order)),
            branches=tuple(self.branches[number] for number in sorted(self.branches)),
        )


def read(name: str) -> dict[str, Any]:
    """Return a file's JSON: `gpus`, `products`, `forward`, `frameworks` or `rules`."""
    text = files(__name__).joinpath(f"{name}.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


@cache
def facts() -> Facts:
    """Return the facts that this release of the package was made with."""
    gpus = read("gpus")
    return Facts(
        capabilities=_rows(Capability, "sm", gpus["gpus"]),
        branches={
            int(name): DriverBranch(number=int(name), **row)
            for name, row in gpus["branches"].items()
        },
        products=_rows(Product, "name", read("products")["products"]),
        forward=_rows(Forward, "cuda", read("forward")["packages"]),
        builds=tuple(
            _row(Build, {**row, "framework": framework})
            for framework, rows in read("frameworks")["frameworks"].items()
            for row in rows
        ),
        rules=_rows(Rule, "name", read("rules")["rules"]),
    )


def _rows(kind: type[T], key: str, rows: Mapping[str, Mapping[str, Any]]) -> dict[str, T]:
    return {name: _row(kind, {**row, key: name}) for name, row in rows.items()}


def _row(kind: type[T], row: Mapping[str, Any]) -> T:
    return kind(**{name: tuple(v) if isinstance(v, list) else v for name, v in row.items()})
