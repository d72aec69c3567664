"""YAML text as plain data that remembers where each value stands."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from curator.errors import Diagnostic

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_CHARACTERS = 1024 * 1024
MAX_DEPTH = 20

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_STRING = "tag:yaml.org,2002:str"
_MERGE = "tag:yaml.org,2002:merge"
# What libyaml says of brackets that it reads ahead of its first event.
_NESTED = "exceeded maximum nesting depth"

Path = tuple[str | int, ...]


@dataclass(slots=True)
class Source:
    """A parsed file: its data, and (line, column) from 1 of every value and every key."""

    file: str
    value: Any = None
    places: dict[Path, tuple[int, int]] = field(default_factory=dict)
    keys: dict[Path, tuple[int, int]] = field(default_factory=dict)
    written: dict[Path, str] = field(default_factory=dict)
    findings: list[Diagnostic] = field(default_factory=list)

    def finding(
        self,
        code: str,
        message: str,
        path: Path = (),
        *,
        hint: str | None = None,
        key: bool = False,
    ) -> Diagnostic:
        """Describe something wrong at a path; what has no place of its own is at its parent's."""
        line, column = self.place(path, key=key)
        return Diagnostic(
            code=code, message=message, file=self.file, line=line, column=column, hint=hint
        )

    def place(self, path: Path, *, key: bool = False) -> tuple[int, int]:
        """Return where a value (or its key) stands."""
        if key and path in self.keys:
            return self.keys[path]
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path, (1, 1))

    def refuse(self, code: str, message: str, path: Path = (), *, hint: str | None = None) -> None:
        """Record a finding."""
        self.findings.append(self.finding(code, message, path, hint=hint))


def read(text: str, file: str) -> Source:
    """Parse one YAML document; whatever is wrong is in the source's findings."""
    source = Source(file=file)
    if len(text) > MAX_CHARACTERS:
        message = f"{len(text)} characters, more than the {MAX_CHARACTERS} a file here may have"
        source.refuse("too-big", message)
        return source
    try:
        text.encode()
        # Events come without recursion: what is too deep to compose is refused before.
        if _refuse_events(source, yaml.parse(text, Loader=_LOADER)):
            return source
        root = yaml.compose(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        _syntax(source, error)
        return source
    except (yaml.YAMLError, UnicodeEncodeError) as error:
        source.refuse("yaml", f"not YAML: {str(error).splitlines()[0]}")
        return source
    if not isinstance(root, yaml.MappingNode):
        what = "empty" if root is None else "not a mapping"
        source.refuse("yaml", f"the file is {what}", hint="expected `key: value` lines")
        return source
    source.value = _value(root, (), source)
    return source


def _refuse_events(source: Source, events: Iterable[yaml.Event]) -> bool:
    """Find aliases and what is nested too deep; return whether there is any."""
    depth = 0
    for event in events:
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if getattr(event, "anchor", None) is not None:
            source.places[()] = _position(event.start_mark)
            message = "anchors and aliases are not used in a matrix"
            source.refuse("alias", message, hint="write the value out")
            return True
        if depth > MAX_DEPTH:
            source.places[()] = _position(event.start_mark)
            source.refuse("too-deep", f"nested more than {MAX_DEPTH} deep")
            return True
    return False


def _syntax(source: Source, error: yaml.MarkedYAMLError) -> None:
    mark = error.problem_mark or error.context_mark
    source.places[()] = _position(mark)
    problem = error.problem or "cannot be read"
    if problem == _NESTED:
        source.refuse("too-deep", f"nested more than {MAX_DEPTH} deep")
        return
    hint = "indent with spaces" if "\\t" in problem else None
    source.refuse("yaml", f"not YAML: {problem}", hint=hint)


def _position(mark: Any) -> tuple[int, int]:  # noqa: ANN401 - yaml's marks are untyped
    return (mark.line + 1, mark.column + 1) if mark else (1, 1)


def _value(node: yaml.Node, path: Path, source: Source) -> Any:  # noqa: ANN401 - any YAML value
    source.places[path] = _position(node.start_mark)
    if isinstance(node, yaml.MappingNode):
        return dict(_items(node, path, source))
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, (*path, number), source) for number, item in enumerate(node.value)]
    assert isinstance(node, yaml.ScalarNode)  # noqa: S101 - YAML has three kinds of nodes
    return _scalar(node, path, source)


def _items(node: yaml.MappingNode, path: Path, source: Source) -> Iterator[tuple[str, Any]]:
    seen: dict[str, tuple[int, int]] = {}
    for key_node, value_node in node.value:
        here = _position(key_node.start_mark)
        name = str(key_node.value)
        source.keys[*path, name] = here
        if key_node.tag != _STRING:
            source.places[*path, name] = here
            message = f"the key {name} is read as a {key_node.tag.rpartition(':')[2]}, not as text"
            source.refuse("unquoted", message, (*path, name), hint=f'quote it: "{name}"')
        elif name in seen:
            source.places[*path, name] = here
            message = f"{name!r} is given twice, first on line {seen[name][0]}"
            source.refuse("duplicate-key", message, (*path, name), hint="keep one")
            continue
        seen[name] = here
        yield name, _value(value_node, (*path, name), source)


def _scalar(node: yaml.ScalarNode, path: Path, source: Source) -> Any:  # noqa: ANN401 - as _value
    kind = node.tag.rpartition(":")[2]
    source.written[path] = node.value
    try:
        if kind == "int":
            return int(node.value.replace("_", ""), 0)
        if kind == "float":
            return float(node.value)
    except ValueError:
        return node.value
    if kind == "bool":
        return node.value.lower() in {"true", "yes", "on"}
    return None if kind == "null" else node.value
