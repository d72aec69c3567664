"""Images as an index holds them, for the resolver's tests: labels of releases that exist."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from curator.index import (
    CONFIG_PATH,
    Config,
    Driver,
    Entry,
    Index,
    Sm,
    SmGap,
    Stack,
    Status,
    SuiteResult,
    commit_documents,
    entry_id,
    group_of,
    head_document,
    head_of,
)
from curator.oci import Digest, hex_of, sha256
from curator.resolve import Gpu, Host, Image, Label, Tested, ordered

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from curator.resolve import Catalogue

PER_COMMIT = 1000
FLOORS = {"11": "450.80.02", "12": "525.60.13", "13": "580.65.06"}
PYTORCH_124 = ("5.0", "6.0", "7.0", "7.5", "8.0", "8.6", "9.0")
PYTORCH_128 = ("7.0", "7.5", "8.0", "8.6", "9.0", "10.0", "12.0")
PYTORCH_130 = ("7.5", "8.0", "8.6", "9.0", "10.0", "12.0")

GPUS = {
    "A100": Gpu(name="A100", sm="8.0", kind="datacenter"),
    "V100": Gpu(name="V100", sm="7.0", kind="datacenter"),
    "T4": Gpu(name="T4", sm="7.5", kind="datacenter"),
    "H200": Gpu(name="H200", sm="9.0", kind="datacenter"),
    "GH200": Gpu(name="GH200", sm="9.0", kind="datacenter"),
    "GTX 1080": Gpu(name="GTX 1080", sm="6.1", kind="geforce"),
    "RTX 3090": Gpu(name="RTX 3090", sm="8.6", kind="geforce"),
    "RTX 4090": Gpu(name="RTX 4090", sm="8.9", kind="geforce"),
    "B200": Gpu(name="B200", sm="10.0", kind="datacenter"),
    "B300": Gpu(name="B300", sm="10.3", kind="datacenter"),
    "RTX 5090": Gpu(name="RTX 5090", sm="12.0", kind="geforce"),
}


def host(driver: str | None, *gpus: str, architecture: str = "x86_64") -> Host:
    """Return a host with these GPUs."""
    return Host(driver=driver, gpus=tuple(GPUS[gpu] for gpu in gpus), architecture=architecture)


def label(
    cuda: str, cubin: tuple[str, ...] | None, ptx: tuple[str, ...] = (), **more: Any
) -> Label:
    """Return a label as the farm writes it."""
    major = cuda.partition(".")[0]
    known = {
        "floor": FLOORS.get(major, "0"),
        "requires": {"NVIDIA_REQUIRE_CUDA": f"cuda>={major}.0"},
    }
    return Label(cuda=cuda, cubin=cubin, ptx=ptx, **{**known, **more})


def image(framework: str, version: str, label: Label, **more: Any) -> Image:
    """Return a published image."""
    python = more.pop("python", "3.12")
    cell = f"{framework}-{version}-cuda{label.cuda}-py{python}"
    known = {
        "id": f"{cell}-{'0' * 12}",
        "repository": framework,
        "digest": sha256(cell.encode()),
        "tags": (f"{version}-cuda{label.cuda}-py{python}-{'0' * 12}",),
        "moving": (f"{version}-cuda{label.cuda}-py{python}",),
        "channel": "candidate",
        "state": "candidate",
        "published": "2026-11-20T10:00:00Z",
    }
    return Image(
        cell=cell,
        framework=framework,
        version=version,
        python=python,
        label=label,
        **{**known, **more},
    )


def ran(gpu: str, driver: str, *, rate: int = 0, **more: Any) -> Tested:
    """Return a GPU test of an image, a pass if nothing else is said."""
    known = {"verdict": "pass", "at": "2026-11-22T10:00:00Z", "gpu": gpu, "sm": GPUS[gpu].sm}
    speed = {"matmul_fp16_gflops": rate} if rate else {}
    return Tested(**{**known, "driver": driver, "speed": speed, **more})


def published() -> Catalogue:
    """Return a small index: PyTorch for CUDA 12 and 13, TensorFlow, CuPy for two architectures."""
    both = ("linux/amd64", "linux/arm64")
    return ordered(
        [
            image("pytorch", "2.6.0", label("12.4", PYTORCH_124)),
            image("pytorch", "2.7.1", label("12.6", PYTORCH_124)),
            image("pytorch", "2.9.1", label("12.8", PYTORCH_128)),
            image("pytorch", "2.9.1", label("13.0", PYTORCH_130, ("12.0",))),
            image("pytorch", "2.4.1", label("11.8", (*PYTORCH_124[:-1], "3.7", "9.0"))),
            image("tensorflow", "2.19.1", label("12.5", ("6.0", "7.0", "8.0", "8.9"), ("9.0",))),
            image(
                "cupy",
                "14.2.0",
                label(
                    "12.9",
                    ("5.0", "6.0", "7.0", "7.5", "8.0", "9.0", "10.0", "12.0"),
                    platforms=both,
                ),
            ),
            image("cupy", "14.2.0", label("13.0", ("7.5", "8.0", "9.0", "10.0", "12.0"))),
        ]
    )


def entry_of(image: Image) -> Entry:
    """Return the index's entry of an image."""
    label = image.label
    recipe = hex_of(sha256(image.id.encode()))
    tests = [
        SuiteResult(
            suite="gpu",
            verdict=test.verdict,
            evidence=sha256(b"report"),
            at=test.at,
            probe="0" * 64,
            gpu=test.gpu,
            sm=test.sm,
            driver=test.driver,
            speed=dict(test.speed) or None,
        )
        for test in image.tests
    ]
    return Entry(
        id=entry_id(image.cell, recipe),
        cell=image.cell,
        digest=Digest(image.digest),
        platform_digest=Digest(image.digest),
        repository=image.repository,
        platforms=label.platforms,
        size=3_000_000_000,
        stack=Stack(
            framework=image.framework,
            version=image.version,
            cuda=label.cuda,
            python=image.python,
            built=label.built,
        ),
        driver=Driver(min=label.floor, rule="CUDA Compatibility, minor version compatibility"),
        tests=tuple(tests),
        base="debian-12@abc",
        recipe=recipe,
        lock=sha256(b"lock"),
        created="2026-11-20T09:00:00Z",
        status=Status(
            state=cast("Any", image.state), reason=image.reason, replaced_by=image.replaced_by
        ),
        channel=cast("Any", image.channel),
        tags=image.tags,
        sm=None if label.cubin is None else _sm(label),
        requires=None if label.requires is None else dict(label.requires),
        forward=label.forward,
        published=image.published,
    )


