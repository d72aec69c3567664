"""The page of an image: its evidence, where it runs, what is inside, and its names."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from curator.facts import facts
from curator.resolve import Gpu, Host, judge
from tests.images import PYTORCH_128, PYTORCH_130, image, label, ran
from tests.pages import Parsed, files_shown, invented_image, made, of, row, shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from curator.resolve import Image

FACTS = facts()


def test_an_image_page_has_the_evidence_and_all_its_names() -> None:
    known = shown()
    one = next(one for one in known.images if one.tests and one.channel == "stable")
    text = files_shown()[f"image/{one.id}.html"]
    page = Parsed(text)
    assert f"docker run --rm -it --gpus all --shm-size 8g {known.reference(one)}" in page.text
    for told_ in (one.digest, one.tags[0], one.moving[0], "525.60.13 or later", "linux/amd64"):
        assert told_ in page.text
    for test in one.tests:
        assert test.evidence
        assert f"../v1/evidence/{test.evidence[7:]}.json" in page.links
        assert row(text, f"{test.gpu} (sm {test.sm})")[1:4] == [
            test.driver,
            "● passed",
            test.at[:10],
        ]


def test_an_image_page_says_where_it_runs_by_rule() -> None:
    known = shown()
    one = next(one for one in known.images if one.label.cuda == "12.8" and one.channel == "stable")
    text = files_shown()[f"image/{one.id}.html"]
    assert row(text, "sm 7.0 Volta")[1:] == ["✓ yes: driver 525.60.13 to 580", "sm_70"]
    assert row(text, "sm 8.9 Ada")[1:] == ["✓ yes: driver 525.60.13 or later", "sm_86"]
    assert row(text, "sm 12.0 Blackwell")[1:] == ["✓ yes: driver 570 or later", "sm_120"]
    assert row(text, "sm 6.1 Pascal")[1:] == ["✕ no: ships no kernels for sm 6.1", ""]
    newest = next(one for one in known.images if one.version == "2.10.0")
    text = files_shown()[f"image/{newest.id}.html"]
    assert row(text, "sm 7.0 Volta")[1].startswith("✕ no: ")
    unread = next(one for one in known.images if one.label.cubin is None)
    text = files_shown()[f"image/{unread.id}.html"]
    assert row(text, "sm 8.0")[1] == (
        "? not known: driver 580.65.06 or later: which kernels the image ships was not read"
    )


def machines(one: Image) -> dict[str, list[str]]:
    """Return what an image's page says of each compute capability, an answer a line."""
    text = made(of([one]))[f"image/{one.id}.html"]
    table = text.partition('id="runs"')[2].partition("</table>")[0]
    found = {}
    for line in table.split("<tr>")[1:]:
        name = re.search(r"sm ([0-9.]+)", line)
        told = [Parsed(part).text for part in line.partition("</td>")[0].split("<div>")[1:]]
        if name:
            found[name[1]] = [" ".join(text.split()) for text in told]
    return found


def drivers(answers: list[str], word: str) -> set[int]:
    """Return the branches that a page names behind a word; `999` is later than all."""
    branches = [*FACTS.branches, 999]
    found: set[int] = set()
    for text in (answer for answer in answers if answer.startswith(word)):
        for run in text.partition("driver ")[2].partition(":")[0].split("; "):
            numbers = [int(number) for number in re.findall(r"\b(\d{3})(?:\.[.\d]+)?", run)]
            first, last = numbers[0], numbers[-1]
            if "later than" in run:
                first, last = first + 1, 999
            elif "or later" in run:
                last = 999
            found |= {branch for branch in branches if first <= branch <= last}
    return found


def test_an_image_page_says_yes_and_not_known_for_the_very_drivers_of_the_rules() -> None:
    dice = random.Random(1)  # noqa: S311 - the same every time
    holes = 0
    for number in range(60):
        one = invented_image(dice, number)
        one = replace(one, label=replace(one.label, platforms=("linux/amd64",)))
        for sm, answers in machines(one).items():
            found = {
                branch: judge(one, Host(driver=str(branch), gpus=(Gpu(sm=sm),)), FACTS).says
                for branch in (*FACTS.branches, 999)
            }
            for word, says in (("✓ yes", "yes"), ("? not known", "unknown")):
                expected = {branch for branch, said in found.items() if said == says}
                assert drivers(answers, word) == expected, (one, sm, answers)
                holes += ";" in "".join(answers)
    assert holes > 10


def test_a_range_with_holes_is_told_run_by_run() -> None:
    asks = "cuda>=12.8 driver>=535,driver<536 driver>=550,driver<551"
    holes = image("x", "1", label("12.8", PYTORCH_128, requires={"NVIDIA_REQUIRE_CUDA": asks}))
    assert machines(holes)["8.0"] == ["✓ yes: driver 535; 550; 570 or later"]
    assert machines(holes)["12.0"] == ["✓ yes: driver 570 or later"]


