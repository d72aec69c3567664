"""Rules of what runs where, each with its source. Pure: versions in, answers out.

- An answer is yes, no or unknown; it names the rule, its source, and the numbers compared.
- Compute capabilities are written `9.0`; a target may have a suffix: `9.0a`, `10.0f`.
- A driver is a whole version, or a branch (`580`) for the newest driver of that branch.
- Jetson boards have rules of their own: not these.

>>> require_cuda("12.9")
'cuda>=12.0'
>>> kernel("8.9", cubin=("8.0", "8.6"), ptx=()).loads
'sm_86'
>>> kernel("12.0", cubin=("8.0", "9.0"), ptx=()).says
'no'
>>> driver("12.8", "535.54.03", floor="525.60.13", speaks="12.2").rule
'driver-minor'
"""

from __future__ import annotations

from curator.compat._answer import Answer, Numbers, Says, begins, numbers
from curator.compat._cuda import (
    Gap,
    accepts_ptx,
    driver,
    forward,
    introduced,
    kernel,
    knows,
    library,
    platform,
    require_arch,
    require_cuda,
    supported,
    threads,
)
from curator.compat._evidence import Stale, age_of, moment_of, staleness, standing
from curator.compat._runtime import Range, at_least, exactly, is_checked, runtime, within

__all__ = [
    "Answer",
    "Gap",
    "Numbers",
    "Range",
    "Says",
    "Stale",
    "accepts_ptx",
    "age_of",
    "at_least",
    "begins",
    "driver",
    "exactly",
    "forward",
    "introduced",
    "is_checked",
    "kernel",
    "knows",
    "library",
    "moment_of",
    "numbers",
    "platform",
    "require_arch",
    "require_cuda",
    "runtime",
    "staleness",
    "standing",
    "supported",
    "threads",
    "within",
]
