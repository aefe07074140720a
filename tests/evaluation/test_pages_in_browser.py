"""The pages in a real browser: what a click, a key and a link do, and that nothing leaves the machine."""

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from evaluation_making import (
    drawn_comparison,
    drawn_evaluation,
    evaluation,
    prediction,
    read,
    report,
    sample,
    small_photo,
)
from playwright.sync_api import Browser, Page, Request, expect, sync_playwright

from evaluation.evaluated import Evaluation
from evaluation.pages import photo_files
from evaluation.pages.comparison_page import write_comparison
from evaluation.pages.report_page import write_report
from evaluation.sample_scores import Mark
from riskva.report import RiskReport

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; on Debian: apt install chromium fonts-noto-cjk"),
]

HOSTILE = "</script><img src=x onerror=alert(1)><svg onload=alert(2)>"
NUM_ROWS = 60

Opens = Callable[..., Page]
"""Opens a file in a window of some width, `after` appended to its address."""


def photos(row: int) -> Sequence[bytes]:
    return [small_photo(row + place, (640, 480)) for place in range(2 if row % 5 == 0 else 1)]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as driver:
        # A container has little shared memory, and its root cannot have Chromium's sandbox
        flags = ["--disable-dev-shm-usage", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
        started = driver.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield started
        started.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Opens]:
    """Opens a file; at the end of the test nothing may have gone wrong in any page, or left it."""
    faults: list[str] = []
    contexts = []

    def open_(path: Path, width: int = 1280, after: str = "") -> Page:
        context = browser.new_context(viewport={"width": width, "height": 900})
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: faults.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: faults.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (faults.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: _note_request(request, faults))
        page.on("requestfailed", lambda request: faults.append(f"failed: {request.url[:200]}"))
        page.goto(path.as_uri() + after)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert not faults


def _note_request(request: Request, faults: list[str]) -> None:
    if not request.url.startswith(("file:", "data:")):
        faults.append(f"request: {request.url[:200]}")


@pytest.fixture(scope="module")
def run() -> Evaluation:
    return drawn_evaluation(NUM_ROWS)


