"""Is this machine set up: docker, GPUs in containers, room, and the places that are published to.

    for finding in checks(Look(environ=os.environ, cache=cache, registry="localhost:5000")):
        print(finding.state, finding.name, finding.text, finding.fix)

- Each finding is ok, warn, fail or skip; what is not ok says what to type.
- What is asked are this machine, docker, the registry and the store, and nobody else. Nothing is
  changed or pulled: a container that is tried is made of this machine's own files and removed.
- A check that rests on another that failed is skipped, and says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from curator.doctor._docker import look_at_builder, look_at_engine
from curator.doctor._gpu import look_at_access, look_at_driver, look_at_toolkit
from curator.doctor._places import look_at_registry, look_at_store
from curator.doctor._room import look_at_disks, look_at_shared_memory
from curator.doctor._texts import advice
from curator.doctor._values import Docker, Embedded, Finding, Look, State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from curator.resolve import Host

__all__ = ["Finding", "Look", "State", "advice", "checks"]

NEEDS_DOCKER = "not looked at: no docker engine answers"
NEEDS_GPU = "not looked at: no NVIDIA GPU answers"


def checks(look: Look) -> Iterator[Finding]:
    """Give what each check finds, as soon as it is found."""
    embedded = Embedded(look.cache)
    docker, found = look_at_engine(look, embedded)
    yield found
    if docker is None:
        yield Finding(name="buildx", state="skip", text=NEEDS_DOCKER)
    else:
        yield look_at_builder(look, docker)
    host, found = look_at_driver(look)
    yield found
    yield from _containers(look, docker, host)
    yield from look_at_disks(look, docker)
    yield look_at_shared_memory(look)
    yield look_at_registry(look, embedded)
    yield from look_at_store(look)


def _containers(look: Look, docker: Docker | None, host: Host | None) -> Iterator[Finding]:
    if docker is None or host is None:
        lacking = NEEDS_GPU if host is None else NEEDS_DOCKER
        yield Finding(name="container toolkit", state="skip", text=lacking)
        yield Finding(name="GPU in a container", state="skip", text=lacking)
        return
    yield look_at_toolkit(look, docker)
    yield look_at_access(look, docker, host)
