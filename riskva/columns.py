"""Columns that RisKVA adds to a table's own; what it adds, it knows again and leaves out when the rows come back."""

from __future__ import annotations

ID_COLUMN = "image_id"
IMAGE_COLUMN = "image_path"

GROUP_COLUMN = "riskva_group"
"""Which rows of a prepared data set belong together: `g0001`, …, the same for all rows of one house.

The numbers count groups by first appearance in the tables. They say nothing of the group's own text, which is often a
flat's number and private; a hash of it could be guessed. In another data set the same number is another group.
"""

PHOTO_URL_COLUMN = "riskva_photo"
REFERENCE_COLUMN = "riskva_reference"
REFERENCE_LEVEL_COLUMN = "riskva_reference_level"
ANSWER_COLUMN = "riskva_answer"
ANSWER_LEVEL_COLUMN = "riskva_answer_level"
CONFIDENCE_COLUMN = "riskva_confidence"
MARKS_COLUMN = "riskva_marks"

SHOWN_COLUMNS = (
    PHOTO_URL_COLUMN,
    REFERENCE_COLUMN,
    REFERENCE_LEVEL_COLUMN,
    ANSWER_COLUMN,
    ANSWER_LEVEL_COLUMN,
    CONFIDENCE_COLUMN,
    MARKS_COLUMN,
)
"""What a task for Label Studio shows to the person who corrects it, and no training row needs."""
