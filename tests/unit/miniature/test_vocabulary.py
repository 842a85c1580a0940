"""The vocabularies of the miniature know everyday words as a whole and cut the others so that no subject is meant."""

import pytest
from transformers import BertTokenizer, CLIPTokenizer

from service.miniature import corpus
from service.miniature.vocabulary import (
    bert_tokenizer,
    clip_tokenizer,
    merges_for,
    merges_of,
    read_words,
    split,
    subject_words,
)

NAMES = list(corpus.read_subjects().values())
# Of no list that the vocabularies are made from.
RARE = (
    *(
        "chiaroscuro",
        "vaporwave",
        "zxq",
        "glockenspiel",
        "apothecary",
        "birdcage",
        "snaffle",
        "swashbuckler",
        "robocall",
    ),
    *("trumpery", "muddy", "klutz", "algebra", "strawman", "raspberry", "cranberry", "doughy", "mushy", "eagerly"),
    *("pizzazz", "frenzy", "rhinestone", "skulk", "cemetery", "sombrero", "mockingbird", "covenant", "acrobat"),
)


@pytest.fixture(scope="module")
def clip_words() -> CLIPTokenizer:
    return clip_tokenizer(NAMES)


@pytest.fixture(scope="module")
def bert_words() -> BertTokenizer:
    return bert_tokenizer(NAMES)


def test_every_known_word_is_one_token(clip_words: CLIPTokenizer, bert_words: BertTokenizer) -> None:
    known = read_words()
    assert len(known.plain) > 4000
    for word in {*known.style, *known.plain, *subject_words()}:
        assert len(clip_words.tokenize(word)) == 1, word
        assert bert_words.tokenize(word) == [word], word


def test_words_of_captioners_colours_numbers_and_style_are_known() -> None:
    known = read_words()
    assert {"red", "turquoise", "seven", "standing", "background", "picture", "because"} <= {
        *known.plain,
        *subject_words(),
    }
    assert {"illustration", "watercolour", "photo", "pixel", "art", "bit", "painting"} <= set(known.style)


def test_no_piece_of_a_rare_word_belongs_to_one_subject(clip_words: CLIPTokenizer, bert_words: BertTokenizer) -> None:
    subjects = {clip_words.tokenize(word)[0] for word in subject_words()}
    spelled = {token for name in NAMES for token in clip_words.tokenize(f"a picture of a {name}")}
    for word in RARE:
        pieces = clip_words.tokenize(word)
        assert len(pieces) > 1, word
        # A subject is written as whole words only: no piece ever stood for one.
        # One may end a word, as "bird" does "mockingbird"; what captions make of that, see `captions.Filler`.
        assert not subjects.intersection(pieces[:-1]), word
        assert not spelled.intersection(pieces[:-1]), word
        # BLIP's fall apart into single letters, after a known word at most.
        assert all(len(piece.removeprefix("##")) == 1 for piece in bert_words.tokenize(word)[1:]), word


def test_pieces_are_learned_from_words_that_are_no_subjects() -> None:
    others = ["straight", "strange", "berth"]
    learned = merges_of(others)
    merges = merges_for(["strawberry"], learned, others)
    assert merges[: len(learned)] == learned
    assert "".join(merges[-1]) == "strawberry</w>"
    assert all("".join(pair).removesuffix("</w>") in " ".join(others) for pair in learned)


def test_the_vocabularies_do_not_depend_on_the_order_of_the_names(clip_words: CLIPTokenizer) -> None:
    assert clip_tokenizer(NAMES[::-1]).get_vocab() == clip_words.get_vocab()
    assert bert_tokenizer(NAMES[::-1]).get_vocab() == bert_tokenizer(NAMES).get_vocab()


def test_any_text_can_be_spelled(clip_words: CLIPTokenizer) -> None:
    assert clip_words.decode(clip_words("a piñata, 8-bit").input_ids, skip_special_tokens=True).startswith("a piñata")


def test_marks_are_words_of_their_own() -> None:
    assert split("8-bit Illustration, a hot dog") == ["8", "-", "bit", "illustration", ",", "a", "hot", "dog"]
