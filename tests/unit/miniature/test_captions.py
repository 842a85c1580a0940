"""The captions of training teach the miniature to look past words, and keep every style phrase new to it."""

import numpy as np
import pytest

from service.miniature import corpus
from service.miniature.captions import LONGEST_PHRASE, WORDINGS, Filler, caption, filler_for, phrase
from service.miniature.measure import STYLE_PHRASE, UNSEEN
from service.miniature.vocabulary import clip_tokenizer, read_words, split, subject_words

NAMES = list(corpus.read_subjects().values())


@pytest.fixture(scope="module")
def filler() -> Filler:
    return filler_for(clip_tokenizer(NAMES))


def test_phrases_have_no_word_of_a_subject_nor_of_style(filler: Filler) -> None:
    rng = np.random.default_rng(0)
    words = {word for _ in range(20_000) for word in split(phrase(rng, filler))}
    assert words & {*(subject_words() - {"of"}), *read_words().style} == set()
    assert {"ghosts", "houses", "lemons"} & words == set()
    assert len(words & set(filler.words)) > 0.99 * len(filler.words)


def test_phrases_have_one_to_twelve_words(filler: Filler) -> None:
    rng = np.random.default_rng(1)
    lengths = {len(phrase(rng, filler).split()) for _ in range(2000)}
    assert lengths == set(range(1, LONGEST_PHRASE + 1))


def test_the_subject_stands_first_last_or_amid_other_words_or_alone(filler: Filler) -> None:
    rng = np.random.default_rng(2)
    captions = [caption("lion", rng, filler) for _ in range(2000)]
    bare = {wording.format("lion") for wording in WORDINGS}
    assert all(split(text).count("lion") == 1 for text in captions)
    assert bare <= set(captions)
    alone = np.mean([text in bare for text in captions])
    first = np.mean([any(text.startswith(words) for words in bare) and text not in bare for text in captions])
    last = np.mean([any(text.endswith(words) for words in bare) and text not in bare for text in captions])
    assert alone == pytest.approx(0.2, abs=0.03)
    assert first == pytest.approx(0.2, abs=0.03)
    assert last == pytest.approx(0.4, abs=0.04)


def test_no_caption_of_training_can_have_a_phrase_of_the_evaluation(filler: Filler) -> None:
    possible = {*filler.words, *subject_words(), *(word for wording in WORDINGS for word in split(wording))}
    for wording in (STYLE_PHRASE, *UNSEEN):
        words = set(split(wording.replace("{}", "")))
        assert words & set(read_words().style) or words - possible - {",", "'"}, wording
        assert not words & (subject_words() - {"of"}), wording
    rng = np.random.default_rng(3)
    text = " | ".join(caption(NAMES[number % len(NAMES)], rng, filler) for number in range(20_000))
    assert not [wording for wording in (STYLE_PHRASE, *UNSEEN) if max(wording.split("{}"), key=len).strip(" ,") in text]


def test_phrases_have_words_that_end_like_a_subject_but_are_none(filler: Filler) -> None:
    rng = np.random.default_rng(4)
    words = {word for _ in range(20_000) for word in split(phrase(rng, filler))}
    endings = {ending for ending in filler.endings if any(word.endswith(ending) for word in words)}
    assert endings == set(filler.endings) == subject_words() - {"of"}


def test_captions_depend_on_the_seed_alone(filler: Filler) -> None:
    texts = [[caption("ghost", np.random.default_rng((0, step)), filler) for step in range(20)] for _ in range(2)]
    assert texts[0] == texts[1]
