import re
from html.parser import HTMLParser
from typing import Any

import pytest
from audit_making import Given, audit_of, bad_row, healthy, row

from riskva.audit.builder import Audit
from riskva.audit.page import render_audit
from riskva.report import ReportField, ReportFormat, RiskLevel, RiskReport
from riskva.tables.records import BadRow

EVIL = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>"
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """The tags of a page with their attributes; raises `AssertionError` where one is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag


def evil_audit() -> Audit:
    rows: list[Given] = [
        (
            row(
                n,
                RiskLevel(n % 3),
                id=EVIL,
                table=EVIL,
                text=EVIL + str(n // 2),
                group=EVIL + str(n // 4),
                content=str(n // 2),
                size=(100, 100),
                level_as_written=EVIL,
            ),
            ("train", "test")[n % 2],
        )
        for n in range(12)
    ]
    bad = [BadRow(12, EVIL, 14, EVIL, EVIL, EVIL, EVIL)]
    tables = ((EVIL, EVIL),)
    return audit_of(rows, bad, look_alikes=[[0, 1], [2, 4]], title=EVIL, tables=tables, splits=("train", "test"))


def only_levels() -> Audit:
    """An audit of reports without texts."""
    rows = [
        (row(n, report=RiskReport(RiskLevel.MINOR), level_as_written="一般", group="3栋"), "train") for n in range(3)
    ]
    return audit_of(rows, report_format=ReportFormat((ReportField("风险等级", "a", is_level=True),)))


def every_audit() -> list[Audit]:
    return [
        audit_of(healthy()),
        audit_of(healthy(60), [bad_row(60)], look_alikes=[[0, 1], [3, 6]]),
        audit_of([(row(0), "train")], [bad_row(1)]),
        only_levels(),
        evil_audit(),
    ]


@pytest.mark.parametrize("number", range(5))
def test_pages_are_well_formed_and_fetch_nothing(number: int) -> None:
    page = render_audit(every_audit()[number])
    tags = Page(page).tags
    assert not {"script", "link", "iframe", "object", "form", "base"} & {tag for tag, _ in tags}
    for tag, attributes in tags:
        assert not [name for name in attributes if name.startswith("on") or name in {"href", "srcset", "action"}]
        if tag == "img":
            assert str(attributes["src"]).startswith("data:image/jpeg;base64,")
    assert not re.search(r"https?:|url\(|@import", page)


def test_text_of_tables_is_escaped() -> None:
    page = render_audit(evil_audit())
    assert "<script>" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;alert(&#39;x&#39;)" in page
    assert page.count("&lt;img src=x onerror") > 20


def test_the_verdict_is_the_worst_that_was_found() -> None:
    fit = render_audit(audit_of(healthy()))
    assert 'class="verdict good"' in fit
    assert "没有需要说明的情况" in fit
    warned = render_audit(audit_of([(one, "train") for one, _ in healthy(60)], splits=("train",)))
    assert 'class="verdict warning"' in warned
    failed = render_audit(audit_of([(row(0), "test")]))
    assert 'class="verdict error"' in failed
    assert "请先处理错误" in failed


def test_the_page_says_what_came_in_and_went_out() -> None:
    page = render_audit(audit_of(healthy(1200), [bad_row(1200), bad_row(1201)]))
    assert "<b>1,202</b>" in page
    assert "1,200 可用 + 2 隔离" in page
    assert "找不到照片" in page
    assert "image_missing" in page
    assert "全答“轻微”= 33.5%" in page


def test_findings_stand_with_their_remedy_in_both_languages() -> None:
    audit = audit_of(healthy(), look_alikes=[[0, 1]])
    page = render_audit(audit)
    (finding,) = audit.findings
    for text in (finding.title_zh, finding.title, finding.detail_zh, finding.remedy_zh, finding.remedy):
        assert text in page
    assert "<details open>" in page


def test_photos_are_in_the_page() -> None:
    audit = audit_of(healthy(), look_alikes=[[0, 1]])
    assert render_audit(audit).count("<img ") == len(audit.samples) + 2


def test_without_texts_words_for_levels_and_groups_are_still_shown() -> None:
    page = render_audit(only_levels())
    assert "Words that were taken for a level" in page
    assert "Groups that stay in one split" in page


def test_the_same_audit_gives_the_same_page() -> None:
    assert render_audit(evil_audit()) == render_audit(evil_audit())
