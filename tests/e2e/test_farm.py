"""The farm's whole way on real images: what is done is done once, and nothing is lost."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from curator.index import read_index
from curator.oci import Reference, parse_digest
from curator.registry import HttpRegistry
from curator.store import DirectoryStore
from tests.e2e.conftest import CELLS, PROBE, Farm, builds_of, kill_when

if TYPE_CHECKING:
    from curator.ports import EngineAddress

ONE = CELLS[0]


def test_cells_are_published_once_with_evidence(farm: Farm, engine_address: EngineAddress) -> None:
    plan = farm.json("plan")
    assert plan["summary"] == "Plan: 4 to add, 0 to rebuild, 0 to test again, 0 unchanged."

    assert farm.outcomes() == dict.fromkeys(CELLS, "published")
    entries = farm.entries()
    assert sorted(entries) == sorted(CELLS)
    for entry in entries.values():
        # No GPU has tested it, so it is a candidate, and says why.
        assert entry["status"]["state"] == "candidate"
        assert "gpu: not-run" in entry["status"]["reason"]
        assert entry["repository"] == "candidate/tiny"
        (contents, gpu) = entry["tests"]
        assert (contents["verdict"], gpu["verdict"]) == ("pass", "not-run")
        evidence = (
            farm.store / "v1/evidence" / f"{contents['evidence'].removeprefix('sha256:')}.json"
        )
        report = json.loads(evidence.read_bytes())
        assert report["image"] == entry["digest"]

    again = farm.curator("run")
    assert (again.returncode, again.stdout) == (0, "Nothing to do.\n")
    assert farm.json("plan")["summary"].endswith("4 unchanged.")

    name = f"{farm.registry}/candidate/tiny:{entries[ONE]['tags'][0]}@{entries[ONE]['digest']}"
    program = (
        "import six, os; print(six.__version__, os.getuid(), os.environ['NVIDIA_REQUIRE_CUDA'])"
    )
    command = [*engine_address.command, "run", "--rm", "--network", "none", name]
    result = subprocess.run(
        [*command, "python", "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["1.16.0", "1000", "cuda>=12.0"]


def test_tags_point_at_the_digests_that_were_tested(farm: Farm) -> None:
    farm.outcomes("*-cuda12.9-*")
    registry, repository = HttpRegistry(), Reference.parse(f"{farm.registry}/candidate/tiny")
    entries = farm.entries()
    newest = entries["tiny-1.17.0-cuda12.9-py3.11"]
    for tag in (newest["tags"][0], "1.17.0-cuda12.9-py3.11", "1.17-cuda12", "1.17"):
        found = registry.resolve(repository.with_tag(tag))
        assert found is not None
        assert found.digest == newest["digest"]
    inner = registry.manifest(repository.with_digest(parse_digest(newest["platform_digest"])))
    assert newest["size"] == sum(blob.size for blob in inner.blobs)


def test_a_changed_probe_tests_again_and_builds_nothing(farm: Farm) -> None:
    farm.outcomes("*1.16*")
    before = farm.entries()
    farm.edit("dockerfiles/tiny/probe.py", PROBE, PROBE + "\n# a comment is a change too\n")
    plan = farm.json("plan", "*1.16*")
    assert [cell["action"] for cell in plan["cells"]] == ["smoke", "smoke"]
    cells = farm.json("run", "*1.16*")["cells"]
    assert [cell["built"] for cell in cells] == [False, False]
    after = farm.entries()
    for cell, entry in after.items():
        assert entry["digest"] == before[cell]["digest"]
        assert entry["tests"][0]["probe"] != before[cell]["tests"][0]["probe"]


def test_a_changed_lock_builds_exactly_its_cell(farm: Farm) -> None:
    farm.outcomes("*1.16*")
    file = f"matrix/locks/tiny/{ONE}.txt"
    lines = (farm.root / file).read_text().splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith("pip==")]
    assert len(kept) == len(lines) - 1
    (farm.root / file).write_text("".join(kept))
    actions = {c["id"]: (c["action"], c["why"]) for c in farm.json("plan", "*1.16*")["cells"]}
    assert actions == {
        ONE: ("build", f"lock changed ({file})"),
        "tiny-1.16.0-cuda13.0-py3.11": ("reuse", "unchanged"),
    }


def test_a_changed_base_builds_all_of_its_cells(farm: Farm) -> None:
    farm.outcomes("*1.16*")
    path = farm.root / "matrix/locks/bases/debian-12-linux-amd64.json"
    lock = json.loads(path.read_text())
    lock["diff_id"] = "sha256:" + "0" * 64
    path.write_text(json.dumps(lock))
    cells = farm.json("plan", "*1.16*")["cells"]
    assert [cell["action"] for cell in cells] == ["build", "build"]
    assert all(cell["why"].startswith("base changed: debian-12 ") for cell in cells)


def test_a_bad_cell_is_reported_and_hides_no_other(farm: Farm) -> None:
    (farm.root / "dockerfiles/tiny/Dockerfile.j2").write_text(
        "{% extends recipe %}\n"
        "{% block framework %}\n"
        "{% if cell.id == 'tiny-1.16.0-cuda12.9-py3.11' %}\n"
        "USER root\n"
        "RUN echo the step says why >&2; exit 7\n"
        "{% elif cell.id == 'tiny-1.16.0-cuda13.0-py3.11' %}\n"
        "USER root\n"
        "RUN echo 'raise ImportError(1)' > /opt/env/lib/python3.11/site-packages/six.py\n"
        "{% elif cell.id == 'tiny-1.17.0-cuda12.9-py3.11' %}\n"
        "USER root\n"
        "RUN sed -i 's/12.9.79/12.8.90/' /opt/env/lib/python3.11/site-packages/"
        "nvidia_cuda_runtime_cu12-*.dist-info/METADATA\n"
        "{% endif %}\n"
        "{% endblock %}\n"
    )
    cells = {cell["id"]: cell for cell in farm.json("run", code=1)["cells"]}
    assert {name: cell["outcome"] for name, cell in cells.items()} == {
        "tiny-1.16.0-cuda12.9-py3.11": "failed",
        "tiny-1.16.0-cuda13.0-py3.11": "refused",
        "tiny-1.17.0-cuda12.9-py3.11": "refused",
        "tiny-1.17.0-cuda13.0-py3.11": "published",
    }
    build = cells["tiny-1.16.0-cuda12.9-py3.11"]
    assert "the step says why" in build["cause"]
    assert "the step says why" in Path(build["log"]).read_text()
    assert "framework: ImportError" in cells["tiny-1.16.0-cuda13.0-py3.11"]["cause"]
    told = cells["tiny-1.17.0-cuda12.9-py3.11"]["cause"]
    assert "nvidia-cuda-runtime-cu12 is 12.8.90, not 12.9.79" in told

    entries = farm.entries()
    states = {name: entry["status"]["state"] for name, entry in entries.items()}
    assert states == {
        "tiny-1.16.0-cuda13.0-py3.11": "unpublished",
        "tiny-1.17.0-cuda12.9-py3.11": "unpublished",
        "tiny-1.17.0-cuda13.0-py3.11": "candidate",
    }
    repository = Reference.parse(f"{farm.registry}/candidate/tiny")
    tags = HttpRegistry().tags(repository)
    assert tags
    assert all("1.17" in tag and "cuda12" not in tag for tag in tags)


def test_killed_in_a_build_the_next_run_finishes(farm: Farm) -> None:
    process = farm.start("run", ONE)
    kill_when(process, lambda: bool(builds_of(farm)))
    assert_nothing_builds(farm)
    assert read_index(DirectoryStore(farm.store)).entries == ()
    assert farm.outcomes(ONE) == {ONE: "published"}


def test_killed_between_build_and_smoke_nothing_is_built_again(farm: Farm) -> None:
    staging = Reference.parse(f"{farm.registry}/staging/tiny")
    registry = HttpRegistry()
    process = farm.start("run", ONE)
    kill_when(process, lambda: bool(registry.tags(staging)))
    assert read_index(DirectoryStore(farm.store)).entries == ()
    (cell,) = farm.json("run", ONE)["cells"]
    assert (cell["outcome"], cell["built"]) == ("published", False)


def test_killed_between_promote_and_index_the_next_run_finishes(farm: Farm) -> None:
    process = farm.start("run", ONE)
    evidence = farm.store / "v1" / "evidence"
    kill_when(process, evidence.exists)
    index = read_index(DirectoryStore(farm.store))
    assert len(index.entries) <= 1
    result = farm.curator("--json", "run", ONE)
    assert result.returncode == 0, result.stderr
    assert all(not cell["built"] for cell in json.loads(result.stdout)["data"]["cells"])
    assert list(farm.entries()) == [ONE]
    assert HttpRegistry().tags(Reference.parse(f"{farm.registry}/candidate/tiny"))


def test_ctrl_c_ends_in_order(farm: Farm, engine_address: EngineAddress) -> None:
    process = farm.start("run")
    deadline = time.monotonic() + 60
    while not builds_of(farm) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert_nothing_builds(farm)
    listed = subprocess.run(
        [*engine_address.command, "ps", "--quiet", "--filter", "label=dev.curator.owner"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert listed.stdout == ""
    assert read_index(DirectoryStore(farm.store)).number <= len(CELLS)


def test_sigterm_exits_with_its_own_code(farm: Farm) -> None:
    process = farm.start("run", ONE)
    deadline = time.monotonic() + 60
    while not builds_of(farm) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143


def assert_nothing_builds(farm: Farm) -> None:
    deadline = time.monotonic() + 15
    while builds_of(farm) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert builds_of(farm) == []
