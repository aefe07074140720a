import pytest

from riskva.errors import RecipeError, UnknownLevelError
from riskva.level_names import DEFAULT_LEVEL_NAMES, level_names_from
from riskva.report import RiskLevel

MINOR, MODERATE, SEVERE = RiskLevel


@pytest.mark.parametrize("text", ["严重", " 严重 ", "严重\u3000", "\t严重\r\n", "严重\xa0"])
def test_white_space_around_a_level_is_no_other_wording(text: str) -> None:
    assert DEFAULT_LEVEL_NAMES.level(text) == (SEVERE, None)


@pytest.mark.parametrize(
    ("text", "level"),
    [
        *((word, MINOR) for word in ("轻", "轻度", "较轻", "轻微缺陷")),
        *((word, MODERATE) for word in ("中", "中度", "一般", "一般缺陷", "中等缺陷")),
        *((word, SEVERE) for word in ("重", "重度", "重大", "较严重", "严重缺陷")),
        *(
            (word, MINOR)
            for word in ("B-轻微", "Ｂ－轻微", "b_轻度", "A、轻微", "1-轻微", "１．轻微", "Ⅲ：轻微", "A)轻微")
        ),
        *((word, MODERATE) for word in ("2.一般", "二、中等", "II-中等", "10、中等", "B - 中等")),
        *((word, SEVERE) for word in ("严 重", "严\u3000重", "C--严重", "3，严重")),
    ],
)
def test_other_wordings_are_understood_and_told(text: str, level: RiskLevel) -> None:
    assert DEFAULT_LEVEL_NAMES.level(f" {text}\n") == (level, text)


@pytest.mark.parametrize(
    "text",
    [
        "", "-", "未知", "轻微/中等", "轻微-中等", "不严重", "严重吗", "B轻微", "B-", "B-B-轻微", "轻微-B", "非常-严重",
        "1-2-轻微", "123-轻微", "①严重", "等级:严重", "严重\u200b", "minor", "2", "中等偏重", "较重", "较轻微",
    ],
)  # fmt: skip
def test_a_level_is_never_guessed(text: str) -> None:
    with pytest.raises(UnknownLevelError, match=r"expected one of 轻微, 中等, 严重; .*level_names"):
        DEFAULT_LEVEL_NAMES.level(text)


def test_a_recipes_names_come_on_top() -> None:
    names = level_names_from({"Ⅰ级": "轻微", "较 重": "严重", "一般": "轻微", "X-严重": "中等", "重度": None})
    assert names.level("I级") == (MINOR, "I级")
    assert names.level("B-较重") == (SEVERE, "B-较重")
    assert names.level("B-一般") == (MINOR, "B-一般")
    assert names.level("X-严重") == (MODERATE, "X-严重")
    assert names.level("重大") == (SEVERE, "重大")
    assert names.level("轻微") == (MINOR, None)
    for text in ("重度", "B-重度"):
        with pytest.raises(UnknownLevelError):
            names.level(text)


def test_null_takes_out_one_coded_wording() -> None:
    names = level_names_from({"B-轻微": None})
    assert names.level("C-轻微")[0] is MINOR
    with pytest.raises(UnknownLevelError):
        names.level("B-轻微")


def test_no_names_are_the_built_in_ones() -> None:
    assert level_names_from({}) == DEFAULT_LEVEL_NAMES


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"小": "轻"}, "level_names: '小': unknown risk level '轻': expected one of 轻微, 中等, 严重"),
        ({"小": ""}, "level_names: '小'"),
        ({" ": "轻微"}, "level_names: a wording is empty"),
        ({"轻微": "严重"}, "level_names: '轻微' is one of the three levels"),
        ({"轻微": None}, "level_names: '轻微' is one of the three levels"),
        ({"轻徽缺陷": None}, "level_names: '轻徽缺陷' is no built-in wording \\(nearest: 轻微缺陷\\)"),
        ({"I级": "轻微", "Ⅰ级": "严重"}, "level_names: 'Ⅰ级' stands twice"),
    ],
)
def test_names_that_mean_nothing_are_refused(mapping: dict[str, str | None], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        level_names_from(mapping)
