"""Rows for tests that need some: drawn in memory, with answers of very different lengths."""

from io import BytesIO

import numpy as np
from PIL import Image

from riskva.data.conversation import Conversation, Message, Photo
from riskva.report import DEFAULT_FORMAT, RiskLevel, RiskReport, default_question

WORDS = ("墙面裂缝", "窗框渗水", "地面起砂", "抹灰空鼓", "饰面砖脱落", "插座无接地", "顶棚霉斑", "栏杆松动")


def drawn_photo(seed: int, width: int = 112, height: int = 112) -> Photo:
    """A photo of coloured blocks."""
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    stream = BytesIO()
    Image.fromarray(blocks).resize((width, height), Image.Resampling.NEAREST).save(stream, "PNG")
    return Photo(data=stream.getvalue(), name=f"{seed}.png")


def drawn_conversations(count: int, with_photos: bool = True) -> list[Conversation]:
    """Questions with reports as answers; row i's texts repeat i mod 5 + 1 times, its photo's sides vary."""
    return [_conversation(index, with_photos) for index in range(count)]


def _conversation(index: int, with_photos: bool) -> Conversation:
    word = WORDS[index % len(WORDS)]
    texts = {label: "，".join([word] * (index % 5 + 1)) for label in DEFAULT_FORMAT.text_labels}
    answer = DEFAULT_FORMAT.render(RiskReport(RiskLevel(index % 3), texts))
    photos = (drawn_photo(index, 84 + 28 * (index % 4)),) if with_photos else ()
    question = "<image>" * with_photos + default_question(DEFAULT_FORMAT)
    return Conversation(str(index), (Message("user", question), Message("assistant", answer)), photos)
