"""What people do with the page, in Debian's Chromium: asking, addresses, pasting.

Chromium is found where the system has it (`apt-get install chromium`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from curator import resolve as rules
from curator.facts import facts
from curator.resolve import Gpu, Host, Wishes, judge, why
from tests import pages
from tests.images import PYTORCH_128, image, label

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

    from curator.resolve import Catalogue


FACTS = facts()
SMI = Path(__file__).parent.parent / "data/smi"
DOCKER = "docker run --rm -it --gpus all --shm-size 8g"


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    with pages.opened(browser, viewport={"width": 1200, "height": 900}) as found:
        found.goto(address)
        yield found


def ask(page: Page, driver: str = "", gpus: str = "", **wishes: str) -> None:
    page.get_by_label("NVIDIA driver").fill(driver)
    page.get_by_label("GPUs").fill(gpus)
    for name, value in wishes.items():
        page.get_by_label(name, exact=True).select_option(value)
    page.get_by_label("GPUs").press("Enter")


def summary(page: Page) -> str:
    return page.locator("#summary").inner_text()


A100 = Host(driver="535", gpus=(Gpu(name="A100", sm="8.0", kind="datacenter"),))


# The selector


def test_the_answer_is_a_command_a_reason_and_the_nearest_misses(
    page: Page, known: Catalogue
) -> None:
    ask(page, "535", "A100", Framework="pytorch")
    found = rules.resolve(known, A100, Wishes(framework="pytorch"), FACTS)
    best = found.ranked[0]
    assert summary(page) == f"{best.image.name} runs on A100 (sm_80) with driver 535 (x86_64)."
    assert pages.commands(page) == [f"{DOCKER} {known.reference(best.image)}"]
    text = page.locator("#answer").inner_text()
    assert f"Why: {why(best.judgement)}." in text
    for miss in found.misses:
        assert f"{miss.image.name} needs {' and '.join(miss.changes)}" in text
    assert f"All {found.considered} images" in text


def test_what_fits_nothing_says_what_would_have_to_change(page: Page) -> None:
    ask(page, "470.256.02", "RTX 5090")
    assert summary(page).startswith("Nothing is known to run on GeForce RTX 5090 (sm_120)")
    assert pages.commands(page) == []
    assert "Nearest misses" in page.locator("#answer").inner_text()
    assert "needs driver >= 570" in page.locator("#answer").inner_text()


def test_without_a_framework_each_has_its_best(page: Page, known: Catalogue) -> None:
    ask(page, "535", "A100")
    found = rules.resolve(known, A100, Wishes(), FACTS)
    assert pages.commands(page) == [
        f"{DOCKER} {known.reference(best.image)}" for best in found.best
    ]


def test_several_gpus_all_have_to_run_it(page: Page, known: Catalogue) -> None:
    ask(page, "580", "A100, V100", Framework="pytorch")
    gpus = (*A100.gpus, Gpu(name="V100", sm="7.0", kind="datacenter"))
    found = rules.resolve(known, Host(driver="580", gpus=gpus), Wishes(framework="pytorch"), FACTS)
    assert pages.commands(page) == [f"{DOCKER} {known.reference(found.ranked[0].image)}"]
    assert "A100 (sm_80), V100 (sm_70)" in summary(page)


def test_half_a_machine_asks_for_the_other_half_and_marks_nothing(page: Page) -> None:
    ask(page, "535")
    assert summary(page).startswith("Name the GPU too")
    assert page.locator(".here").count() == 0
    assert page.locator("#answer").inner_text() == ""
    ask(page, "", "A100")
    assert summary(page).startswith("Name the driver too")
    assert page.locator(".here").count() == 0


def test_what_is_not_known_is_said_to_be_perhaps(browser: Browser, tmp_path: Path) -> None:
    unread = pages.of([image("x", "1", label("12.8", None))])
    with pages.opened(browser) as page:
        page.goto(pages.write(unread, tmp_path).as_uri())
        ask(page, "535", "A100")
        assert summary(page).startswith("Nothing is known to run on A100 (sm_80)")
        assert "Perhaps" in page.locator("#answer").inner_text()
        assert "which kernels the image ships was not read" in page.locator("#answer").inner_text()


def test_an_answer_names_every_rule_and_its_source_by_keyboard(
    page: Page, known: Catalogue
) -> None:
    ask(page, "535", "A100", Framework="pytorch")
    best = rules.resolve(known, A100, Wishes(framework="pytorch"), FACTS).ranked[0]
    opener = page.get_by_text("Rules and sources")
    opener.focus()
    page.keyboard.press("Enter")
    told = page.locator("article .grounds").inner_text()
    for gate in best.judgement.gates:
        assert gate.answer.text in told
        assert f"{gate.answer.rule} {FACTS.rules[gate.answer.rule].source}" in told
    page.get_by_text("images that were looked at").click()
    table = page.locator("#answer > details").inner_text()
    for match in rules.resolve(known, A100, Wishes(framework="pytorch"), FACTS).rejected:
        assert match.judgement.first
        assert match.judgement.first.answer.rule in table
        assert match.judgement.first.answer.source in table


def test_more_frameworks_than_have_place_are_named_and_linked(
    browser: Browser, tmp_path: Path
) -> None:
    known = pages.of([image(f"fw{n:02}", "1", label("12.8", PYTORCH_128)) for n in range(11)])
    with pages.opened(browser) as page:
        page.goto(pages.write(known, tmp_path).as_uri())
        ask(page, "535", "A100")
        assert summary(page).startswith("Images of 11 frameworks")
        assert len(pages.commands(page)) == 8
        assert (
            "Images of 3 more run here, too: fw08, fw09, fw10"
            in page.locator("#answer").inner_text()
        )
        page.get_by_role("link", name="fw09", exact=True).first.click()
        page.wait_for_function("() => document.querySelectorAll('#answer article').length === 1")
        assert page.url.endswith("#driver=535&gpu=A100&framework=fw09")


@pytest.mark.parametrize(
    ("driver", "gpus", "field", "says"),
    [
        ("banana", "A100", "driver", "no driver version: 'banana'"),
        ("12.4", "A100", "driver", "reads as a CUDA version"),
        ("535", "A1000000", "gpu", "no GPU called 'A1000000' is known; near:"),
        ("535", "sm_99", "gpu", "no GPU of compute capability 9.9 is known"),
    ],
)
def test_a_mistake_is_told_at_its_field(
    page: Page, driver: str, gpus: str, field: str, says: str
) -> None:
    ask(page, driver, gpus)
    assert says in page.locator(f"#{field}-error").inner_text()
    assert page.locator(f"#{field}").get_attribute("aria-invalid") == "true"
    assert says in (page.locator("#summary").text_content() or "")
    assert pages.commands(page) == []
    ask(page, "535", "A100")
    assert page.locator(f"#{field}").get_attribute("aria-invalid") is None
    assert pages.commands(page)


def test_all_mistakes_are_told_at_once_and_the_grid_forgets_the_machine(page: Page) -> None:
    ask(page, "535", "A100")
    assert page.locator(".here").count()
    ask(page, "12.4", "A1000000")
    assert page.locator("[aria-invalid]").count() == 2
    assert page.locator(".here").count() == 0
    assert not page.locator("#grid-host").is_visible()


def test_a_version_can_be_wished_as_a_range(page: Page) -> None:
    ask(page, "535", "A100", Framework="pytorch")
    page.get_by_label("Version").fill(">=2.5,<2.7")
    page.get_by_label("Version").press("Tab")
    assert "pytorch:2.6.0-" in pages.commands(page)[0]
    page.get_by_label("Version").fill("newest")
    page.get_by_label("Version").press("Tab")
    assert "neither a version" in page.locator("#version-error").inner_text()


def test_clearing_the_form_clears_the_answer_and_the_address(page: Page) -> None:
    ask(page, "535", "A100")
    page.get_by_role("button", name="Clear").click()
    page.wait_for_function("!location.hash")
    assert pages.commands(page) == []
    assert page.locator("#examples").is_visible()
    assert page.locator(".here").count() == 0


def test_the_grid_is_marked_for_the_machine(page: Page, known: Catalogue) -> None:
    ask(page, "535", "A100")
    cells = page.locator("[data-cell]")
    marked = {
        cells.nth(place).get_attribute("data-cell"): cells.nth(place).inner_text()
        for place in range(cells.count())
    }
    for one in known.images:
        minor = ".".join(one.version.split(".")[:2])
        text = marked[f"{one.framework} {minor} {one.label.cuda}"]
        if one.is_offered and judge(one, A100, FACTS).says == "yes":
            assert "runs here" in text
    assert "not here" in marked["pytorch 2.10 13.0"]
    assert "here" not in marked["pytorch 2.8 12.6"]


def test_the_examples_can_be_followed(page: Page) -> None:
    page.get_by_role("link", name="A100 with driver 535").click()
    page.wait_for_selector("#answer article")
    assert page.get_by_label("GPUs").input_value() == "A100"


# Addresses


@pytest.mark.parametrize("name", ["version", "cuda", "python"])
def test_a_wish_that_is_none_is_told_at_its_own_field(page: Page, address: str, name: str) -> None:
    page.goto(f"{address}#driver=535&gpu=A100&{name}=abc")
    assert f"{name} 'abc' is neither" in page.locator(f"#{name}-error").inner_text()
    invalid = page.locator("[aria-invalid]")
    assert invalid.count() == 1
    assert invalid.get_attribute("id") == name


def test_going_back_before_the_question_empties_the_form(page: Page) -> None:
    page.get_by_role("link", name="A100 with driver 535").click()
    page.wait_for_selector("#answer article")
    page.go_back()
    page.wait_for_function("() => document.querySelector('#driver').value === ''")
    assert page.get_by_label("GPUs").input_value() == ""
    assert page.locator("#answer article").count() == 0
    page.go_forward()
    page.wait_for_selector("#answer article")
    assert page.get_by_label("GPUs").input_value() == "A100"


def test_a_link_within_the_page_leaves_the_question_in_the_address(page: Page) -> None:
    ask(page, "535", "A100")
    asked = page.url
    page.get_by_role("link", name="For tools").click()
    page.wait_for_function("() => scrollY > 100 && location.hash.startsWith('#driver')")
    assert page.url == asked
    assert page.locator("#answer article").count()


def test_an_address_asks_the_same_as_the_form(browser: Browser, page: Page) -> None:
    ask(page, "535.104.05", "RTX 4090, A100", Framework="pytorch", CUDA="12.8", Python="3.12")
    page.get_by_label("CPU").select_option("x86_64")
    first, shown = page.url, page.locator("#answer").inner_text()
    assert "#driver=535.104.05&gpu=RTX+4090,+A100&framework=pytorch&cuda=12.8" in first
    with pages.opened(browser) as other:
        other.goto(first)
        assert other.locator("#answer").inner_text() == shown
        assert other.get_by_label("CPU").input_value() == "x86_64"


def test_an_address_can_name_gpus_one_by_one_and_change_under_an_open_page(
    page: Page, address: str
) -> None:
    page.goto(f"{address}#driver=535&gpu=A100&gpu=H200&framework=pytorch")
    assert page.get_by_label("GPUs").input_value() == "A100, H200"
    page.evaluate("location.hash = '#driver=580&gpu=T4'")
    page.wait_for_function("document.querySelector('#gpu').value === 'T4'")
    assert "T4 (sm_75) with driver 580" in summary(page)


def test_an_address_for_what_is_gone_says_so(page: Page, address: str) -> None:
    page.goto(f"{address}#driver=535&gpu=A100&framework=theano&strange=1")
    assert summary(page) == "No image has all of that."
    assert page.get_by_label("Framework", exact=True).input_value() == "theano"


def test_an_address_with_markup_shows_it_as_text(browser: Browser, address: str) -> None:
    with pages.opened(browser) as page:
        page.goto(f"{address}#driver=%3Cimg%20src=x%20onerror=alert(1)%3E&gpu=A100")
        told = page.locator("#driver-error").inner_text()
        assert "no driver version: '<img src=x onerror=alert(1)>'" in told


# Pasting


def pasted_text(name: str) -> str:
    return (SMI / f"{name}.txt").read_text().partition("\n")[2]


def test_what_nvidia_smi_prints_fills_the_form(page: Page) -> None:
    page.get_by_label("NVIDIA driver").fill(pasted_text("580-mixed-5090-4090"))
    assert page.get_by_label("NVIDIA driver").input_value() == "580.82.09"
    assert page.get_by_label("GPUs").input_value() == "GeForce RTX 5090, GeForce RTX 4090"
    assert "GeForce RTX 5090 (sm_120), GeForce RTX 4090 (sm_89)" in summary(page)
    assert pages.commands(page)


def test_a_gpu_that_only_a_driver_knows_can_be_pasted_and_edited(page: Page) -> None:
    rows = "name, driver_version, compute_cap\nNVIDIA X9000, 580.95.05, 8.9\n"
    page.get_by_label("NVIDIA driver").fill(rows)
    assert "sm 8.9 with driver 580.95.05" in summary(page)
    assert page.get_by_label("GPUs").input_value() == "sm_89"
    assert pages.commands(page)
    page.get_by_label("GPUs").fill("NVIDIA X9001")
    page.get_by_label("GPUs").press("Tab")
    assert "no GPU called" in page.locator("#gpu-error").inner_text()


def test_eight_gpus_are_told_once(page: Page) -> None:
    listed = "".join(f"GPU {n}: NVIDIA H200 (UUID: GPU-{n})\n" for n in range(8))
    page.get_by_label("NVIDIA driver").fill("580")
    page.get_by_label("GPUs").focus()
    page.evaluate(
        """(text) => {
          const data = new DataTransfer();
          data.setData("text", text);
          const init = { clipboardData: data, cancelable: true, bubbles: true };
          document.activeElement.dispatchEvent(new ClipboardEvent("paste", init));
        }""",
        listed,
    )
    assert "8 \u00d7 H200 (sm_90)" in summary(page)


def test_a_failure_of_nvidia_smi_is_explained(page: Page) -> None:
    page.get_by_label("NVIDIA driver").fill(pasted_text("fail-no-driver"))
    assert "the NVIDIA driver is not loaded" in page.locator("#driver-error").inner_text()
    assert pages.commands(page) == []


@pytest.mark.parametrize("path", sorted(SMI.iterdir()), ids=lambda path: path.stem)
def test_what_was_pasted_has_an_address_that_asks_the_same(
    browser: Browser, page: Page, path: Path
) -> None:
    page.get_by_label("NVIDIA driver").fill(path.read_text())
    if page.locator("#driver-error").is_visible():
        assert "driver=" not in page.url
        return
    with pages.opened(browser, viewport=page.viewport_size) as other:
        other.goto(page.url)
        for name in ("#driver", "#gpu"):
            found = other.locator(name).input_value()
            assert found == page.locator(name).input_value()
        assert other.locator("#choose").inner_text() == page.locator("#choose").inner_text()


def test_what_was_pasted_leaves_nothing_of_the_machine_before(page: Page, address: str) -> None:
    page.goto(f"{address}#driver=470&gpu=V100")
    page.get_by_label("NVIDIA driver").fill(
        "DRIVER version      : 610.43.02\nCUDA Version : 13.3\n"
    )
    assert summary(page).startswith("Name the GPU too")
    assert page.url.endswith("#driver=610.43.02")
    page.get_by_label("NVIDIA driver").fill(pasted_text("fail-no-driver"))
    assert page.locator("#driver-error").is_visible()
    assert page.url == address
