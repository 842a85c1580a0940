"""The words of a caption: the content once, the style in front, and not more than the text encoder reads."""

import re
from bisect import bisect_right
from collections.abc import Callable

MEDIUM = (
    r"(?:pixel(?:ated|s)?|art(?:work)?|\d+\s*-?\s*bits?|retro|vector|digital|flat|style[d]?|illustrations?|drawings?|"
    r"paintings?|pictures?|images?|photos?|photographs?|cartoons?|icons?|emojis?|sprites?|clip\s?art|renderings?)"
)
OPENING = re.compile(rf"^(?:(?:an?|the)\s+)?(?:{MEDIUM}[\s-]+)*{MEDIUM}\s+(?:of|showing|depicting)(?:\s+|$)", re.I)
ENDING = re.compile(rf"\s+in\s+(?:an?\s+)?(?:{MEDIUM}[\s-]+)*{MEDIUM}$", re.I)
LONGEST_REPEAT = 4
LONGEST = 500
"""Words of a caption that are looked at; the text encoder reads 77 pieces of words."""

# Readers of CSV files take these words for an absent value, even in quotes.
TAKEN_FOR_NOTHING = {"", "na", "n/a", "nan", "none", "null"}


def clean_caption(text: str) -> str:
    """The content of a caption: one line, no word or phrase twice in a row, and nothing about the medium.

    The style phrase says what the medium is. A caption that says it too would share the style's words with the content.
    """
    text = " ".join(text.split()[:LONGEST])
    before = None
    while text != before:
        before = text
        text = " ".join(_without_repeats(text.split()))
        text = ENDING.sub("", OPENING.sub("", text))
    return text


def _without_repeats(words: list[str]) -> list[str]:
    """The words without a phrase of up to LONGEST_REPEAT words that follows itself, in whatever case."""
    kept: list[str] = []
    for word in words:
        kept.append(word)
        for length in range(1, LONGEST_REPEAT + 1):
            folded = [one.casefold() for one in kept[-2 * length :]]
            if len(folded) == 2 * length and folded[:length] == folded[length:]:
                del kept[-length:]
                break
    return kept


def with_style(style: str, caption: str) -> str:
    """ "8-bit illustration, a red apple"; one of the two alone where the other is empty."""
    return ", ".join(part for part in (" ".join(style.split()), caption) if part)


def styled(style: str, caption: str) -> str:
    """A caption of the owner's own, with the style in front unless it begins with it already."""
    caption, phrase = " ".join(caption.split()), " ".join(style.split())
    begins = re.match(rf"{re.escape(phrase)}(?!\w)", caption, re.I)
    return caption if begins else with_style(phrase, caption)


def within_limit(text: str, count_tokens: Callable[[str], int], limit: int) -> str:
    """The longest beginning of whole words that has at most `limit` tokens; one word at the least.

    `count_tokens` counts what the text encoder would read, with its start and end tokens.
    """
    if count_tokens(text) <= limit:
        return text
    words = text.split()
    fitting = bisect_right(range(1, len(words) + 1), limit, key=lambda count: count_tokens(" ".join(words[:count])))
    return " ".join(words[: max(1, fitting)]).rstrip(" ,;:")


def is_nothing(text: str) -> bool:
    """Whether a reader of the data set could take the caption for an absent one."""
    return text.strip().casefold() in TAKEN_FOR_NOTHING
