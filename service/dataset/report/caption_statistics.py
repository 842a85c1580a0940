"""What the captions have in common, which training ties to the style."""

import re
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from service.dataset.report.figures import Bar, bars, histogram, ordered

FUSED_SHARE = 0.3
FUSED_FROM = 10
"""Captions below which a share says little."""
WORDS = 12
STOP_WORDS = frozenset({
    "a", "an", "the", "of", "on", "in", "at", "to", "and", "or", "with", "without", "by", "for", "from", "is",
    "are", "was", "be", "its", "it", "his", "her", "their", "this", "that", "there", "some", "two", "one", "up",
    "down", "out", "over", "under", "into", "near", "next", "as",
})  # fmt: skip
WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


@dataclass(frozen=True)
class CaptionStatistics:
    """What the captions have in common beside the style phrase. Lengths are in words, the phrase not counted."""

    shortest: int
    median: float
    longest: int
    lengths: list[Bar]
    words: list[Bar]
    fused: list[Bar] | None
    """Words that the style phrase will mean as well; None when there are too few captions to tell."""


def caption_statistics(captions: Sequence[str], style: str) -> CaptionStatistics | None:
    """Lengths and words of the captions without the style phrase; None without captions."""
    if not captions:
        return None
    phrase = WORD.findall(style.casefold())
    contents = [_without_phrase(WORD.findall(caption.casefold()), phrase) for caption in captions]
    lengths = [len(words) for words in contents]
    used = Counter(word for words in contents for word in set(words) - STOP_WORDS)
    total = len(captions)
    fused = [(word, count, f"{count / total:.0%}") for word, count in ordered(used) if count >= FUSED_SHARE * total]
    return CaptionStatistics(
        min(lengths),
        statistics.median(lengths),
        max(lengths),
        histogram([_length_label(length) for length in lengths], [_length_label(length) for length in range(0, 45, 5)]),
        bars([(word, count, f"{count / total:.0%}") for word, count in ordered(used)[:WORDS]]),
        bars(fused) if total >= FUSED_FROM else None,
    )


def _length_label(length: int) -> str:
    low = min(length // 5 * 5, 40)
    return f"{low} to {low + 4}" if low < 40 else "40 or more"


def _without_phrase(words: Sequence[str], phrase: Sequence[str]) -> list[str]:
    """The words after the phrase, where they begin with it."""
    return list(words[len(phrase) :]) if phrase and list(words[: len(phrase)]) == list(phrase) else list(words)
