"""Vocabularies of the miniature: a byte-level BPE for CLIP and a WordPiece for BLIP, in which a known word is one token.

Known are the words of `words.txt` and those of the names of the emoji. Any other word falls apart, in CLIP's into pieces
of everyday words, in BLIP's into letters: no piece of it belongs to one subject, so it looks like none of them.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from itertools import pairwise
from pathlib import Path

from tokenizers import models, pre_tokenizers
from transformers import BertTokenizer, CLIPTokenizer

from service.miniature.corpus import read_subjects

WORDS_FILE = Path(__file__).with_name("words.txt")
STYLE = "style"
BOS, EOS = "<|startoftext|>", "<|endoftext|>"
END_OF_WORD = "</w>"
_ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"

Merges = list[tuple[str, str]]


@dataclass(frozen=True)
class Words:
    """Both sorted. `style`: words for how a picture looks, which no caption of training has; `plain`: all others."""

    style: tuple[str, ...]
    plain: tuple[str, ...]


def read_words() -> Words:
    sections: dict[str, list[str]] = {}
    for line in WORDS_FILE.read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            section = sections.setdefault(line[2:].partition(":")[0], [])
        else:
            section.append(line)
    style = sections.pop(STYLE)
    return Words(tuple(sorted(style)), tuple(sorted(word for words in sections.values() for word in words)))


def clip_tokenizer(names: Sequence[str]) -> CLIPTokenizer:
    """77 tokens a prompt, as in SD-1.x. Any text can be spelled: the 256 bytes are in the vocabulary."""
    known = read_words()
    subjects = subject_words()
    others = sorted(
        {*known.style, *known.plain, *(byte_letters(word) for name in names for word in split(name))} - subjects
    )
    merges = merges_for(sorted(subjects), merges_of(others), others)
    return CLIPTokenizer(vocab=_vocabulary(merges), merges=merges, model_max_length=77)


def subject_words() -> set[str]:
    return {word for name in read_subjects().values() for word in split(name)}


def merges_of(words: Sequence[str]) -> Merges:
    """Byte-pair encoding of `words`, the pair that most of them have first, until each of them is one token.

    Of pairs that are equally frequent the alphabet decides: the trainer of `tokenizers` lets chance, and every run would
    have a vocabulary of its own.
    """
    spelled = [[*word[:-1], word[-1] + END_OF_WORD] for word in words]
    places: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
    for number, pieces in enumerate(spelled):
        for pair in pairwise(pieces):
            places[pair].add(number)
    queue = [(-len(numbers), pair) for pair, numbers in places.items()]
    heapify(queue)
    merges = []
    while queue:
        count, pair = heappop(queue)
        if -count != len(places[pair]):
            continue  # It was queued again when its count changed.
        if not count:
            break
        merges.append(pair)
        changed = set()
        for number in sorted(places[pair]):
            before, after = spelled[number], join(spelled[number], pair)
            for gone in {*pairwise(before)} - {*pairwise(after)}:
                places[gone].discard(number)
                changed.add(gone)
            for new in {*pairwise(after)} - {*pairwise(before)}:
                places[new].add(number)
                changed.add(new)
            spelled[number] = after
        for other in changed:
            heappush(queue, (-len(places[other]), other))
    return merges


def join(pieces: Sequence[str], pair: tuple[str, str]) -> list[str]:
    """The pieces with each occurrence of `pair` made one."""
    result: list[str] = []
    for piece in pieces:
        if result and (result[-1], piece) == pair:
            result[-1] += piece
        else:
            result.append(piece)
    return result


def merges_for(words: Sequence[str], merges: Merges, others: Sequence[str]) -> Merges:
    """`merges` and what must follow them to make one token of each of `words`.

    The first two pieces of a word that are joined are those that stand together in the fewest of the `others`: so every
    piece made here is so peculiar that hardly a word that is not among `words` will ever contain it.
    """
    merges = list(merges)
    text = f" {' '.join(others)} "
    while True:
        bpe = models.BPE(_vocabulary(merges), merges, end_of_word_suffix=END_OF_WORD)
        joined: dict[tuple[str, str], None] = {}
        for word in words:
            pieces = [token.value for token in bpe.tokenize(word)]
            pairs = list(pairwise(pieces))
            if pairs:
                joined[min(pairs, key=lambda pair: text.count("".join(pair).replace(END_OF_WORD, " ")))] = None
        if not joined:
            return merges
        merges += joined


def byte_letters(word: str) -> str:
    """The word in the letters that byte-level BPE writes bytes with."""
    spelled = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(word)
    return "".join(piece for piece, _ in spelled)


def _vocabulary(merges: Merges) -> dict[str, int]:
    tokens = [*_ALPHABET, *(letter + END_OF_WORD for letter in _ALPHABET), *("".join(pair) for pair in merges)]
    return {token: index for index, token in enumerate([*dict.fromkeys(tokens), BOS, EOS])}


def inner_pieces(tokenizer: CLIPTokenizer) -> list[str]:
    """The tokens that stand inside of words, two letters and more, of which nonsense is made."""
    return sorted(token for token in tokenizer.get_vocab() if len(token) > 1 and token.isascii() and token.isalpha())


def bert_tokenizer(names: Sequence[str]) -> BertTokenizer:
    """Whole words, with letters to fall back on, and the two extra tokens that BLIP's text decoder expects."""
    known = read_words()
    words = sorted({*known.style, *known.plain, *(word for name in names for word in split(name))})
    tokens = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "[DEC]",
        "[ENC]",
        *words,
        *_LETTERS,
        *("##" + letter for letter in _LETTERS),
    ]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    return BertTokenizer(vocab=vocabulary, do_lower_case=True, model_max_length=32, bos_token="[DEC]")


def split(text: str) -> list[str]:
    """The words and marks of a text."""
    return [word for word, _ in pre_tokenizers.BertPreTokenizer().pre_tokenize_str(text.lower())]
