from pathlib import Path
from typing import Any

import pytest
import yaml

from evaluation.naming import Named, compare_names
from riskva.vocabulary import KINDS, ROOMS, UNKNOWN, Vocabulary

CASES = yaml.safe_load((Path(__file__).parent / "naming_cases.yaml").read_text(encoding="utf-8"))
VOCABULARIES = {"kinds": Vocabulary(KINDS), "rooms": Vocabulary(ROOMS)}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_names_are_compared_as_the_table_says(case: dict[str, Any]) -> None:
    named = compare_names(case["reference"], case["answer"], VOCABULARIES[case.get("vocabulary", "kinds")])
    if case["expected"] is None:
        assert named is None
    else:
        assert named == Named(case["expected"], case["answered"], case.get("denied", False))
        assert named.is_right == (case["expected"] == case["answered"])


def test_without_no_defect_a_denial_names_nothing() -> None:
    cracks = Vocabulary({"裂缝": ("裂缝",)})
    assert compare_names("未见裂缝", "裂缝", cracks) is None
    assert compare_names("裂缝", "未见裂缝", cracks) == Named("裂缝", UNKNOWN, is_denied=True)


@pytest.mark.parametrize("name", [name for name in KINDS if name != "无缺陷"])
def test_denying_any_kind_is_not_naming_it(name: str) -> None:
    named = compare_names(f"墙面存在{KINDS[name][0]}", f"墙面未发现{KINDS[name][-1]}", VOCABULARIES["kinds"])
    assert named == Named(name, "无缺陷", is_denied=True)
