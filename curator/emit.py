"""A chosen image as something that starts it: a command, or a file of another tool's. Pure.

    emit("compose", image=image, reference=reference, host=host, why="tested on this GPU")

- The image is named by its digest; a reference that engines would not take is refused.
- Everything that an index or a host says is text: each format quotes it, so that it never becomes
  a key, a command, a directive or a variable. Names are made of letters and digits alone.
- A comment is one line of printable text after a fixed beginning: what a Dockerfile's frontend or
  an editor takes for a directive (`syntax=`, `yaml-language-server:`) cannot stand at its start.
- `docker` has no comment: a zsh that is typed into runs what stands behind a `#`.
"""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import yaml

from curator.errors import Diagnostic, InputError, printable
from curator.oci import Reference
from curator.resolve import RUN, platform_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from curator.resolve import Host, Image, Label

KINDS: Final = ("docker", "compose", "devcontainer", "k8s", "azureml", "dockerfile")

SHM: Final = RUN[-1]
# Without a terminal an image's Python ends at once: this shows what it has, whatever it is.
SHOW: Final = ("sh", "-c", "nvidia-smi -L && pip list")
_DRIVER: Final = "nvidia.com/cuda.driver-version.major"
_MAJOR: Final = "nvidia.com/gpu.compute.major"
_MINOR: Final = "nvidia.com/gpu.compute.minor"
_YOURS: Final = "The command shows GPU and packages, and ends: put your own in its place."
_TARGET = re.compile(r"([0-9]{1,3})\.([0-9])([af]?)")
# What every reader of YAML 1.1 and 1.2 takes for a string without quotes, but for its few words.
_PLAIN = re.compile(r"[$/]?[A-Za-z][A-Za-z0-9_./:@+-]*[A-Za-z0-9]")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chosen:
    image: Image
    reference: Reference
    host: Host
    why: str

    @property
    def name(self) -> str:
        """A name that every format takes."""
        image = self.image
        return _name(f"{image.framework}-{image.version}-cuda{image.label.cuda}")

    @property
    def remarks(self) -> Iterator[str]:
        """What stands in the comment at the beginning."""
        image, host = self.image, self.host
        gpus = ", ".join(str(gpu) for gpu in host.gpus) or "a GPU"
        driver = f"driver {host.driver}" if host.driver else "a driver that is not known"
        yield f"This image: {_title(image)}; driver {image.label.floor} or newer."
        yield f"Found for: {gpus}, {driver}, {host.architecture}."
        yield f"Why: {self.why}"


def emit(kind: str, *, image: Image, reference: str, host: Host, why: str) -> str:
    """Return the text that starts an image, one of `KINDS`; it ends with a newline.

    `reference` is pinned by digest; `why` says in words why this image was chosen for `host`.

    Raises:
        InputError: there is no such kind, or no engine would take the reference.
    """
    if kind not in _EMITTERS:
        hint = f"there are {', '.join(KINDS)}"
        raise InputError(Diagnostic(code="emit", message=f"no such format: {kind!r}", hint=hint))
    chosen = _Chosen(image=image, reference=_pinned(reference), host=host, why=why)
    return _EMITTERS[kind](chosen)


def _docker(chosen: _Chosen) -> str:
    return shlex.join((*RUN, str(chosen.reference))) + "\n"


