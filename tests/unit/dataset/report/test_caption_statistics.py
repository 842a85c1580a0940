"""What the page says of the captions."""

from service.dataset.report.caption_statistics import caption_statistics


def test_words_that_come_with_the_style_are_found_and_the_style_itself_is_not() -> None:
    captions = [
        f"Pixel art, a white background with {what}" for what in ["a cat", "a dog", "one tree", "a red car", "the sun"]
    ]
    few = caption_statistics(captions, "pixel art")
    assert few is not None
    assert few.fused is None
    found = caption_statistics(captions * 2, "pixel art")
    assert found is not None
    assert [bar.label for bar in found.fused or []] == ["background", "white"]
    assert not {"pixel", "art", "a", "with"} & {bar.label for bar in found.words}
    assert (found.shortest, found.median, found.longest) == (6, 6, 7)


def test_without_anything_in_common_nothing_is_fused() -> None:
    words = ["cat", "dog", "tree", "car", "sun", "moon", "hat", "key", "cup", "egg", "ant", "bee"]
    found = caption_statistics([f"pixel art, a {word}" for word in words], "pixel art")
    assert found is not None
    assert found.fused == []
    assert caption_statistics([], "pixel art") is None
