"""What the audit's findings say, in English and Chinese: a title, the numbers in a sentence, and the remedy.

Titles and details are filled in with `str.format`; `{count}`, `{share}` and `{of}` always are, the rest by the check.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Words:
    """A finding's words; those that end in `_zh` are Chinese."""

    title: str
    title_zh: str
    detail: str
    detail_zh: str
    remedy: str
    remedy_zh: str


WORDS: Mapping[str, Words] = {
    "quarantined_rows": Words(
        "Rows were kept out",
        "部分数据行被隔离",
        "{count:,} of {of:,} rows ({share:.1%}) are not in the data set: {reasons}.",
        "{of:,} 行中有 {count:,} 行（{share:.1%}）未进入数据集：{reasons_zh}。",
        "See quarantine.jsonl for what is wrong with each; mend the table or its photos and prepare again.",
        "原因逐行列在 quarantine.jsonl 中；修正表格或照片后重新运行 prepare。",
    ),
    "small_photos": Words(
        "Very small photos",
        "照片尺寸过小",
        "{count:,} of {of:,} photos ({share:.1%}) have a short side below {side} px: fine cracks are lost.",
        "{of:,} 张照片中有 {count:,} 张（{share:.1%}）短边不足 {side} 像素，细小裂缝难以辨认。",
        "Use the original photos instead of thumbnails; if the originals are large, raise max_image_size.",
        "请使用原始照片而不是缩略图；如果原图足够大，请调大 max_image_size。",
    ),
    "level_absent_from_train": Words(
        "A level is absent from training",
        "训练集中缺少某个风险等级",
        "{split} has no row of {levels}: a model cannot learn to answer it.",
        "{split} 中没有“{levels}”的样本，模型学不会给出这一等级。",
        "Collect such photos, check level_names for words that were taken for another level, or correct split_column.",
        "请补充该等级的照片；检查 level_names 是否把它归入了别的等级；使用 split_column 时请核对该列。",
    ),
    "level_absent_from_test": Words(
        "A level is absent from the test",
        "测试集中缺少某个风险等级",
        "{split} has no row of {levels}: nothing can be said of how often a model finds it.",
        "{split} 中没有“{levels}”的样本，无法评估模型对该等级的识别能力。",
        "Give the test a larger share (split), or collect photos of this level.",
        "请在 split 中增大测试集比例，或补充该等级的照片。",
    ),
    "few_test_rows_of_level": Words(
        "Too few test rows to measure a level",
        "测试集中某些等级的样本太少，指标不可靠",
        "{sentences}.",
        "{sentences_zh}。",
        "Collect more photos of these levels or give the test a larger share (split); until then read every recall "
        "with its interval.",
        "请补充这些等级的照片，或在 split 中增大测试集比例；在此之前，召回率必须连同置信区间一起看。",
    ),
    "single_level_split": Words(
        "A split with a single level",
        "某个子集只有一个风险等级",
        "{parts}: every constant answer of that level scores 100 %.",
        "{parts}：始终回答这一等级就能得到 100% 的准确率。",
        "Use another seed or larger shares (split); with few groups choose a finer group_by.",
        "请更换 seed 或增大该子集的比例（split）；分组太少时请改用更细的 group_by。",
    ),
    "majority_dominates": Words(
        "One level dominates",
        "风险等级严重不均衡",
        "Always answering {level} is already right in {share:.1%} of {split}: accuracy alone says nothing here.",
        "在 {split} 中始终回答“{level}”就有 {share:.1%} 的准确率，单看准确率没有意义。",
        "Judge models by macro-F1 and the recall of 严重, beside their floors; collect photos of the rarer levels.",
        "请用 macro-F1 和“严重”的召回率评价模型，并与基线对照；补充稀少等级的照片。",
    ),
    "split_without_rows": Words(
        "A split without rows",
        "某个子集没有数据",
        "No row went to {parts}.",
        "{parts} 中没有任何数据行。",
        "Add rows, take the split out of the key split, or correct split_column.",
        "请增加数据，或从 split 中去掉该子集；使用 split_column 时请核对该列。",
    ),
    "few_rows_in_split": Words(
        "A small split",
        "某个子集数据太少",
        "{parts}.",
        "{parts_zh}。",
        "Collect more rows; scores on such a split change by several points with every photo.",
        "请增加数据；在这样小的子集上，多一张或少一张照片都会使指标变化好几个百分点。",
    ),
    "no_test_split": Words(
        "Nothing to test on",
        "没有测试集",
        "All rows are for training.",
        "全部数据都用于训练。",
        "Add one such as test: 0.1 to the key split, unless a test set exists elsewhere.",
        "请在 split 中加入例如 test: 0.1；若已另有测试集可忽略。",
    ),
    "level_wordings": Words(
        "Other words for the levels were mapped",
        "等级的其他写法已统一",
        "{count:,} row(s) ({share:.1%}) word their level differently: {mapped}.",
        "{count:,} 行（{share:.1%}）的等级使用了其他写法：{mapped}。",
        "Check that each word means that level in your firm; change or drop one with level_names.",
        "请确认每种写法在贵单位确实表示该等级；可用 level_names 修改或取消。",
    ),
    "group_across_splits": Words(
        "A group lies in several splits",
        "同一分组出现在不同子集中",
        "{count:,} group(s) ({parts}) have rows in more than one split: scores will be too good.",
        "{count:,} 个分组（{parts}）的数据出现在多个子集中，评估结果会虚高。",
        "Correct split_column so that all rows of a house or site carry one split.",
        "请修正 split_column，使同一户（工地）的数据属于同一子集。",
    ),
    "group_dominates": Words(
        "One group holds much of the data",
        "单个分组占比过大",
        "{group} holds {count:,} of {of:,} rows ({share:.1%}), so the shares of the splits cannot be met.",
        "“{group}”有 {count:,} 行，占 {of:,} 行的 {share:.1%}，各子集无法按比例划分。",
        "Choose a finer group_by or group_pattern, or add data of other sites.",
        "请用更细的 group_by 或 group_pattern，或补充其他工地的数据。",
    ),
    "rows_without_group": Words(
        "Rows without a group",
        "部分数据没有分组",
        "{count:,} of {of:,} rows ({share:.1%}) have no group while others do; each counts as one of its own.",
        "{of:,} 行中有 {count:,} 行（{share:.1%}）没有分组，各自按独立一组处理。",
        "Fill the group_by column, or mend group_pattern where it does not match.",
        "请补全 group_by 所指的列，或修正未能匹配的 group_pattern。",
    ),
    "look_alikes_across_splits": Words(
        "Photos that look alike lie in several splits",
        "相似照片出现在不同子集中（数据泄漏）",
        "{clusters:,} cluster(s) with {count:,} photos: a model is tested on photos that it was trained on.",
        "{clusters:,} 组相似照片（共 {count:,} 张）跨越子集，模型会在见过的照片上接受测试。",
        "Set near_duplicates: together, remove the copies, or correct split_column.",
        "请设置 near_duplicates: together，删除重复照片，或修正 split_column。",
    ),
    "look_alikes": Words(
        "Photos that look alike stay together",
        "相似照片已归入同一子集",
        "{clusters:,} cluster(s) with {count:,} photos ({share:.1%} of all) lie in one split each.",
        "{clusters:,} 组相似照片（共 {count:,} 张，占 {share:.1%}）各自位于同一子集中，没有泄漏。",
        "Nothing must be done; copies only weigh more in training, and removing them makes the data smaller.",
        "无需处理；重复照片只会在训练中占更大权重，删除后数据更精简。",
    ),
    "look_alikes_other_level": Words(
        "Photos that look alike have different levels",
        "相似照片的风险等级不一致",
        "{count:,} photo(s) disagree with the commonest level of their look-alikes, in {clusters:,} cluster(s).",
        "{clusters:,} 组相似照片中，有 {count:,} 张的等级与同组多数不一致。",
        "Compare the pairs below and correct the wrong level; before-and-after pairs may be right as they are.",
        "请逐组对照并更正错误的等级；整改前后的照片可能本来就不同。",
    ),
    "same_photo_other_report": Words(
        "One photo with different reports",
        "同一张照片对应不同的报告",
        "{photos:,} photo(s) stand in {count:,} rows ({share:.1%}), byte for byte the same and described differently.",
        "{photos:,} 张照片出现在 {count:,} 行（{share:.1%}）中，文件完全相同，但报告文字不同。",
        "Merge the defects of a photo into one row, or crop the photo to each defect.",
        "请把同一照片上的多处缺陷合并为一行，或按缺陷分别裁剪照片。",
    ),
    "identical_rows": Words(
        "Rows that stand twice",
        "重复的数据行",
        "{count:,} row(s) ({share:.1%}) repeat another one: the same photo, texts and level.",
        "{count:,} 行（{share:.1%}）与其他行完全重复：照片、文字和等级都相同。",
        "Remove the copies from the table; look for tables that were given twice in csv_path.",
        "请从表格中删除重复行；检查 csv_path 是否重复包含了同一张表。",
    ),
    "texts_across_splits": Words(
        "The same report texts in training and test",
        "测试集中的报告文字在训练集中出现过",
        "Rows whose exact texts also stand in {train}: {parts}. Text scores (ROUGE) will look better than they are.",
        "报告文字与 {train} 完全相同的行：{parts}。文字指标（ROUGE）会偏高。",
        "Templates are common; read text scores beside the nearest training text's, or set identical_texts: together.",
        "套用模板很常见：请把文字指标与“最相近训练文本”的基线对照，或设置 identical_texts: together。",
    ),
    "texts_other_level": Words(
        "The same texts with different levels",
        "相同的文字，不同的等级",
        "{count:,} row(s) ({share:.1%}) disagree with the commonest level of their texts ({clusters:,} text(s)).",
        "{clusters:,} 种文字对应多个等级，其中 {count:,} 行（{share:.1%}）与该文字的多数等级不一致。",
        "Correct the level, or say in the text what makes the difference (length, width, area, place).",
        "请更正等级，或在文字中写明差别所在（长度、宽度、面积、部位）。",
    ),
    "constant_text": Words(
        "A field is always the same",
        "某个字段的文字完全相同",
        "Every row has the same text: {fields}.",
        "所有行的文字都相同：{fields}。",
        "Remove the field from answer_fields, or give it the text that belongs to each photo.",
        "请从 answer_fields 中去掉该字段，或为每张照片填写对应的文字。",
    ),
    "template_text": Words(
        "A template fills much of a field",
        "某个字段大量套用模板",
        "One text fills a large part of a field: {fields}.",
        "同一段文字占了该字段的很大比例：{fields}。",
        "Read the field's scores beside the floor of a constant answer; have such texts written from the photo.",
        "评估该字段时请与固定答案的基线对照；建议按照片实际情况撰写。",
    ),
    "short_texts": Words(
        "Very short texts",
        "文字过短",
        "{count:,} text(s) ({share:.1%} of all) have fewer than {chars} characters: {fields}.",
        "{count:,} 处文字（{share:.1%}）不足 {chars} 个字：{fields}。",
        "Complete the texts; a model learns to answer as briefly as its examples.",
        "请补充完整；模型会学着给出同样简短的回答。",
    ),
    "unknown_kinds": Words(
        "Descriptions that name no known kind of defect",
        "描述中没有识别出缺陷类型",
        "{count:,} row(s) ({share:.1%}) name none of the {kinds} kinds in {label}; they are counted as unknown.",
        "{count:,} 行（{share:.1%}）的“{label}”中没有 {kinds} 种已知缺陷类型的用词，按“未知”统计。",
        "Look at the examples: either the text does not name the defect, or your firm has another word for it.",
        "请查看示例：可能是文字没有写明缺陷，也可能是贵单位使用了其他叫法。",
    ),
}

REASONS: Mapping[str, str] = {
    "empty_field": "必填内容为空",
    "unknown_level": "无法识别的等级",
    "control_token": "含有控制标记",
    "duplicate_id": "编号重复",
    "image_missing": "找不到照片",
    "image_outside": "照片在目录之外",
    "image_unreadable": "照片无法打开",
    "image_truncated": "照片文件不完整",
    "image_too_large": "照片过大",
    "image_aspect": "照片过于狭长",
    "image_unsupported": "不支持的照片格式",
}
"""Chinese for the codes of bad rows; a code that is not here is shown as it is."""

SPLITS: Mapping[str, str] = {"train": "训练", "val": "验证", "test": "测试"}
UNITS: Mapping[str, str] = {
    "rows": "行",
    "levels": "个等级",
    "splits": "个子集",
    "groups": "个分组",
    "photos": "张照片",
    "texts": "处文字",
}
SEVERITY_NAMES: Mapping[str, str] = {"error": "错误", "warning": "警告", "info": "提示"}
