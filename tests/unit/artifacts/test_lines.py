"""Lines that are kept while a job is under way: byte for byte those of before, and read or refused as a whole."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.artifacts.lines import CandidateLine, CaptionLine, OutcomeLine, ShardHead, from_lines, to_lines
from service.exits import BadData

# As the version wrote them that knew no models for them: preparations under way, and words that were said, go on.
CANDIDATE = (
    '{"rank": 3, "origin": "größe.png", "page": null, "query": "8", "licence": null, "caption": "a \\"red\\" boat"}\n'
)
OUTCOME = (
    '{"rank": 3, "reason": null, "detail": "", "features": {"sha256": "ab", "width": 40, "height": 36, "source_width": 40, '
    '"source_height": 36, "phash": 18446744073709551615, "dhash": 0, "colour": 255, "animated": false, "relevance": 21.5, '
    '"lossless": true, "source_sha256": "cd"}}\n'
)
LEFT_OUT = '{"rank": 4, "reason": "not_image", "detail": "x", "features": null}\n'
HEAD = '{"candidates": "0123"}\n'
CAPTION = '{"sha256": "ab", "text": "a cat"}\n'


@pytest.mark.parametrize(
    ("model", "lines"),
    [(CandidateLine, CANDIDATE), (OutcomeLine, OUTCOME + LEFT_OUT), (ShardHead, HEAD), (CaptionLine, CAPTION)],
)
def test_what_was_written_before_is_read_and_written_the_same(model: type, lines: str) -> None:
    content = lines.encode()
    assert to_lines(from_lines(model, content.splitlines(), "x")) == content


def test_an_outcome_of_before_the_newest_facts_were_known_has_their_defaults() -> None:
    older = OUTCOME.replace(', "animated": false, "relevance": 21.5, "lossless": true, "source_sha256": "cd"', "")
    [line] = from_lines(OutcomeLine, older.encode().splitlines(), "x")
    assert line.features is not None
    assert (line.features.animated, line.features.relevance, line.features.lossless) == (False, None, False)


@given(st.text(st.characters(), max_size=20), st.none() | st.text(st.characters(), max_size=20))
def test_any_name_of_a_file_and_any_caption_come_back_as_they_were(origin: str, caption: str | None) -> None:
    lines = [CandidateLine(rank=0, origin=origin, caption=caption)]
    assert from_lines(CandidateLine, to_lines(lines).splitlines(), "x") == lines


@pytest.mark.parametrize(
    "damaged", ["{", "", "null", "[]", '{"rank": 1}', OUTCOME.replace("40", '"wide"'), OUTCOME[:-20], "\0\0"]
)
def test_a_damaged_line_is_named_with_where_it_stands(damaged: str) -> None:
    with pytest.raises(BadData, match=r"^outcomes/1 is damaged: "):
        from_lines(OutcomeLine, [LEFT_OUT.encode(), damaged.encode()], "outcomes/1")