@pytest.fixture(scope="module")
def report_page(run: Evaluation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(run, photos, tmp_path_factory.mktemp("report"), title="LoRA r16")


@pytest.fixture(scope="module")
def comparison_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_comparison(drawn_comparison(NUM_ROWS), photos, tmp_path_factory.mktemp("comparison"), title="对比")


def rows_shown(page: Page) -> list[int]:
    """The rows of all cards, the list scrolled to its end."""
    return [
        int(number)
        for number in page.evaluate(
            """async () => {
          for (let seen = -1; seen !== document.querySelectorAll("#cards .row").length;) {
            seen = document.querySelectorAll("#cards .row").length;
            scrollTo(0, document.body.scrollHeight);
            await new Promise((done) => setTimeout(done, 120));
          }
          return [...document.querySelectorAll("#cards .row")].map((card) => card.dataset.row);
        }"""
        )
    ]


def expect_count(page: Page, count: int) -> None:
    expect(page.locator("#count")).to_contain_text(f"显示 {count} / ")


def rows_with(run: Evaluation, mark: Mark) -> set[int]:
    return {row for row, one in enumerate(run.samples) if mark in one.marks}


def test_a_cell_of_the_matrix_shows_its_rows_and_no_others(
    open_page: Opens, report_page: Path, run: Evaluation
) -> None:
    page = open_page(report_page)
    cell = page.locator("[data-filter=cell][data-value='0-1']")
    cell.click()
    expected = {
        row
        for row, one in enumerate(run.samples)
        if one.expected and (one.expected.level, one.answered_level) == (0, 1)
    }
    assert expected
    assert set(rows_shown(page)) == expected
    expect(cell).to_have_attribute("aria-pressed", "true")
    expect(cell).to_have_text(str(len(expected)))
    assert "cell=0-1" in page.url
    cell.click()
    expect_count(page, NUM_ROWS)
    assert len(rows_shown(page)) == NUM_ROWS


def test_the_costliest_rows_come_first(open_page: Opens, report_page: Path, run: Evaluation) -> None:
    costs = [run.samples[row].cost or 0 for row in rows_shown(open_page(report_page))]
    assert costs == sorted(costs, reverse=True)
    assert len(costs) == NUM_ROWS


@pytest.mark.parametrize(("order", "expected"), [("row", lambda row: row), ("confidence", None)])
def test_rows_can_be_sorted(
    open_page: Opens, report_page: Path, run: Evaluation, order: str, expected: Callable[[int], float] | None
) -> None:
    page = open_page(report_page)
    page.select_option("#sort", order)
    keys = [(expected or (lambda row: run.predictions[row].level_probability))(row) for row in rows_shown(page)]
    assert keys == sorted(keys)


def test_search_finds_ids_groups_and_texts(open_page: Opens, report_page: Path, run: Evaluation) -> None:
    page = open_page(report_page)
    page.keyboard.press("/")
    page.keyboard.type("photo_00007")
    expect_count(page, 1)
    assert rows_shown(page) == [7]
    page.fill("#search", "卫生间 霉斑")
    expected = {
        row
        for row, one in enumerate(run.predictions)
        if all(word in one.label + one.answer for word in ("卫生间", "霉斑"))
    }
    expect_count(page, len(expected))
    assert set(rows_shown(page)) == expected
    page.fill("#search", "没有这样的行")
    expect(page.locator("#nothing")).to_be_visible()
    page.keyboard.press("Escape")
    expect_count(page, NUM_ROWS)
    expect(page.locator("#search")).to_have_value("")


def test_marks_and_findings_filter(open_page: Opens, report_page: Path, run: Evaluation) -> None:
    page = open_page(report_page)
    page.click("[data-filter=mark][data-value='over-called']")
    assert set(rows_shown(page)) == rows_with(run, Mark.OVER_CALLED)
    page.click("[data-filter=mark][data-value='under-called']")
    assert set(rows_shown(page)) == rows_with(run, Mark.OVER_CALLED) | rows_with(run, Mark.UNDER_CALLED)
    page.click("#clear")
    page.click("[data-filter=set][data-value='finding-0']")
    assert rows_shown(page) == list(run.findings[0].rows), "in the finding's own order"
    page.locator("#active button").click()
    expect_count(page, NUM_ROWS)


def test_rows_without_a_reference_are_not_called_right(open_page: Opens, report_page: Path, run: Evaluation) -> None:
    page = open_page(report_page, after="#mark=unmarked")
    assert set(rows_shown(page)) == {row for row, one in enumerate(run.samples) if not one.marks}
    page.click("[data-filter=mark][data-value='unmarked']")
    page.click("[data-filter=mark][data-value='no reference']")
    unjudged = rows_with(run, Mark.NO_REFERENCE)
    assert unjudged == {row for row, one in enumerate(run.samples) if one.expected is None}
    assert set(rows_shown(page)) == unjudged
    expect(page.locator(".facts .tag.right")).to_have_count(0)
    expect(page.locator(".row header .tag.plain")).to_have_count(len(unjudged))


def test_a_link_brings_its_filters(open_page: Opens, report_page: Path, run: Evaluation) -> None:
    page = open_page(report_page, after="#cell=0-2&sort=row&q=photo")
    expected = [
        row
        for row, one in enumerate(run.samples)
        if one.expected and (one.expected.level, one.answered_level) == (0, 2)
    ]
    assert rows_shown(page) == expected
    expect(page.locator("#search")).to_have_value("photo")


def test_a_link_with_nonsense_shows_all_rows(open_page: Opens, report_page: Path) -> None:
    page = open_page(report_page, after="#cell=9-9&sort=__proto__&set=constructor&mark=<b>")
    expect_count(page, NUM_ROWS)


def test_rows_open_by_keyboard(open_page: Opens, report_page: Path) -> None:
    page = open_page(report_page)
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    page.keyboard.press("ArrowDown")
    current = page.locator(".row.current")
    expect(current).to_have_count(1)
    assert page.locator("#cards .row").nth(1).get_attribute("data-row") == current.get_attribute("data-row")
    expect(current.locator("pre")).not_to_be_visible()
    page.keyboard.press("Enter")
    expect(current.locator("pre")).to_be_visible()
    page.keyboard.press("Enter")
    expect(current.locator("pre")).not_to_be_visible()
    page.keyboard.press("p")
    expect(page.locator("#viewer")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#viewer")).not_to_be_visible()


def test_a_click_enlarges_a_photo(open_page: Opens, report_page: Path) -> None:
    page = open_page(report_page, after="#q=photo_00005")
    page.locator(".photo").nth(1).click()
    expect(page.locator("#viewer .caption")).to_have_text("photo_00005 · 2 / 2")
    image = page.locator("#viewer img")
    expect(image).to_have_js_property("naturalWidth", 640, timeout=20_000)
    page.keyboard.press("ArrowRight")
    expect(page.locator("#viewer .caption")).to_have_text("photo_00005 · 1 / 2")
    page.click("[data-close]")
    expect(page.locator("#viewer")).not_to_be_visible()


def test_differences_stand_on_both_sides(open_page: Opens, report_page: Path, run: Evaluation) -> None:
    row = min(rows_with(run, Mark.OVER_CALLED))
    page = open_page(report_page, after=f"#q=photo_{row:05d}")
    expect(page.locator(".truth mark").first).to_be_visible()
    text = run.samples[row].expected.texts["缺陷描述"]
    assert text in page.locator(".fields").inner_text()


def test_photos_beside_the_page_are_found(
    open_page: Opens, run: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photo_files, "MOST_EMBEDDED", 1)
    page = open_page(write_report(run, photos, tmp_path, title="files"))
    image = page.locator(".photo img").first
    assert image.get_attribute("src").startswith("report_photos/")
    image.scroll_into_view_if_needed()  # until then a lazy image is not loaded
    expect(image).to_have_js_property("naturalWidth", 640, timeout=20_000)


def test_hostile_text_does_nothing(open_page: Opens, tmp_path: Path) -> None:
    expected = report(2, "裂缝", "卧室")
    answered = RiskReport(expected.level, dict.fromkeys(expected.texts, HOSTILE))
    rows = [prediction(HOSTILE, expected, HOSTILE, group=HOSTILE)]
    run = evaluation(rows, [sample(HOSTILE, expected, read(answered), group=HOSTILE)])
    page = open_page(write_report(run, photos, tmp_path, title=HOSTILE))
    expect(page.locator(".row .id")).to_have_text(HOSTILE)
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.locator(".row pre")).to_have_text(HOSTILE)
    page.fill("#search", HOSTILE)
    expect_count(page, 1)
    assert page.locator("svg[onload], img[onerror]").count() == 0


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("which", ["report", "comparison"])
def test_nothing_is_wider_than_the_window(
    open_page: Opens, report_page: Path, comparison_page: Path, which: str, width: int
) -> None:
    page = open_page({"report": report_page, "comparison": comparison_page}[which], width)
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    rows_shown(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_comparison_filters_by_who_is_better(open_page: Opens, comparison_page: Path) -> None:
    comparison = drawn_comparison(NUM_ROWS)
    page = open_page(comparison_page)
    for place, rival in enumerate(comparison.rivals, start=1):
        for what, rows in (("wins", rival.wins), ("losses", rival.losses)):
            button = page.locator(f"[data-value='{what}-{place}']")
            button.click()
            assert rows_shown(page) == list(rows)
            button.click()
    heads = page.locator(".row").first.locator(".of-run")
    expect(heads).to_have_text([re.compile("^" + re.escape(name)) for name in comparison.runs])


def test_printing_shows_the_rows_of_the_filter(open_page: Opens, report_page: Path) -> None:
    page = open_page(report_page)
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    expect(page.locator("#cards .row")).to_have_count(NUM_ROWS)
    expect(page.locator(".toolbar")).not_to_be_visible()


def test_2000_rows_answer_at_once(open_page: Opens, tmp_path: Path) -> None:
    run = drawn_evaluation(2000)
    photo = small_photo()
    page = open_page(write_report(run, lambda row: [photo], tmp_path, title="2000"))
    expect(page.locator("#cards .row").first).to_be_visible()
    assert page.locator("#cards .row").count() < 200, "cards are drawn as one scrolls"
    began = time.perf_counter()
    page.click("[data-filter=mark][data-value='under-called']")
    expect_count(page, len(rows_with(run, Mark.UNDER_CALLED)))
    page.click("#clear")
    page.fill("#search", "photo_01999")
    expect_count(page, 1)
    assert time.perf_counter() - began < 6
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.fill("#search", "")
    expect(page.locator("#count")).to_contain_text("显示 2,000 / ")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("#cards .row").count() == 200
    expect(page.locator("#print-note")).to_contain_text("只打印前 200 行")
