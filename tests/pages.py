"""Indexes to make pages of: one that has something of everything, a big one, and invented ones."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest

from curator.compat import Gap
from curator.facts import facts
from curator.oci import sha256
from curator.page import site
from curator.resolve import Catalogue, Gpu, Host, Image, Tested, ordered
from tests.images import PYTORCH_124, PYTORCH_128, PYTORCH_130, image, label, published, ran

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from playwright.sync_api import Browser, Page

REGISTRY = "registry.example/dl"
CUDNN = Gap(file="libcudnn_ops.so.9", cubin=("7.5", "8.0", "9.0a", "10.0f"), ptx=("12.0f",))
AT = "2026-11-21T09:30:00Z"


def of(images: list[Image]) -> Catalogue:
    """Return the catalogue of images in a registry, at a time."""
    return replace(
        ordered(images), registry=REGISTRY, generation=12, at=AT, sha256=sha256(b"generation")
    )


def told(test: Tested) -> Tested:
    """Return a test with the digest of its report."""
    return replace(test, evidence=sha256(f"{test.gpu} {test.driver} {test.at}".encode()))


def shown() -> Catalogue:
    """Return an index that has something of everything that a page can show."""
    h200 = (told(ran("H200", "580.95.05", rate=51_000)),)
    both = (told(ran("A100", "535.216.01", rate=19_000)), *h200)
    failed = (told(ran("A100", "580.65.06", verdict="fail")),)
    cu126, cu128 = label("12.6", PYTORCH_124, glibc="2.36"), label("12.8", PYTORCH_128)
    cu130 = label("13.0", PYTORCH_130, ("12.0",), platforms=("linux/amd64", "linux/arm64"))
    digest = sha256(b"an older build")
    return of(
        [
            *(
                one
                for one in published().images
                if (one.framework, one.label.cuda) not in {("pytorch", "12.8"), ("cupy", "13.0")}
            ),
            image("pytorch", "2.9.1", cu128, tests=both, channel="stable", state="active"),
            image("pytorch", "2.9.1", cu128, python="3.13", tests=h200, state="active"),
            image(
                "pytorch", "2.9.1", cu128, id="pytorch-2.9.1-cuda12.8-py3.12-aaaaaaaaaaaa",
                digest=digest, moving=(), state="deprecated", reason="an older build",
                replaced_by="pytorch:2.9.1-cuda12.8-py3.12", published="2026-10-01T10:00:00Z",
            ),
            image("pytorch", "2.10.0", cu130, size=4_812_345_678, cudnn="9.15.1.9", tests=h200,
                  contents=h200[0].evidence),
            image("pytorch", "2.9.0", cu130, size=4_312_345_678, published="2026-10-02T10:00:00Z"),
            image("pytorch", "2.8.1", cu130, size=4_310_345_678, published="2026-09-02T10:00:00Z"),
            image("pytorch", "2.8.0", cu126, state="yanked", reason="wrong cuDNN",
                  replaced_by="pytorch:2.9.1-cuda12.8-py3.12"),
            image("pytorch", "2.8.0", cu128, state="quarantined", reason="test failed",
                  tests=failed, tags=()),
            image("cupy", "14.2.0", label("13.0", None), python="3.11"),
            image("cupy", "14.2.0", label("12.9", PYTORCH_128), repository="candidate/cupy",
                  id="cupy-14.2.0-cuda12.9-py3.12-bbbbbbbbbbbb", digest=sha256(b"candidate")),
            image("jax", "0.8.1", label("12.9", PYTORCH_128, forward="12.9"), size=1_200_000_000),
            image("jax", "0.8.1", cu130),
            image("numba-cuda", "0.30.4", cu130, tests=(*h200, *failed), state="active"),
        ]
    )  # fmt: skip


def many(count: int = 2000) -> Catalogue:
    """Return a big index: five frameworks, with tests of every third image."""
    labels = [
        label("12.4", PYTORCH_124),
        label("12.6", PYTORCH_124),
        label("12.8", PYTORCH_128),
        label("12.9", PYTORCH_128),
        label("13.0", PYTORCH_130, ("12.0",)),
    ]
    names = ["cupy", "jax", "numba-cuda", "pytorch", "tensorflow"]
    found = []
    for number in range(count):
        name, rest = names[number % 5], number // 5
        version = f"2.{rest // 20}.{rest // 5 % 4}"
        python = f"3.{10 + number // 3 % 5}"
        digest = sha256(str(number).encode())
        key, known = digest[7:19], labels[rest % 5]
        cell = f"{name}-{version}-cuda{known.cuda}-py{python}"
        tests = (told(ran("H200", "580.95.05", rate=51_000)), told(ran("A100", "535.216.01")))
        found.append(
            image(
                name, version, known, python=python, id=f"{cell}-{key}", digest=digest,
                tags=(f"{version}-cuda{known.cuda}-py{python}-{key}",), size=4_000_000_000 + number,
                tests=tests if number % 3 == 0 else (),
            )
        )  # fmt: skip
    return of(found)


def made(known: Catalogue) -> dict[str, str]:
    """Return the site of an index as texts, by path."""
    return {path: data.decode() for path, data in site(known, facts()).items()}


@cache
def files_shown() -> Mapping[str, str]:
    """Return the site of the index that has something of everything."""
    return made(shown())


def write(known: Catalogue, root: Path) -> Path:
    """Write the site of an index into a directory; return its first page."""
    for path, data in site(known, facts()).items():
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    return root / "index.html"


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start Debian's Chromium."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - for those that need it

    program = shutil.which("chromium")
    if program is None:
        pytest.fail("no chromium: apt-get install chromium")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(browser: Browser, **options: Any) -> Iterator[Page]:
    """Open a page that must say nothing on its console and ask for nothing from elsewhere."""
    said: list[str] = []
    context = browser.new_context(**options)
    page = context.new_page()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("requestfailed", lambda request: said.append(f"failed: {request.url}"))
    page.on("dialog", lambda dialog: said.append(f"dialog: {dialog.message}"))
    yield page
    context.close()
    assert said == [], said


def commands(page: Page) -> list[str]:
    """Return the commands that a page answers with."""
    return page.locator("#answer .command code").all_inner_texts()


class Parsed(HTMLParser):
    """What a test looks at in a page."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.links: list[str] = []
        self.ids: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[str, str]] = []
        self.text = ""
        self.cells: list[list[str]] = []
        self._inside: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        self.links += [value for name in ("href", "src") if (value := found.get(name))]
        self.ids += [value] if (value := found.get("id")) else []
        self._inside.append(tag)
        if tag == "script":
            self.scripts.append((found.get("type") or "", ""))
        if tag == "tr":
            self.cells.append([])
        if tag in {"td", "th"}:
            self.cells[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        while self._inside and self._inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "script" in self._inside:
            kind, text = self.scripts[-1]
            self.scripts[-1] = kind, text + data
        else:
            self.text += data
        if {"td", "th"} & set(self._inside):
            self.cells[-1][-1] += data


def row(text: str, start: str) -> list[str]:
    """Return the cells of the first row that starts with a text, squeezed."""
    rows = [[" ".join(cell.split()) for cell in cells] for cells in Parsed(text).cells]
    return next(cells for cells in rows if cells and cells[0].startswith(start))


# Invented indexes and hosts: what every rule has to be asked about, and nonsense in between.

PLATFORMS = ("linux/amd64", "linux/arm64")
SMS = tuple(facts().capabilities)
CUDAS = ("11.8", "12.1", "12.4", "12.6", "12.8", "12.9", "13.0", "13.2", "14.1", "12")
DRIVERS = (
    "390.157", "450.80.02", "450", "470", "470.256.02", "525", "525.60.13", "525.147.05", "530",
    "535", "535.54.03", "545.23.08", "550", "560.35.05", "565", "570", "570.26", "575.57.08",
    "580", "580.65.06", "590.48.01", "595", "610.43.02", "615", "999.10", "200",
)  # fmt: skip
REQUIRES: tuple[dict[str, str] | None, ...] = (
    None,
    {},
    {"CUDA_VERSION": "12.8.1"},
    {"CUDA_VERSION": "13.0.2", "NVIDIA_REQUIRE_CUDA": "cuda>=12.0"},
    {"NVIDIA_REQUIRE_CUDA": "cuda>=12.0"},
    {"NVIDIA_REQUIRE_CUDA": "cuda>=13.0"},
    {"NVIDIA_REQUIRE_CUDA": "cuda>=12.8 brand=tesla,driver>=535,driver<536"},
    {"NVIDIA_REQUIRE_CUDA": "cuda>=12.6 brand=nvidiartx,driver>=470,driver<471 driver>=560"},
    {"NVIDIA_REQUIRE_CUDA": "cuda>=12.0", "NVIDIA_REQUIRE_ARCH": "arch>=7.5"},
    {"NVIDIA_REQUIRE_ARCH": "arch<9.0", "NVIDIA_REQUIRE_DRIVER": "driver!=535.54.03"},
    {"NVIDIA_REQUIRE_CUDA": "cuda>=99", "NVIDIA_DISABLE_REQUIRE": "True"},
    {"NVIDIA_REQUIRE_CUDA": "cuda>12.4,cuda<=13.0 brand!=geforce,brand!=titan"},
    {"NVIDIA_REQUIRE_CUDA": "moon=full"},
    {"NVIDIA_REQUIRE_CUDA": "cuda>=12.0,moon=full CUDA>=11.0"},
    {"NVIDIA_REQUIRE_CUDA": "moon=full,cuda>=99 cuda>=11.0"},
    {"NVIDIA_REQUIRE_CUDA": "CUDA>=12.4 Brand=Tesla"},
    {"NVIDIA_REQUIRE_CUDA": "", "CUDA_VERSION": "v12.4"},
    {"NVIDIA_REQUIRE_ARCH": "arch>=7.5", "CUDA_VERSION": "12"},
    {"CUDA_VERSION": "11.4.048"},
    {"CUDA_VERSION": "12.8.1-rc.1+b"},
    {"NVIDIA_REQUIRE_CUDA": "cuda >= 12"},
    {"NVIDIA_REQUIRE_CUDA": "cuda>=x.y brand=tesla"},
    {"NVIDIA_REQUIRE_CUDA": "brand>tesla"},
    {"NVIDIA_REQUIRE_X": "", "NVIDIA_REQUIRE_CUDA": "cuda=12.8"},
    {"NVIDIA_REQUIRE_BRAND": "brand=geforce"},
)


def invented_host(dice: random.Random) -> Host:
    """Return a host of known and unknown GPUs and drivers."""
    products = list(facts().products.values())
    common = [facts().products[name] for name in ("T4", "A100", "H100", "B200", "GeForce RTX 4090")]

    def gpu() -> Gpu:
        if dice.random() < 0.1:
            return Gpu(name="x", sm=dice.choice(["8.7", "7.2", "15.0", None]))
        if dice.random() < 0.2:
            return Gpu(sm=dice.choice(SMS))
        found = dice.choice(common if dice.random() < 0.4 else products)
        return Gpu(name=found.name, sm=found.sm, kind=found.kind)  # type: ignore[arg-type]

    gpus = tuple(gpu() for _ in range(dice.choices([0, 1, 2, 3], [1, 12, 4, 1])[0]))
    return Host(
        driver=None if dice.random() < (0.08 if gpus else 0.5) else dice.choice(DRIVERS),
        gpus=gpus,
        architecture=dice.choices(["x86_64", "aarch64", "riscv64"], [8, 2, 1])[0],
        docker=dice.choice([None, None, "20.10.7", "28.5.1", "20.10.10"]),
    )


def invented_image(dice: random.Random, number: int) -> Image:
    """Return an image with a label, tests and a state thrown by dice."""
    cuda = dice.choice(CUDAS)
    targets = [*SMS, *("8.7", "7.2", "9.0a", "10.0f", "12.0a", "10.0a")]
    cubin = tuple(dice.sample(targets, dice.randint(0, 7)))
    if dice.random() < 0.05:
        cubin = (*cubin, "strange")
    more: dict[str, Any] = {
        "requires": dice.choice(REQUIRES),
        "forward": dice.choice([None, None, None, cuda, "12.8", "99.1"]),
        "glibc": dice.choice([None, "2.31", "2.36"]),
        "gaps": (CUDNN,) if number % 7 == 0 else (),
        "built": (None, None, "12.5.1", "12.8", "13.2")[number % 5],
        "platforms": dice.choice([PLATFORMS, PLATFORMS[:1], PLATFORMS[1:]]),
        "floor": dice.choice(["450.80.02", "525.60.13", "580.65.06", "580"]),
    }  # fmt: skip
    made = label(
        cuda,
        None if dice.random() < 0.05 else cubin,
        tuple(dice.sample(targets, dice.choice([0, 0, 1, 2]))),
        **more,
    )
    state = dice.choices(["active", "candidate", "deprecated", "yanked"], [5, 5, 2, 1])[0]
    return image(
        dice.choice(["pytorch", "jax", "cupy"]),
        dice.choice(["2.9.1", "2.10.0", "2.10.0rc1", "2.9.1.post1", "2.8", "1.13", "2.9.1+cu128"]),
        made,
        python=dice.choice(["3.11", "3.12", "3.13"]),
        id=f"image-{number}",
        digest=sha256(str(number).encode()),
        state=state,
        moving=dice.choice([(), ("2.9",), ("2.9.1-cuda12.8", "2.9")]),
        tags=dice.choice([(), ("a",), ("a",)]),
        channel=dice.choice([None, "stable", "candidate"]),
        published=f"2026-{dice.randint(1, 11):02}-01T10:00:00Z",
        tests=tuple(invented_test(dice) for _ in range(dice.choice([0, 0, 1, 2, 6]))),
    )


def invented_test(dice: random.Random) -> Tested:
    """Return a GPU test."""
    return Tested(
        sm=dice.choice(("7.5", "8.0", "8.9", "9.0")),
        driver=dice.choice([driver for driver in DRIVERS if "." in driver]),
        verdict=dice.choice(["pass", "pass", "fail"]),
        at=f"2026-{dice.randint(1, 3):02}-02T03:04:05{dice.choice(['', '.5', '.25'])}Z",
        gpu=dice.choice([None, "A100", "a <b>GPU</b>"]),
        evidence=dice.choice([None, sha256(b"report")]),
        stale=dice.choice([None, None, None, "probe", "age", "time"]),
        speed=dice.choice(
            [{}, {"matmul_fp16_gflops": dice.randint(1, 9), "copy_mb_s": 99}, {"copy_mb_s": 7}]
        ),
    )
