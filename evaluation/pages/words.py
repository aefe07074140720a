"""What the pages call things, in Chinese and in English."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from evaluation.sample_scores import Mark
from evaluation.verdict import Severity
from riskva.labelled_text import Tolerance


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
    Mark.NO_REFERENCE: Name("标准无法解析", "no reference"),
}

SEVERITY_NAMES: Mapping[Severity, Name] = {
    "error": Name("错误", "errors"),
    "warning": Name("警告", "warnings"),
    "good": Name("正常", "fine"),
    "info": Name("提示", "notes"),
}


def verdict(severity: Severity, num_mistaken: int) -> Name:
    """What a run whose gravest finding is of that severity is fit for; `num_mistaken` rows have a mistake."""
    if severity == "error":
        return Name("暂不宜使用，请先处理错误", "Not fit for use yet; see to the errors first")
    if severity == "warning":
        return Name("可供参考，但请先看警告", "Use with care; read the warnings first")
    if not num_mistaken:
        return Name("好于固定答案；各行未见错误", "Better than one constant answer; no mistake was found in any row")
    return Name(
        f"好于固定答案；仍有 {num_mistaken:,} 行有误",
        f"Better than one constant answer; {num_mistaken:,} "
        + ("row still has a mistake" if num_mistaken == 1 else "rows still have mistakes"),
    )


TOLERATED: Mapping[Tolerance, str] = {
    Tolerance.FULL_WIDTH_COLON: "全角冒号",
    Tolerance.COLON_IN_BOLD: "冒号在加粗内",
    Tolerance.NO_COLON: "无冒号",
    Tolerance.NO_BOLD: "未加粗",
    Tolerance.FULL_WIDTH_ASTERISKS: "全角星号",
    Tolerance.BRACKETS: "标签带括号",
    Tolerance.LIST_MARK: "列表符号",
    Tolerance.HEADING_MARK: "标题符号",
    Tolerance.OWN_LINE: "标签独占一行",
    Tolerance.LABEL_FORM: "标签写法不同",
    Tolerance.OTHER_ORDER: "字段顺序不同",
    Tolerance.JSON: "JSON 格式",
    Tolerance.CODE_FENCE: "代码块",
    Tolerance.TEXT_AROUND: "前后有其他文字",
    Tolerance.EXTRA_FIELD: "多余字段",
    Tolerance.LEVEL_MARKS: "等级带标点",
    Tolerance.BLANKS: "空白不同",
}
"""Departures from the form that were read over, in Chinese."""
