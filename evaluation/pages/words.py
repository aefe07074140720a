"""What the pages call things, in Chinese and in English."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from evaluation.sample_scores import Mark
from evaluation.verdict import SEVERITIES, Finding, Severity


class Name(NamedTuple):
    """A thing's name in both languages."""

    zh: str
    en: str


MARKS: Mapping[Mark, Name] = {
    Mark.UNPARSED: Name("无法解析", "unparsed"),
    Mark.UNDER_CALLED: Name("低估", "under-called"),
    Mark.DENIED: Name("否认缺陷", "defect denied"),
    Mark.OVER_CALLED: Name("高估", "over-called"),
    Mark.WRONG_KIND: Name("类型错误", "wrong kind"),
    Mark.WRONG_ROOM: Name("部位错误", "wrong room"),
}

SEVERITY_NAMES: Mapping[Severity, Name] = {
    "error": Name("错误", "errors"),
    "warning": Name("警告", "warnings"),
    "good": Name("正常", "fine"),
    "info": Name("提示", "notes"),
}

VERDICTS: Mapping[Severity, Name] = {
    "error": Name("暂不宜使用，请先处理错误", "Not fit for use yet; see to the errors first"),
    "warning": Name("可供参考，但请先看警告", "Use with care; read the warnings first"),
    "info": Name("没有发现问题，请看提示", "Nothing was found wrong; read the notes"),
    "good": Name("没有发现问题", "Nothing was found wrong"),
}


def worst_severity(findings: Sequence[Finding]) -> Severity:
    """The severity to decide by: the first of `SEVERITIES` that a finding has; without findings, that of a note."""
    found = {finding.severity for finding in findings}
    return next((severity for severity in SEVERITIES if severity in found), "info")


TOLERATED: Mapping[str, str] = {
    "full-width colon": "全角冒号",
    "colon in bold": "冒号在加粗内",
    "no colon": "无冒号",
    "no bold": "未加粗",
    "full-width asterisks": "全角星号",
    "brackets": "标签带括号",
    "list mark": "列表符号",
    "heading mark": "标题符号",
    "label on its own line": "标签独占一行",
    "label form": "标签写法不同",
    "other order": "字段顺序不同",
    "json": "JSON 格式",
    "code fence": "代码块",
    "text around": "前后有其他文字",
    "extra field": "多余字段",
    "level marks": "等级带标点",
    "blanks": "空白不同",
}
"""Departures from the form that were read over, in Chinese; those that are new here are shown as they are."""
