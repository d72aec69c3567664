"""Codes: every one that the package names is explained."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import curator
from curator.codes import CODES

if TYPE_CHECKING:
    from collections.abc import Iterator

NOTING = {"note", "refuse", "finding", "warn", "_refuse", "_finding"}


def texts(node: ast.AST | None) -> Iterator[str]:
    """Yield the literal codes that an expression may be."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value:
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from (*texts(node.body), *texts(node.orelse))


def named(tree: ast.AST) -> Iterator[str]:
    """Yield the codes that a module names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "code":
            yield from texts(node.value)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from assigned(targets[0], node.value)
        elif isinstance(node, ast.Call):
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            yield from texts(node.args[0] if called in NOTING and node.args else None)


def assigned(target: ast.AST, value: ast.AST | None) -> Iterator[str]:
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        for one, other in zip(target.elts, value.elts, strict=True):
            yield from assigned(one, other)
    elif isinstance(target, ast.Name) and target.id == "code":
        yield from texts(value)


def test_every_code_of_the_package_is_explained() -> None:
    found = {
        code
        for path in Path(curator.__file__).parent.rglob("*.py")
        if "harness" not in path.parts
        for code in named(ast.parse(path.read_text()))
    }
    assert len(found) > 80
    assert sorted(found - CODES.keys()) == []
