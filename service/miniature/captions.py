"""Captions of training: a wording of the subject amid words that have nothing to do with the picture.

What a model does not know should not confuse it, whether it stands in front of the subject, behind it or on both sides. So
most captions have everyday words and nonsense there, and none has a word of style: such a word is as new to the family as
its first style phrase.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from transformers import CLIPTokenizer

from service.miniature.corpus import read_subjects
from service.miniature.vocabulary import inner_pieces, read_words, split

WORDINGS = (
    "a {}",
    "{}",
    "the {}",
    "my {}",
    "one {}",
    "this {}",
    "that is a {}",
    "this is a {}",
    "there is a {}",
    "here you see a {}",
    "a picture of a {}",
    "an image of a {}",
)
PLAINEST = WORDINGS[0]
PLAINEST_SHARE = 0.4
BARE_SHARE = 0.2
LONGEST_PHRASE = 12
NONSENSE_SHARE = 0.3
_BEFORE = (", ", " ", ": ", " of ", ". ")
_BEHIND = (", ", " ", ". ", " and ")
_LETTERS = list("abcdefghijklmnopqrstuvwxyz0123456789-")


@dataclass(frozen=True)
class Filler:
    """What stands around a subject: `words` that are no subject's and tell no style, and nonsense of `pieces` and `endings`."""

    words: tuple[str, ...]
    pieces: tuple[str, ...]
    endings: tuple[str, ...]
    """Words of the subjects. To CLIP's vocabulary the end of "mockingbird" is the very token of "bird": what stands before it
    in the word must take the bird away."""
    never: frozenset[str]
    """Words that may not arise by chance either: those of the subjects and those of style."""


def filler_for(tokenizer: CLIPTokenizer) -> Filler:
    known = read_words()
    subjects = {word for name in read_subjects().values() for word in split(name)} - {"of"}
    never = subjects | {word + ending for word in subjects for ending in ("s", "es")} | set(known.style)
    words = tuple(word for word in known.plain if word not in never)
    return Filler(words, tuple(inner_pieces(tokenizer)), tuple(sorted(subjects)), frozenset(never))


def caption(name: str, rng: np.random.Generator, filler: Filler) -> str:
    """A wording of `name`; four of five have a phrase in front of it, behind it, or both."""
    wording = PLAINEST if rng.random() < PLAINEST_SHARE else WORDINGS[rng.integers(len(WORDINGS))]
    text = wording.format(name)
    if rng.random() < BARE_SHARE:
        return text
    side = rng.integers(4)
    if side != 0:
        text = phrase(rng, filler) + _BEFORE[rng.integers(len(_BEFORE))] + text
    if side in (0, 1):
        text += _BEHIND[rng.integers(len(_BEHIND))] + phrase(rng, filler)
    return text


def phrase(rng: np.random.Generator, filler: Filler) -> str:
    """1 to LONGEST_PHRASE words, short ones more often; commas now and then."""
    count = 1 + int(LONGEST_PHRASE * rng.random() ** 2)
    words = []
    for _ in range(count):
        word = _nonsense(rng, filler) if rng.random() < NONSENSE_SHARE else _one_of(filler.words, rng)
        words.append(word + ("," if rng.random() < 0.08 else ""))
    return " ".join(words).rstrip(",")


def _nonsense(rng: np.random.Generator, filler: Filler) -> str:
    while True:
        kind = rng.integers(4)
        if kind == 0:
            word = "".join(rng.choice(_LETTERS, size=rng.integers(2, 8)))
        elif kind == 1:
            word = _one_of(filler.pieces, rng) + _one_of(filler.endings, rng)
        else:
            word = "".join(_one_of(filler.pieces, rng) for _ in range(rng.integers(2, 4)))
        if not filler.never.intersection(split(word)):
            return word


def _one_of(words: Sequence[str], rng: np.random.Generator) -> str:
    return words[int(rng.integers(len(words)))]
