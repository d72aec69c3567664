"""A chosen image as a document: what each says, and that whatever an index says stays data."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from itertools import product
from typing import Any

import hypothesis
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from curator import compat, matrix, settings
from curator.cli import _resolve
from curator.emit import KINDS, SHOW, emit
from curator.errors import InputError
from curator.facts import facts
from curator.recipe import constraints, image_environment
from curator.resolve import Gpu, Host, Image, Label
from tests.conftest import ROOT
from tests.images import PYTORCH_124, PYTORCH_128, PYTORCH_130, host, image, label

IMAGE = image("pytorch", "2.9.1", label("13.0", PYTORCH_130, ("12.0",)))
PLACE = "registry.example/dl/pytorch"
REFERENCE = f"{PLACE}:2.9.1@{IMAGE.digest}"
HOST = host("580.95.05", "A100", "RTX 4090")
WHY = "tested 2026-11-22 on A100 (sm_80), driver 580.95.05"
NAME = "pytorch-2-9-1-cuda13-0"
BEGINNINGS = ("This image: ", "Found for: ", "Why: ")
DRIVER, MAJOR, MINOR = (
    f"nvidia.com/{name}"
    for name in ("cuda.driver-version.major", "gpu.compute.major", "gpu.compute.minor")
)

# What is more than text somewhere: in a shell, YAML, JSON, a Dockerfile, Compose or an editor.
TRICKS = (
    "$(touch /tmp/x) `id` ${HOME} ${localEnv:HOME} ${{inputs.x}} $$",
    "'; id; '",
    '"\\"',
    "\nRUN id\n",
    "\r\nFROM scratch",
    "\u2028\u2029\x85\x0b\x0c\x1b[2J\x00\ufeff",
    "syntax=evil/frontend",
    "yaml-language-server: $schema=https://evil.example/s.json",
    "a: b # c",
    "*/ // <!-- -->",
    "&a [*a, {b: !!python/object:os.system ls}]",
    "1e3", "0o14", "1:30", ".inf", "no", "~", "", "2.10", "\u202egnp.exe", "\U0001f600",
)  # fmt: skip
TEXT = st.text(st.characters(codec="utf-8"), max_size=60) | st.sampled_from(TRICKS)


def emitted(kind: str, image: Image = IMAGE, host: Host = HOST, why: str = WHY) -> str:
    return emit(kind, image=image, reference=REFERENCE, host=host, why=why)


def read(text: str) -> Any:
    """Read YAML as version 1.1 and as version 1.2: both find the same."""
    old, new = yaml.safe_load(text), YAML(typ="safe", pure=True).load(text)
    assert old == new
    return old


def split(text: str, sign: str) -> tuple[list[str], str]:
    """Return the lines of the comment at the beginning, and all after it."""
    lines = text.splitlines(keepends=True)
    count = next(n for n, line in enumerate(lines) if not line.startswith(sign))
    return [line.removeprefix(f"{sign} ").rstrip("\n") for line in lines[:count]], "".join(
        lines[count:]
    )


def terms_of(text: str) -> list[Any]:
    affinity = read(text)["spec"].get("affinity")
    if affinity is None:
        return []
    required = affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    terms: list[Any] = required["nodeSelectorTerms"]
    return terms


def takes(terms: list[Any], labels: dict[str, str]) -> bool:
    """Whether Kubernetes puts a Pod with these terms on a node of these labels.

    Source: k8s.io/component-helpers scheduling/corev1/nodeaffinity: terms are alternatives, what
    is in one holds together; a label that is not there is not in, not greater, and is not among.
    """

    def holds(expression: Any) -> bool:
        value = labels.get(expression["key"])
        if expression["operator"] == "DoesNotExist":
            return value is None
        values = expression["values"]
        if expression["operator"] == "NotIn":
            return value not in values
        if value is None:
            return False
        if expression["operator"] == "Gt":
            (bound,) = values
            return int(value) > int(bound)
        assert expression["operator"] == "In"
        return value in values

    return any(all(map(holds, term["matchExpressions"])) for term in terms)


def node(branch: int, sm: str) -> dict[str, str]:
    major, minor = sm.split(".")
    return {DRIVER: str(branch), MAJOR: major, MINOR: minor}


def test_the_command_line_offers_what_can_be_emitted() -> None:
    assert KINDS == ("docker", "compose", "devcontainer", "k8s", "azureml", "dockerfile")
    assert KINDS == _resolve.KINDS


def test_docker_is_one_command_and_nothing_else() -> None:
    expected = f"docker run --rm -it --gpus all --shm-size 8g {REFERENCE}\n"
    assert emitted("docker") == expected


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "docker"])
def test_other_documents_begin_with_why(kind: str) -> None:
    comment, _ = split(emitted(kind), "//" if kind == "devcontainer" else "#")
    assert comment[:3] == [
        "This image: pytorch 2.9.1, CUDA 13.0, Python 3.12; driver 580.65.06 or newer.",
        "Found for: A100 (sm_80), RTX 4090 (sm_89), driver 580.95.05, x86_64.",
        f"Why: {WHY}",
    ]


def test_compose_reserves_every_gpu() -> None:
    devices = [{"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}]
    deploy = {"resources": {"reservations": {"devices": devices}}}
    service = {"image": REFERENCE, "command": list(SHOW), "shm_size": "8g", "deploy": deploy}
    assert read(emitted("compose")) == {"services": {NAME: service}}


def test_a_devcontainer_asks_for_the_gpu_once() -> None:
    _, text = split(emitted("devcontainer"), "//")
    assert json.loads(text) == {
        "name": NAME,
        "image": REFERENCE,
        "runArgs": ["--gpus", "all", "--shm-size=8g"],
    }


def test_azureml_names_the_image_by_its_digest_alone() -> None:
    environment = read(emitted("azureml"))
    assert environment["$schema"].endswith("/environment.schema.json")
    assert environment["image"] == f"{PLACE}@{IMAGE.digest}"
    assert "# An environment alone: a job names it" in emitted("azureml")
    assert environment["description"].endswith(WHY)
    assert environment["tags"]["driver"] == "580.65.06"


def test_a_dockerfile_says_what_it_is_made_from() -> None:
    _, text = split(emitted("dockerfile"), "#")
    assert text.splitlines()[:3] == [
        f"FROM {REFERENCE}",
        f'LABEL org.opencontainers.image.base.name="{PLACE}:2.9.1" \\',
        f'      org.opencontainers.image.base.digest="{IMAGE.digest}"',
    ]
    bare = emit("dockerfile", image=IMAGE, reference=f"{PLACE}@{IMAGE.digest}", host=HOST, why=WHY)
    assert f'base.name="{PLACE}@{IMAGE.digest}"' in bare


def test_what_a_dockerfile_says_of_constraints_is_true_of_every_cell() -> None:
    farm = matrix.load(settings.read_tree(ROOT))
    text = emitted("dockerfile")
    assert "# PIP_CONSTRAINT and UV_CONSTRAINT are set to /opt/env/constraints.txt" in text
    for cell in farm.cells:
        environment = image_environment(cell)
        for name in ("PIP_CONSTRAINT", "UV_CONSTRAINT"):
            assert environment[name] == "/opt/env/constraints.txt"
        held = {line.split("==")[0] for line in constraints(cell, farm.locks[cell.id]).split()}
        cuda = {wheel.name for wheel in farm.locks[cell.id].wheels if wheel.is_cuda}
        assert {cell.package, *cuda} <= held, cell.id


def test_a_pod_takes_one_gpu_and_memory_to_share() -> None:
    spec = read(emitted("k8s"))["spec"]
    (container,), (volume,) = spec["containers"], spec["volumes"]
    assert container["image"] == REFERENCE
    assert container["command"] == list(SHOW)
    assert container["resources"] == {"limits": {"nvidia.com/gpu": 1}}
    assert container["volumeMounts"] == [{"name": volume["name"], "mountPath": "/dev/shm"}]  # noqa: S108
    assert volume["emptyDir"] == {"medium": "Memory", "sizeLimit": "8Gi"}
    assert spec["nodeSelector"] == {"kubernetes.io/arch": "amd64"}
    arm = read(emitted("k8s", host=replace(HOST, architecture="aarch64")))
    assert arm["spec"]["nodeSelector"] == {"kubernetes.io/arch": "arm64"}


LABELS = {
    "only cubins": label("12.8", PYTORCH_128),
    "no minor at the beginning": label("12.4", PYTORCH_124),
    "cubins and PTX": label("13.0", PYTORCH_130, ("12.0",)),
    "PTX in the middle": label("12.4", ("7.5", "8.0"), ("8.6",)),
    "PTX alone": label("12.4", (), ("7.5",)),
    "unknown kernels": label("12.4", None),
}


@pytest.mark.parametrize("known", LABELS.values(), ids=LABELS)
def test_a_pod_goes_where_the_rules_say_yes(known: Label) -> None:
    floor = int(known.floor.partition(".")[0])
    terms = terms_of(emitted("k8s", image=replace(IMAGE, label=known)))
    capabilities = facts().capabilities
    assert len(capabilities) > 10
    for sm, branch in product([*capabilities, "13.0"], (450, 524, 525, 535, 579, 580, 610)):
        is_kernel = known.cubin is None or (
            compat.kernel(sm, cubin=known.cubin, ptx=known.ptx).says == "yes"
        )
        assert takes(terms, node(branch, sm)) == (is_kernel and branch >= floor), (sm, branch)


def test_a_pod_goes_to_nodes_that_nobody_labelled() -> None:
    assert takes(terms_of(emitted("k8s")), {"kubernetes.io/arch": "amd64"})


def test_a_pod_goes_where_it_was_found_to_run_below_the_floor() -> None:
    """A forward compatibility package in the image stands above the family's floor."""
    forward = replace(IMAGE, label=replace(IMAGE.label, forward="13.0"))
    terms = terms_of(emitted("k8s", image=forward, host=host("535.104.05", "A100")))
    assert takes(terms, node(535, "8.0"))
    assert not takes(terms, node(534, "8.0"))