def _sm(label: Label) -> Sm:
    gaps = tuple(SmGap(file=gap.file, cubin=gap.cubin, ptx=gap.ptx) for gap in label.gaps)
    return Sm(cubin=label.cubin or (), ptx=label.ptx, source="made up", gaps=gaps or None)


def written(root: Path, images: Iterable[Image]) -> str:
    """Write an index of images into a directory; return its place."""
    now, store = "2026-11-23T12:00:00Z", "11111111-1111-4111-8111-111111111111"
    everything, index = list(images), Index()
    for publish, first in enumerate(range(0, len(everything), PER_COMMIT)):
        entries = {image.id: entry_of(image) for image in everything[first : first + PER_COMMIT]}
        after = index.merge(entries.values())
        tags = dict(after.pointed)
        for image in everything[first : first + PER_COMMIT]:
            group = group_of(image.framework, image.version)
            own = {f"{image.repository}:{tag}": Digest(image.digest) for tag in image.moving}
            tags[group] = {**tags.get(group, {}), **own}
        made = commit_documents(
            index, after.point(tags), store=store, publish=f"{publish:064x}", now=now
        )
        index = replace(after.point(tags), tip=made.tip)
        for document in (*made.named, made.generation, head_document(head_of(made.tip, now))):
            path = root / document.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(document.data)
    (root / CONFIG_PATH).write_bytes(Config(store=store, registry="registry.example/dl").data)
    return str(root)
