"""The verbs for pullers: what they print, how they exit, and what they load for it."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from curator.cli import main
from curator.index import CONFIG_PATH
from curator.oci import canonical_json
from curator.reader import read_catalogue
from tests.images import PYTORCH_128, image, label, published, ran, written
from tests.unit.test_cli import Said

if TYPE_CHECKING:
    from collections.abc import Callable

README = Path(__file__).parents[2] / "README.md"
SMI = "name, driver_version, compute_cap\nNVIDIA A100-SXM4-80GB, 535.104.05, 8.0\n"


@pytest.fixture
def index(tmp_path: Path) -> str:
    tests = (ran("A100", "580.65.06"), ran("H200", "580.65.06", rate=9))
    more = (
        image("pytorch", "2.8.0", label("12.8", PYTORCH_128), tests=tests),
        image("jax", "0.7.0", label("12.9", PYTORCH_128), state="yanked", reason="wrong cuDNN"),
    )
    return written(tmp_path / "index", [*published().images, *more])


@pytest.fixture
def curator(
    index: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., Said]:
    """Run the command line where no farm is."""
    monkeypatch.setenv("CURATOR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CURATOR_INDEX", index)
    monkeypatch.chdir(tmp_path)
    for name in ("DRIVER", "GPU", "ARCH"):
        monkeypatch.delenv(f"CURATOR_OVERRIDE_{name}", raising=False)

    def call(*arguments: str) -> Said:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        captured = capsys.readouterr()
        return Said(code=int(ended.value.code or 0), out=captured.out, err=captured.err)

    return call


def test_the_best_image_is_a_command_to_copy_and_its_reason(curator: Callable[..., Said]) -> None:
    said = curator("resolve", "--driver", "535", "--gpu", "A100", "--framework", "pytorch")
    assert said.code == 0
    assert said.err == ""
    first, command, reason, newer = said.out.splitlines()
    assert first.startswith("pytorch:2.9.1-cuda12.8-py3.12 ")
    assert newer == "newer pytorch:2.9.1-cuda13.0-py3.12 needs driver >= 580.65.06"
    assert command.startswith(
        "  docker run --rm -it --gpus all --shm-size 8g registry.example/dl/pytorch:"
    )
    assert "@sha256:" in command
    assert "driver 535 >= 525.60.13" in reason


@pytest.mark.parametrize("registry", ["$(id).example/dl", "x --privileged.y"])
@pytest.mark.parametrize(
    "verb", ["resolve", "resolve --pin", "explain pytorch:2.8.0-cuda12.8-py3.12"]
)
def test_a_registry_with_a_command_in_it_is_never_printed(
    registry: str, verb: str, index: str, curator: Callable[..., Said]
) -> None:
    path = Path(index, CONFIG_PATH)
    path.write_bytes(canonical_json({**json.loads(path.read_bytes()), "registry": registry}))
    said = curator(*verb.split(), "--driver", "580.95.05", "--gpu", "A100")
    assert registry not in said.out
    assert "registry" in said.err


def test_the_readme_shows_what_is_printed(curator: Callable[..., Said], tmp_path: Path) -> None:
    kernels = ("7.5", "8.0", "9.0", "10.0", "12.0")
    passed = ran("H200", "580.159.04", at="2026-11-23T10:00:00Z")
    tested = replace(passed, gpu="NVIDIA H100 80GB HBM3")
    images = [
        image(
            "cupy",
            "14.2.0",
            label(cuda, kernels),
            python=python,
            tags=(f"14.2.0-cuda{cuda}-py{python}-{key}",),
            tests=tests,
        )
        for cuda, python, key, tests in (
            ("12.9", "3.13", "2b39817cd016", ()),
            ("13.0", "3.11", "2d21b7292743", (tested,)),
            ("13.3", "3.13", "000000000000", ()),
        )
    ]
    place = written(tmp_path / "shown", images)
    shown = README.read_text().partition("$ curator resolve ")[2].partition("```")[0]
    examples = shown.split("$ curator resolve ")
    assert len(examples) == 2
    for example in examples:
        command, _, answer = example.partition("\n")
        said = curator("resolve", *shlex.split(command), "--index", place)
        assert re.sub(r"(@sha256:[0-9a-f]{8})[0-9a-f]{56}", r"\1...", said.out) == answer


def test_without_a_framework_each_has_its_best(curator: Callable[..., Said]) -> None:
    said = curator("resolve", "--driver", "580.95.05", "--gpu", "A100")
    heads = [line.split(":")[0] for line in said.out.splitlines() if line[:1].isalpha()]
    assert heads == ["cupy", "pytorch", "tensorflow"]
    pinned = curator("resolve", "--driver", "580.95.05", "--gpu", "A100", "--pin")
    assert pinned.code == 2
    assert "--framework" in pinned.err


def test_pin_prints_the_reference_alone(curator: Callable[..., Said]) -> None:
    asked = ("resolve", "--driver", "535", "--gpu", "A100", "--framework", "cupy")
    said = curator(*asked, "--pin")
    assert said.out.count("\n") == 1
    assert said.out.startswith("registry.example/dl/cupy:14.2.0-cuda12.9-py3.12-")
    assert said.out.strip() in curator(*asked).out


def test_tested_is_said_with_gpu_driver_and_day(curator: Callable[..., Said]) -> None:
    wishes = ("--framework", "pytorch", "--version", "2.8")
    said = curator("resolve", "--driver", "580.95.05", "--gpu", "A100", *wishes)
    assert "tested 2026-11-22 on A100 (sm_80), driver 580.65.06\n" in said.out
    elsewhere = curator("resolve", "--driver", "570.1", "--gpu", "A100", *wishes)
    assert "driver 580.65.06; follows by rule for driver 570.1" in elsewhere.out


def test_nothing_fits_exits_with_4_and_names_the_nearest(curator: Callable[..., Said]) -> None:
    said = curator("resolve", "--driver", "470.256.02", "--gpu", "RTX 5090")
    assert said.code == 4
    assert "pytorch:2.9.1-cuda12.8-py3.12 needs driver >= 570" in said.out
    assert "GeForce RTX 5090 (sm_120)" in said.err
    as_json = curator("resolve", "--driver", "470.256.02", "--gpu", "RTX 5090", "--json")
    assert as_json.code == 4
    assert json.loads(as_json.out)["status"] == "no-fit"
    assert as_json.data["ranked"] == []
    assert as_json.data["misses"][0]["changes"] == ["driver >= 570"]
    assert as_json.err == ""


def test_all_names_for_each_rejected_one_the_first_gate(curator: Callable[..., Said]) -> None:
    said = curator("resolve", "--driver", "535", "--gpu", "A100", "--framework", "pytorch", "--all")
    assert "  + pytorch:2.6.0-cuda12.4-py3.12  rule" in said.out
    assert "  - pytorch:2.9.1-cuda13.0-py3.12  G1: the runtime refuses it" in said.out


def test_explain_gives_each_rule_its_source(curator: Callable[..., Said]) -> None:
    asked = ("resolve", "--driver", "535", "--gpu", "A100", "--framework", "pytorch", "--explain")
    said = curator(*asked)
    assert "[driver-minor] CUDA Compatibility" in said.out
    data = curator(*asked, "--json").data
    assert {gate["gate"] for gate in data["ranked"][0]["gates"]} == {"G0", "G1", "G2", "G3"}
    assert all(gate["source"] for gate in data["ranked"][0]["gates"])


def test_explain_gives_the_rules_of_what_does_not_run_too(curator: Callable[..., Said]) -> None:
    said = curator("resolve", "--driver", "470.256.02", "--gpu", "RTX 5090", "--explain")
    assert said.code == 4
    nearest = said.out.index("  nearest: pytorch:2.9.1-cuda12.8-py3.12 needs driver >= 570")
    assert "G2 no      driver 470.256.02 < 525.60.13" in said.out[nearest:]
    assert "[driver-floor] CUDA Compatibility" in said.out[nearest:]
    unsure = curator("resolve", "--gpu", "A100", "--explain").out
    assert "  perhaps " in unsure
    assert "[driver-none]" in unsure


def test_a_deprecated_image_says_so_and_what_replaces_it(
    curator: Callable[..., Said], tmp_path: Path
) -> None:
    about = {"state": "deprecated", "reason": "wrong cuDNN", "replaced_by": "pytorch:2.9.2"}
    place = written(
        tmp_path / "old", [image("pytorch", "2.9.1", label("12.8", PYTORCH_128), **about)]
    )
    asked = ("resolve", "--index", place, "--driver", "580.95.05", "--gpu", "A100")
    assert "  deprecated: wrong cuDNN; replaced by pytorch:2.9.2\n" in curator(*asked).out
    (ranked,) = curator(*asked, "--json").data["ranked"]
    assert about.items() <= ranked.items()


def test_what_is_not_known_of_a_host_is_not_made_up(curator: Callable[..., Said]) -> None:
    arch = curator("resolve", "--arch", "aarch64")
    assert arch.code == 4
    assert "of which no NVIDIA GPU is known (aarch64)" in arch.err
    later = curator("resolve", "--driver", "999", "--gpu", "A100", "--framework", "pytorch")
    assert "driver 999 speaks at least CUDA 13." in later.out


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("--gpu", "A100", "--framework", "pytroch"), 3, "did you mean pytorch?"),
        (
            ("--gpu", "A100", "--framework", "pytorch", "--version", "9"),
            3,
            "no image has all of that",
        ),
        (("--gpu", "A1000000"), 2, "A1000000"),
        (("--driver", "12.4", "--gpu", "A100"), 2, "reads as a CUDA version"),
        (("--driver", "535", "--gpu", "A100", "--version", "new"), 2, "neither a version"),
        (("--driver", "535", "--gpu", "A100", "--arch", "sparc"), 2, "'sparc' is none of x86_64"),
        (("--index", "ftp://x/y", "--gpu", "A100"), 2, "ftp://"),
        (("--index", "nowhere", "--gpu", "A100"), 1, "/nowhere: no index here"),
        (("--index", "nowhere", "--gpu", "A100"), 1, "(--index, CURATOR_INDEX)"),
        (("--index", "nowhere", "--gpu", "A100", "--offline"), 1, "/nowhere was never read here"),
        (("--index", "azure:images", "--gpu", "A100"), 2, "connection string"),
    ],
)
def test_what_is_wrong_is_said(
    arguments: tuple[str, ...], code: int, told: str, curator: Callable[..., Said]
) -> None:
    said = curator("resolve", *arguments)
    assert (said.code, said.out) == (code, "")
    assert told in said.err


def test_pasted_output_describes_the_host(curator: Callable[..., Said], tmp_path: Path) -> None:
    (tmp_path / "smi.txt").write_text(SMI)
    said = curator("resolve", "--nvidia-smi", "smi.txt", "--framework", "cupy", "--json")
    assert said.data["host"]["driver"] == "535.104.05"
    assert said.data["host"]["gpus"][0]["sm"] == "8.0"
    (tmp_path / "smi.txt").write_text("NVIDIA-SMI has failed because it couldn't communicate\n")
    failed = curator("resolve", "--nvidia-smi", "smi.txt")
    assert failed.code == 2
    assert "driver" in failed.err


@pytest.mark.parametrize(
    ("arguments", "architecture"),
    [
        (("--gpu", "GH200"), "aarch64"),
        (("--gpu", "GH200", "--arch", "amd64"), "x86_64"),
        (("--nvidia-smi", "header.txt", "--gpu", "GH200"), "aarch64"),
        (("--nvidia-smi", "header.txt", "--arch", "X86_64"), "x86_64"),
        (("--nvidia-smi", "header.txt", "--arch", "arm64"), "aarch64"),
    ],
)
def test_the_architecture_is_that_of_the_gpus_or_the_one_told(
    arguments: tuple[str, ...], architecture: str, curator: Callable[..., Said], tmp_path: Path
) -> None:
    (tmp_path / "header.txt").write_text("| NVIDIA-SMI 580.95.05  Driver Version: 580.95.05 |\n")
    said = curator("resolve", "--driver", "580.95.05", *arguments, "--json")
    assert said.data["host"]["architecture"] == architecture


def test_a_host_without_a_gpu_has_none_whatever_its_driver(
    curator: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CURATOR_OVERRIDE_GPU", "none")
    monkeypatch.setenv("CURATOR_OVERRIDE_DRIVER", "580")
    said = curator("resolve", "--framework", "pytorch")
    assert said.code == 4
    assert "Nothing is known to run on a host of which no NVIDIA GPU is known" in said.out
    assert "perhaps" not in said.out
    assert "and an NVIDIA GPU\n" in said.out


def test_an_index_that_was_read_is_read_again_offline(
    curator: Callable[..., Said], tmp_path: Path
) -> None:
    asked = ("resolve", "--driver", "535", "--gpu", "A100", "--framework", "cupy", "--pin")
    first = curator(*asked)
    (tmp_path / "index").rename(tmp_path / "gone")
    assert curator(*asked, "--offline").out == first.out


@pytest.mark.parametrize("variable", ["CURATOR_INDEX", "CURATOR_STORE"])
def test_a_relative_place_is_one_of_where_we_stand(
    variable: str, curator: Callable[..., Said], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CURATOR_INDEX")
    asked = ("resolve", "--driver", "535", "--gpu", "A100", "--framework", "cupy", "--pin")
    by_flag = curator(*asked, "--index", "index")
    assert by_flag.code == 0
    (tmp_path / "elsewhere").mkdir()
    other = [image("cupy", "15.0.0", label("12.9", PYTORCH_128))]
    written(tmp_path / "elsewhere" / "index", other)
    monkeypatch.setenv(variable, "index")
    assert curator(*asked).out == by_flag.out
    monkeypatch.chdir(tmp_path)
    there = curator("-C", "elsewhere", *asked)
    assert "cupy:15.0.0" in there.out
    assert curator("-C", "..", *asked).out == by_flag.out
    assert len(list((tmp_path / "cache/index").iterdir())) == 2
    assert curator("-C", "nowhere", *asked).code == 2


def test_a_newer_state_is_seen_though_a_catalogue_is_remembered(
    curator: Callable[..., Said], tmp_path: Path
) -> None:
    asked = ("resolve", "--driver", "535", "--gpu", "A100", "--framework", "cupy", "--pin")
    before = curator(*asked)
    assert curator(*asked).out == before.out
    for path in (tmp_path / "cache/index").glob("*/pins.json"):
        path.unlink()
    written(tmp_path / "index", [image("cupy", "15.0.0", label("12.9", PYTORCH_128))])
    assert "15.0.0" in curator(*asked).out


def test_resolving_loads_no_engine_cloud_or_models(index: str, tmp_path: Path) -> None:
    program = (
        "import sys; from curator.cli import main\n"
        "try: main(['resolve', '--driver', '535', '--gpu', 'A100', '--framework', 'cupy'])\n"
        "except SystemExit as ended: assert not ended.code, ended.code\n"
        "heavy = {'python_on_whales', 'azure', 'pydantic', 'yaml', 'jinja2', 'rich', 'urllib3'}\n"
        "heavy.add('http.server')\n"
        "sys.exit(f'loaded {heavy & set(sys.modules)}' if heavy & set(sys.modules) else 0)\n"
    )
    environment = {"CURATOR_CACHE": str(tmp_path / "cache"), "CURATOR_INDEX": index}
    for expected in ("loaded {'pydantic'}", ""):
        ended = subprocess.run(
            [sys.executable, "-c", program],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.stderr.strip() == expected


def test_a_page_is_written_and_says_where(curator: Callable[..., Said], tmp_path: Path) -> None:
    assert curator("page").code == 2
    said = curator("page", "-o", "site", "--json")
    assert said.code == 0
    assert {"index.html", "page.css"} < set(said.data["written"])
    first = {path: path.read_bytes() for path in (tmp_path / "site").rglob("*") if path.is_file()}
    assert curator("page", "-o", "site").code == 0
    assert {path: path.read_bytes() for path in first} == first


def test_a_page_is_published_into_the_store(curator: Callable[..., Said]) -> None:
    assert int(curator("page", "--publish").out.split()[0]) > len(list(published().images))
    assert curator("page", "--publish").out == "0 files published\n"


def test_a_page_is_served_with_the_documents_beside_it(index: str, tmp_path: Path) -> None:
    program = "from curator.cli import main; main()"
    command = [sys.executable, "-c", program, "page", "--serve", "--port", "0", "--index", index]
    environment = {"CURATOR_CACHE": str(tmp_path / "cache")}
    with subprocess.Popen(
        command, env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True
    ) as running:
        try:
            assert running.stderr is not None
            address = running.stderr.readline().split()[0]
            for path, told in (("", b"<!doctype html>"), ("v1/head.json", b'"gen":')):
                with urllib.request.urlopen(address + path, timeout=10) as answer:  # noqa: S310
                    assert told in answer.read().lower()
            for path in ("v1/../../secret", "nothing"):
                with pytest.raises(urllib.error.HTTPError, match="404"):
                    urllib.request.urlopen(address + path, timeout=10)  # noqa: S310
        finally:
            running.send_signal(signal.SIGINT)
            running.communicate(timeout=30)
    assert running.returncode == 130


def test_a_test_with_a_driver_that_is_none_tells_nothing(tmp_path: Path) -> None:
    tests = (ran("A100", "unknown"), ran("A100", "580.65.06"))
    place = written(tmp_path / "odd", [image("x", "1", label("12.8", PYTORCH_128), tests=tests)])
    (found,) = read_catalogue(place).images
    assert [test.driver for test in found.tests] == ["580.65.06"]
