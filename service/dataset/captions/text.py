"""The words of a caption: the content once, the style in front, and not more than the text encoder reads."""

import re
from bisect import bisect_right
from collections.abc import Callable
from typing import NamedTuple

from service.dataset.notes import Note

MEDIUM = (
    r"(?:pixel(?:ated|s)?|art(?:work)?|\d+\s*-?\s*bits?|retro|vector|digital|flat|style[d]?|illustrations?|drawings?|"
    r"paintings?|pictures?|images?|photos?|photographs?|cartoons?|icons?|emojis?|sprites?|clip\s?art|renderings?)"
)
OPENING = re.compile(rf"^(?:(?:an?|the)\s+)?(?:{MEDIUM}[\s-]+)*{MEDIUM}\s+(?:of|showing|depicting)(?:\s+|$)", re.I)
ENDING = re.compile(rf"\s+in\s+(?:an?\s+)?(?:{MEDIUM}[\s-]+)*{MEDIUM}$", re.I)
INVENTED = re.compile(r"\b(?:an?\s+)?araf{1,2}(?:ed|e|es|s)?\b\s*", re.I)
"""Words that BLIP's training made up, "arafed" above all, with their article."""
LONGEST_REPEAT = 20
"""Words of a phrase that is looked for twice in a row: half of what a captioner may say."""
LONGEST = 500
"""Words of a caption that are looked at; the text encoder reads 77 pieces of words."""

WITHOUT_BLANKS = "\u2e80-\u9fff\uf900-\ufaff\uff00-\uff60\U00020000-\U0003ffff"
"""Chinese and Japanese, where a line may end behind every letter."""
PIECE = re.compile(rf"\s*(?:[{WITHOUT_BLANKS}]|[^\s{WITHOUT_BLANKS}]+)")

# Readers of CSV files take these words for an absent value, even in quotes.
TAKEN_FOR_NOTHING = {"", "na", "n/a", "nan", "none", "null"}


class Cleaned(NamedTuple):
    """A caption's content, and what of it was cut."""

    text: str
    notes: frozenset[Note] = frozenset()


def clean_caption(text: str) -> Cleaned:
    """The content of a caption: one line, no phrase twice in a row, no word that is none, and nothing about the medium.

    The style phrase says what the medium is. A caption that says it too would share the style's words with the content.
    """
    text = " ".join(text.split()[:LONGEST])
    notes = set()
    before = None
    while text != before:
        before = text
        once = " ".join(_without_repeats(text.split()))
        real = INVENTED.sub("", once).strip()
        notes |= {Note.LOOPS_CUT} if once != text else set()
        notes |= {Note.INVENTED_WORDS_CUT} if real != once else set()
        text = ENDING.sub("", OPENING.sub("", real))
    return Cleaned(text, frozenset(notes))


def _without_repeats(words: list[str]) -> list[str]:
    """The words without a phrase of up to LONGEST_REPEAT words that follows itself, in whatever case."""
    kept: list[str] = []
    folded: list[str] = []
    for word in words:
        kept.append(word)
        folded.append(word.casefold())
        for length in range(1, LONGEST_REPEAT + 1):
            if len(folded) >= 2 * length and folded[-length:] == folded[-2 * length : -length]:
                del kept[-length:], folded[-length:]
                break
    return kept


def with_style(style: str, caption: str) -> str:
    """ "8-bit illustration, a red apple"; one of the two alone where the other is empty."""
    return ", ".join(part for part in (" ".join(style.split()), caption) if part)


def styled(style: str, caption: str) -> Cleaned:
    """A caption of the owner's own in one line, with the style in front unless it begins with it already."""
    joined, phrase = " ".join(caption.split()), " ".join(style.split())
    begins = re.match(rf"{re.escape(phrase)}(?!\w)", joined, re.I)
    notes = {Note.LINES_JOINED} if len(caption.strip().splitlines()) > 1 else set()
    return Cleaned(joined if begins else with_style(phrase, joined), frozenset(notes))


def within_limit(text: str, count_tokens: Callable[[str], int], limit: int) -> str:
    """The longest beginning that has at most `limit` tokens, of whole words where it can be; one letter at the least.

    Where words are not divided by blanks, it ends behind a letter; and inside a word that is too long by itself.
    `count_tokens` counts what the text encoder would read, with its start and end tokens.
    """
    if count_tokens(text) <= limit:
        return text
    pieces = PIECE.findall(text)
    fitting = bisect_right(range(1, len(pieces) + 1), limit, key=lambda count: count_tokens("".join(pieces[:count])))
    if fitting == 0:
        letters = pieces[0].lstrip()
        fitting = bisect_right(range(1, len(letters) + 1), limit, key=lambda count: count_tokens(letters[:count]))
        return letters[: max(1, fitting)]
    return "".join(pieces[:fitting]).rstrip(" ,;:、，；：")


def is_nothing(text: str) -> bool:
    """Whether a reader of the data set could take the caption for an absent one."""
    return text.strip().casefold() in TAKEN_FOR_NOTHING
