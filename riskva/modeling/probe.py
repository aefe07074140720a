"""Fixed questions about drawn photos: whatever is on them, two models that are the same answer them alike."""

from __future__ import annotations

from io import BytesIO

from PIL import Image, ImageDraw

from riskva.data.asking import Asking
from riskva.data.conversation import IMAGE_PLACEHOLDER, Conversation, Message, Photo
from riskva.encoding import Encoded, Processor, encode
from riskva.modeling.context import ModelContext
from riskva.modeling.resolving import asking_of

SIZES = ((448, 336), (196, 420), (336, 336))
"""Width and height: landscape, upright and square, each of several windows of Qwen2.5-VL's 112 pixels."""


def make_probes(context: ModelContext, processor: Processor) -> list[Encoded]:
    """One prompt for each of `SIZES`, asked as the model was taught; the same on every machine."""
    # A question about several photos, which `asking_of` refuses, is a probe like any other
    asked = Asking(context.question, context.system_prompt) if context.question else asking_of(context)
    system = (Message("system", asked.system_prompt),) if asked.system_prompt else ()
    messages, num_photos = (*system, Message("user", asked.question)), asked.question.count(IMAGE_PLACEHOLDER)
    return [
        encode(Conversation(f"probe {width}x{height}", messages, (_photo(width, height),) * num_photos), processor)
        for width, height in SIZES
    ]


def _photo(width: int, height: int) -> Photo:
    """A wall in uneven light with a crack across it."""
    shades = [Image.linear_gradient("L"), Image.linear_gradient("L").rotate(90), Image.radial_gradient("L")]
    picture = Image.merge("RGB", [one.resize((width, height)) for one in shades])
    crack = [(width * step // 8, height * (2 + step * 5 % 4) // 8) for step in range(9)]
    ImageDraw.Draw(picture).line(crack, fill=(40, 40, 40), width=4)
    stream = BytesIO()
    picture.save(stream, "PNG")
    return Photo(data=stream.getvalue(), name=f"probe {width}x{height}")