def test_what_is_not_known_of_some_drivers_is_told_beside_what_is() -> None:
    packed = image("x", "1", label("12.8", PYTORCH_128, forward="12.8"))
    yes, unsure = machines(packed)["8.0"]
    assert yes == "✓ yes: driver 570 or later"
    assert unsure.startswith("? not known: driver ")
    assert unsure.endswith(
        "whether the forward compatibility package 12.8 takes driver branch 565"
        " on these GPUs is not known"
    )


def test_a_failed_test_takes_its_drivers_out_and_a_pass_puts_them_in() -> None:
    known = label("12.8", PYTORCH_128)
    failed = image("x", "1", known, tests=(ran("A100", "535.216.01", verdict="fail"),))
    answers = machines(failed)["8.0"]
    told = "✕ no: driver 535: failed its test on A100 with driver 535.216.01, 2026-11-22"
    assert told in answers
    assert 535 not in drivers(answers, "✓ yes") | drivers(answers, "? not known")
    assert machines(failed)["9.0"] == ["✓ yes: driver 525.60.13 or later"]
    again = ran("A100", "535.230.02", at="2026-11-23T10:00:00Z")
    mended = replace(failed, tests=(*failed.tests, again))
    assert machines(mended)["8.0"] == ["✓ yes: driver 525.60.13 or later"]
    unread_text = "which kernels the image ships was not read"
    unread = image("x", "1", label("12.8", None), tests=(ran("A100", "535.216.01"),))
    assert machines(unread)["8.0"] == [
        "✓ yes: driver 535",
        f"? not known: driver 525.60.13 to 530; 545 or later: {unread_text}",
    ]


def test_a_gpu_or_driver_without_facts_that_ran_the_image_is_told_too() -> None:
    test = replace(ran("A100", "620.10.01"), sm="8.7", gpu="Orin")
    one = image("x", "1", label("13.0", PYTORCH_130), tests=(test,))
    assert machines(one)["8.7"][0] == "✓ yes: driver 620"


def test_what_is_withdrawn_says_why_and_what_replaces_it() -> None:
    known = shown()
    yanked = next(one for one in known.images if one.state == "yanked")
    better = next(one for one in known.images if one.channel == "stable")
    page = Parsed(files_shown()[f"image/{yanked.id}.html"])
    assert "wrong cuDNN" in page.text
    assert f"../image/{better.id}.html" in page.links
    assert "docker run" not in page.text
    unknown = replace(yanked, replaced_by="<somewhere> else")
    text = made(of([unknown]))[f"image/{yanked.id}.html"]
    assert "Replaced by &lt;somewhere&gt; else." in text


def test_builds_of_one_cell_are_listed_with_each_other() -> None:
    files = files_shown()
    text = files["image/pytorch-2.9.1-cuda12.8-py3.12-aaaaaaaaaaaa.html"]
    assert "Every build of pytorch-2.9.1-cuda12.8-py3.12" in text
    assert "../image/pytorch-2.9.1-cuda12.8-py3.12-000000000000.html" in Parsed(text).links


def test_an_image_page_leads_to_its_packages_and_its_entry() -> None:
    known = shown()
    one = next(one for one in known.images if one.contents)
    page = Parsed(files_shown()[f"image/{one.id}.html"])
    assert one.contents
    assert f"../v1/evidence/{one.contents[7:]}.json" in page.links
    assert f"../v1/framework/{one.framework}.json" in page.links
    strange = replace(one, contents="../../etc/passwd")
    assert "Packages" not in made(of([strange]))[f"image/{one.id}.html"]


def sizes(files: Mapping[str, str], one: Image) -> list[list[str]]:
    """Return the rows of an image's table of sizes."""
    table = files[f"image/{one.id}.html"].partition('id="sizes"')[2].partition("</table>")[0]
    return [[" ".join(cell.split()) for cell in cells] for cells in Parsed(table).cells[1:]]


def test_an_image_page_tells_the_sizes_of_the_versions_before() -> None:
    known = label("13.0", PYTORCH_130)
    built = [
        image("x", version, known, size=size * 1_000_000, published=f"2026-{month}-01T10:00:00Z",
              id=f"x-{version}-{month}")
        for version, size, month in (
            ("2.8.0", 4000, "01"), ("2.9.0", 5000, "02"), ("2.9.0", 4400, "03"),
            ("2.10.0", 4411, "04"), ("2.9.1", 0, "05"), ("2.11.0", 2000, "06"),
        )
    ]  # fmt: skip
    other = image(
        "x", "2.9.5", label("12.8", PYTORCH_128), size=9, published="2026-01-01T10:00:00Z"
    )
    files = made(of([*built, other]))
    assert sizes(files, built[3]) == [
        ["2.10.0 (this one)", "4,411 MB", "same", "2026-04-01"],
        ["2.9.0", "4,400 MB", "+10 %", "2026-03-01"],
        ["2.8.0", "4,000 MB", "", "2026-01-01"],
    ]
    assert sizes(files, built[5])[0] == ["2.11.0 (this one)", "2,000 MB", "-55 %", "2026-06-01"]
    assert [sizes(files, one) for one in (built[0], built[4], other)] == [[], [], []]
    without = made(of([*built[:5], other]))
    assert all(files[path] == text for path, text in without.items() if "image/" in path)
