"""What a rule answers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from curator.facts import facts

Says = Literal["yes", "no", "unknown"]
Numbers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one rule says of an image on a host.

    `compared` are the numbers looked at, by name; `loads` is the kernel image that the GPU takes
    (`sm_86`, `compute_120`), where the rule is about one.
    """

    says: Says
    rule: str
    compared: Numbers = ()
    loads: str | None = None

    @property
    def source(self) -> str:
        """The document that the rule is from."""
        return facts().rules[self.rule].source

    @property
    def text(self) -> str:
        """The answer as a sentence, with its numbers."""
        return facts().rules[self.rule].says[self.says].format_map(dict(self.compared))

    def to_json(self) -> dict[str, Any]:
        """Return the answer for machines."""
        found = {"says": self.says, "rule": self.rule, "source": self.source}
        compared = {"compared": dict(self.compared)} if self.compared else {}
        return {**found, **compared, **({"loads": self.loads} if self.loads else {})}


@lru_cache(maxsize=4096)
def numbers(version: str) -> tuple[int, ...]:
    """Return a dotted version's numbers, for comparing: `535.54.03` -> (535, 54, 3)."""
    return tuple(int(part) for part in version.split("."))


def begins(version: str, beginning: str) -> bool:
    """Say whether a version is another one or begins with it, number by number.

    >>> begins("12.9", "12"), begins("12.9", "1")
    (True, False)
    """
    return version == beginning or version.startswith(f"{beginning}.")
