"""What a prompt asks for beside the style."""

import re


def content_of(caption: str, style: str) -> str:
    """The caption without the style phrase in front: "8-bit illustration, a red apple" -> "a red apple".

    Adherence is judged on the content alone: with the style phrase in the prompt, a LoRA would gain by its style and lose
    what is drawn unnoticed. A caption that does not begin with the phrase, or consists of it, comes back as it is.
    """
    phrase = r"\s+".join(re.escape(word) for word in style.strip(" ,;:.").split())
    if not phrase:
        return caption
    return re.sub(rf"^\s*{phrase}(?:\s*[,;:.]+\s*|\s+)(?=\S)", "", caption, count=1, flags=re.IGNORECASE)