def test_a_target_with_a_suffix_or_none_at_all_excludes_no_node_that_may_do() -> None:
    accelerated = label("12.8", ("8.0", "9.0a", "10.3f"))
    terms = terms_of(emitted("k8s", image=replace(IMAGE, label=accelerated)))
    for sm in ("8.0", "8.9", "9.0", "10.3"):
        assert takes(terms, node(580, sm)), sm
    assert not takes(terms, node(580, "12.0"))
    odd = replace(IMAGE, label=label("12.8", ("8.0", "sm_next")))
    assert takes(terms_of(emitted("k8s", image=odd)), node(580, "7.0"))
    bare = replace(IMAGE, label=replace(label("12.8", None), floor="?"))
    assert terms_of(emitted("k8s", image=bare)) == []


def test_what_is_none_of_them_is_refused() -> None:
    with pytest.raises(InputError, match=r"no such format: 'helm' .*there are docker, compose"):
        emitted("helm")


@pytest.mark.parametrize(
    "reference",
    [
        "", "x y", f"{PLACE}:1", f"{PLACE}@sha256:0", f"{PLACE}@{IMAGE.digest}\n",
        f"a.b;id/x@{IMAGE.digest}", f"a.b $HOME/x@{IMAGE.digest}", f"a.b\nRUN id/x@{IMAGE.digest}",
        f'a.b"/x@{IMAGE.digest}', f"--privileged.x/x@{IMAGE.digest}",
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", KINDS)
def test_a_reference_that_no_engine_takes_is_refused(kind: str, reference: str) -> None:
    with pytest.raises(InputError, match="reference"):
        emit(kind, image=IMAGE, reference=reference, host=HOST, why=WHY)


@pytest.mark.parametrize("place", ["127.0.0.1:5000/x", "[::1]:5000/x", "localhost/x/y", "x/y", "x"])
def test_a_reference_of_any_kind_of_registry_is_taken(place: str) -> None:
    reference = f"{place}@{IMAGE.digest}"
    text = emit("docker", image=IMAGE, reference=reference, host=HOST, why=WHY)
    assert shlex.split(text)[-1] == reference


@st.composite
def strange(draw: st.DrawFn) -> Image:
    """An image of which every text is anything."""
    known = Label(
        cuda=draw(TEXT),
        floor=draw(TEXT),
        platforms=tuple(draw(st.lists(TEXT, max_size=2))),
        cubin=draw(st.none() | st.lists(TEXT, max_size=3).map(tuple)),
        ptx=tuple(draw(st.lists(TEXT, max_size=2))),
    )
    return Image(
        id=draw(TEXT),
        cell=draw(TEXT),
        framework=draw(TEXT),
        version=draw(TEXT),
        python=draw(TEXT),
        repository=draw(TEXT),
        digest=draw(TEXT),
        label=known,
    )


HOSTS = st.builds(
    Host,
    driver=st.sampled_from([None, "535", "580.95.05"]),
    gpus=st.lists(st.builds(Gpu, name=TEXT, sm=st.sampled_from([None, "8.0"])), max_size=2).map(
        tuple
    ),
    architecture=TEXT,
)


def is_one_line_each(comment: list[str]) -> bool:
    beginnings = zip(comment, BEGINNINGS, strict=False)
    return all(line.startswith(begin.rstrip()) and line.isprintable() for line, begin in beginnings)


@hypothesis.settings(deadline=None)  # two readers of YAML, one of them in Python
@given(image=strange(), host=HOSTS, why=TEXT)
def test_whatever_an_index_says_stays_data(image: Image, host: Host, why: str) -> None:
    texts = {kind: emitted(kind, image=image, host=host, why=why) for kind in KINDS}
    assert texts["docker"] == emitted("docker")

    compose = read(texts["compose"])
    expected = read(emitted("compose"))
    (name,) = compose["services"]
    assert compose == {"services": {name: expected["services"][NAME]}}

    comment, text = split(texts["devcontainer"], "//")
    document = json.loads(text)
    assert document == json.loads(split(emitted("devcontainer"), "//")[1]) | {"name": name}
    assert len(comment) == 3
    assert is_one_line_each(comment)

    pod = read(texts["k8s"])
    assert pod["metadata"]["annotations"] == {
        "dev.curator.cell": image.cell,
        "dev.curator.why": why,
    }
    assert list(pod["spec"]["nodeSelector"]) == ["kubernetes.io/arch"]
    like, spec = read(emitted("k8s"))["spec"], pod["spec"]
    for found in (like, spec):
        found.pop("affinity", None)
        found.pop("nodeSelector")
        found["containers"][0].pop("name")
    assert spec == like

    environment = read(texts["azureml"])
    tags = environment.pop("tags")
    told = f"{image.framework} {image.version}, CUDA {image.label.cuda}, Python {image.python}"
    assert (tags["framework"], tags["cell"]) == (image.framework, image.cell)
    assert (tags["cuda"], tags["driver"]) == (image.label.cuda, image.label.floor)
    assert environment.pop("description") == f"{told}. {why}"
    assert environment == {
        "$schema": "https://azuremlschemas.azureedge.net/latest/environment.schema.json",
        "name": name,
        "image": f"{PLACE}@{IMAGE.digest}",
    }

    comment, text = split(texts["dockerfile"], "#")
    assert text == split(emitted("dockerfile"), "#")[1]
    assert len(comment) == 3
    for kind in ("compose", "k8s", "azureml", "dockerfile"):
        assert is_one_line_each(split(texts[kind], "#")[0])


@given(TEXT)
def test_a_reference_is_refused_or_stays_one_word(text: str) -> None:
    reference = f"{text}/x@{IMAGE.digest}"
    for kind in KINDS:
        try:
            made = emit(kind, image=IMAGE, reference=reference, host=HOST, why=WHY)
        except InputError:
            continue
        assert reference in made
        assert reference == shlex.quote(reference) or "[" in reference
