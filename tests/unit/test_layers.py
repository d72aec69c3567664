"""The direction of imports: a module imports only from lines below its own."""

from __future__ import annotations

import ast
from pathlib import Path

import curator

PACKAGE = Path(curator.__file__).parent

LAYERS = [
    {"cli"},
    {"farm", "doctor", "emit"},
    {"publish"},
    {"settings"},
    {"engine", "registry", "store", "reader", "runner", "lock", "host", "provision"},
    {"ports"},
    {"wire"},
    {"page"},
    {"plan", "policy", "resolve", "coverage", "sign", "derived"},
    {"index"},
    {"recipe", "smoke"},
    {"matrix"},
    {"lockfile"},
    {"compat"},
    {"facts", "places"},
    {"oci"},
    {"codes", "errors"},
]
OWNERS = {
    "yaml": {"matrix", "runner", "emit"},
    "jinja2": {"recipe", "page"},
    "python_on_whales": {"engine", "runner"},
    "azure": {"store"},
    "cryptography": {"sign"},
    "requests": {"store"},
    "urllib3": {"wire", "registry", "reader", "store"},
    "uv": {"engine", "lock"},
    "click": {"cli"},
    "rich": {"cli"},
    "pynvml": {"host"},
}
PURE = {
    "plan",
    "policy",
    "resolve",
    "coverage",
    "sign",
    "derived",
    "index",
    "recipe",
    "smoke",
    "matrix",
    "lockfile",
    "compat",
    "places",
    "oci",
    "codes",
}
IMPURE_IMPORTS = {"os", "subprocess", "socket", "time", "random", "pathlib", "shutil", "tempfile"}

# What `import curator` gives; nothing imports it.
FACE = {"__init__", "_open"}

# Runs inside images, by its text; it is no part of the package's import graph.
PROGRAMS = {"harness"}


def _line_of(module: str) -> int:
    return next(number for number, line in enumerate(LAYERS) if module in line)


def _sources() -> list[tuple[str, Path]]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        relative = path.relative_to(PACKAGE)
        unit = relative.parts[0].removesuffix(".py")
        if unit not in {*FACE, *PROGRAMS}:
            found.append((unit, path))
    return found


def _imports(path: Path) -> list[tuple[int, str]]:
    """Return (line, dotted name) of each import, those inside functions too."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.append((node.lineno, node.module or ""))
            if node.module == "curator":
                names += [(node.lineno, f"curator.{alias.name}") for alias in node.names]
    return names


def test_every_module_has_a_line() -> None:
    known = set().union(*LAYERS)
    assert {unit for unit, _ in _sources()} == known


def test_imports_point_down() -> None:
    wrong = []
    for unit, path in _sources():
        for line, name in _imports(path):
            parts = name.split(".")
            if parts[0] != "curator" or len(parts) == 1 or parts[1] == unit:
                continue
            if _line_of(parts[1]) <= _line_of(unit):
                wrong.append(f"{path.relative_to(PACKAGE)}:{line}: {unit} imports {parts[1]}")
    assert wrong == []


def test_a_library_has_one_owner() -> None:
    wrong = []
    for unit, path in _sources():
        for line, name in _imports(path):
            owners = OWNERS.get(name.split(".")[0])
            if owners is not None and unit not in owners:
                wrong.append(f"{path.relative_to(PACKAGE)}:{line}: {unit} imports {name}")
    assert wrong == []


def test_pure_modules_ask_the_machine_nothing() -> None:
    wrong = []
    for unit, path in _sources():
        if unit in PURE:
            wrong += [
                f"{path.relative_to(PACKAGE)}:{line}: {unit} imports {name}"
                for line, name in _imports(path)
                if name.split(".")[0] in IMPURE_IMPORTS
            ]
    assert wrong == []