def _compose(chosen: _Chosen) -> str:
    """Source: the Compose specification, "Deploy", devices."""
    devices = [{"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}]
    service = {
        # Safe from Compose's variables: a reference has no dollar sign.
        "image": str(chosen.reference),
        "command": list(SHOW),
        "shm_size": SHM,
        "deploy": {"resources": {"reservations": {"devices": devices}}},
    }
    return _yaml(chosen, {"services": {chosen.name: service}}, _YOURS)


def _devcontainer(chosen: _Chosen) -> str:
    """Source: containers.dev/implementors/json_schema; its schema allows comments.

    `hostRequirements` would give `--gpus all` a second time, and only where an engine has the
    runtime nvidia (devcontainers/cli, extraRunArgs).
    """
    document = {
        # No free text: `${localEnv:NAME}` would be replaced, and nothing escapes it.
        "name": chosen.name,
        "image": str(chosen.reference),
        "runArgs": ["--gpus", "all", f"--shm-size={SHM}"],
    }
    return _comment("//", chosen.remarks) + json.dumps(document, indent=2) + "\n"


def _k8s(chosen: _Chosen) -> str:
    """Return a Pod for nodes like the host, of which it takes one GPU.

    Source: Kubernetes' Pod v1; the node labels are those of NVIDIA's gpu-feature-discovery.
    """
    image, host = chosen.image, chosen.host
    terms = list(_terms(image.label, host))
    container = {
        "name": chosen.name,
        "image": str(chosen.reference),
        "command": list(SHOW),
        "resources": {"limits": {"nvidia.com/gpu": 1}},
        "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}],  # noqa: S108 - the Pod's own
    }
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    arch = platform_of(host.architecture).partition("/")[2]
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "nodeSelector": {"kubernetes.io/arch": arch},
        **({"affinity": {"nodeAffinity": required}} if terms else {}),
        "containers": [container],
        "volumes": [{"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}}],
    }
    # Comments do not reach the cluster.
    notes = {"dev.curator.cell": image.cell, "dev.curator.why": chosen.why}
    metadata = {"name": chosen.name, "annotations": notes}
    document = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    told = "Where gpu-feature-discovery labels no nodes, only the image's own checks choose."
    return _yaml(chosen, document, told, _YOURS)


def _azureml(chosen: _Chosen) -> str:
    """Source: Azure Machine Learning, CLI (v2) environment YAML schema."""
    image = chosen.image
    tags = {
        "framework": image.framework,
        "version": image.version,
        "cuda": image.label.cuda,
        "python": image.python,
        "driver": image.label.floor,
        "cell": image.cell,
    }
    document = {
        "$schema": "https://azuremlschemas.azureedge.net/latest/environment.schema.json",
        "name": chosen.name,
        "image": str(replace(chosen.reference, tag=None)),
        "description": f"{_title(image)}. {chosen.why}",
        "tags": tags,
    }
    told = f"An environment alone: a job names it, and gives it resources: {{shm_size: {SHM}}}."
    return _yaml(chosen, document, told)


def _dockerfile(chosen: _Chosen) -> str:
    """Source: OCI image specification, annotations `org.opencontainers.image.base.*`."""
    reference = chosen.reference
    name = replace(reference, digest=None) if reference.tag else reference
    return (
        f"{_comment('#', chosen.remarks)}FROM {reference}\n"
        f'LABEL org.opencontainers.image.base.name="{name}" \\\n'
        f'      org.opencontainers.image.base.digest="{reference.digest}"\n'
        "# PIP_CONSTRAINT and UV_CONSTRAINT are set to /opt/env/constraints.txt in the image: it\n"
        "# pins the framework and its CUDA wheels, which pip and uv then keep or refuse to go on.\n"
        "# RUN pip install --no-cache-dir PACKAGE\n"
    )


_EMITTERS: Final[Mapping[str, Callable[[_Chosen], str]]] = {
    "docker": _docker,
    "compose": _compose,
    "devcontainer": _devcontainer,
    "k8s": _k8s,
    "azureml": _azureml,
    "dockerfile": _dockerfile,
}


def _terms(label: Label, host: Host) -> Iterator[dict[str, Any]]:
    """Yield the kinds of nodes that fit, any of which will do.

    No label tells a driver's whole version: within the floor's branch the image's own
    `NVIDIA_REQUIRE_*` decide at the start. The last kind is a node that nobody labelled.
    """
    driver = list(_driver(label, host))
    terms = [expressions for found in _capabilities(label) if (expressions := driver + found)]
    if terms:
        unlabelled = {"key": terms[0][0]["key"], "operator": "DoesNotExist"}
        for expressions in (*terms, [unlabelled]):
            yield {"matchExpressions": expressions}


def _driver(label: Label, host: Host) -> Iterator[dict[str, Any]]:
    """Yield what the driver's branch has to be: the floor's, or an older one that was found fit."""
    found = re.match(r"[0-9]{1,6}", label.floor)
    floor = int(found[0]) if found else 0
    if floor:
        yield _above(_DRIVER, min(floor, host.branch or floor))


def _capabilities(label: Label) -> list[list[dict[str, Any]]]:
    """Return what a GPU's compute capability has to be, as alternatives that each suffice.

    It is where a kernel may fit: suffixes (`9.0a`) are left to the image's own checks.
    """
    found = [_TARGET.fullmatch(text) for text in label.cubin or ()]
    open_ended = [_TARGET.fullmatch(text) for text in label.ptx]
    if label.cubin is None or None in found or None in open_ended or not (found or open_ended):
        return [[]]
    targets = [match for match in (*found, *open_ended) if match]
    lowest: dict[int, int] = {}
    for match in targets:
        major, minor = int(match[1]), int(match[2])
        lowest[major] = min(minor, lowest.get(major, minor))
    whole = sorted(major for major, minor in lowest.items() if minor == 0)
    part = sorted((major, minor) for major, minor in lowest.items() if minor)
    later = min((int(match[1]) + 1 for match in open_ended if match and not match[3]), default=0)
    return [
        *([_majors(whole, later)] if whole or later else []),
        *([_among([major]), _above(_MINOR, minor)] for major, minor in part),
    ]


def _majors(majors: list[int], later: int) -> list[dict[str, Any]]:
    """Return that a GPU is of one of these major releases, or of `later` and all after it."""
    if not later:
        return [_among(majors)]
    first = min([*majors, later])
    gaps = [str(major) for major in range(first, later) if major not in majors]
    expressions = [_above(_MAJOR, first)]
    if gaps:
        expressions.append({"key": _MAJOR, "operator": "NotIn", "values": gaps})
    return expressions


def _among(majors: Iterable[int]) -> dict[str, Any]:
    return {"key": _MAJOR, "operator": "In", "values": [str(major) for major in majors]}


def _above(key: str, lowest: int) -> dict[str, Any]:
    """Return that a label's number is at least so high: Kubernetes knows only greater."""
    return {"key": key, "operator": "Gt", "values": [str(lowest - 1)]}


def _pinned(text: str) -> Reference:
    reference = Reference.parse(text)
    if reference.digest is None:
        message = f"not an image reference with a digest: {text!r}"
        raise InputError(Diagnostic(code="reference", message=message))
    return reference


def _title(image: Image) -> str:
    return f"{image.framework} {image.version}, CUDA {image.label.cuda}, Python {image.python}"


def _name(text: str) -> str:
    """Return a DNS label (RFC 1123), which is the narrowest of all."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower())[:63].strip("-") or "image"


def _comment(sign: str, lines: Iterable[str]) -> str:
    return "".join(f"{sign} {_line(line)}\n" for line in lines)


def _line(text: str) -> str:
    """Return the text on one line, its words with one space between."""
    return " ".join(printable(text).split())


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - PyYAML's own
        return True


def _represent(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = None if _PLAIN.fullmatch(text) else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent)


def _yaml(chosen: _Chosen, document: Mapping[str, Any], *told: str) -> str:
    body = yaml.dump(dict(document), Dumper=_Dumper, sort_keys=False, width=1_000_000)
    return _comment("#", (*chosen.remarks, *told)) + body
