import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

from service.diffusion.clip import Clip, clip_embeddings, clip_scores
from service.diffusion.models import ModelFiles
from service.evaluation.adherence import content_of
from service.exits import BadData

LETTERS = "abcdefghijklmnopqrstuvwxyz"


@pytest.mark.parametrize(
    ("caption", "content"),
    [
        ("8-bit illustration, a red apple", "a red apple"),
        ("8-bit illustration a red apple", "a red apple"),
        ("8-Bit  Illustration: a red apple", "a red apple"),
        ("a red apple, 8-bit illustration", "a red apple, 8-bit illustration"),
        ("8-bit illustrations of apples", "8-bit illustrations of apples"),
        ("8-bit illustration", "8-bit illustration"),
        ("8-bit illustration, ", "8-bit illustration, "),
        ("a red apple", "a red apple"),
    ],
)
def test_the_content_of_a_caption_is_what_follows_the_style_phrase(caption: str, content: str) -> None:
    assert content_of(caption, "8-bit illustration") == content


def test_a_style_phrase_is_no_pattern() -> None:
    assert content_of("c++ (retro), a boat", "c++ (retro)") == "a boat"
    assert content_of("cccc, a boat", "c+") == "cccc, a boat"


@pytest.mark.parametrize("style", ["", "  ", ", "])
def test_without_a_style_phrase_the_caption_is_the_content(style: str) -> None:
    assert content_of("a red apple", style) == "a red apple"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    """A CLIP of few parameters with random weights: enough to tell whether scores are computed as they should be."""
    folder = tmp_path_factory.mktemp("clip")
    symbols = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {symbol: number for number, symbol in enumerate(symbols)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    last = len(vocabulary) - 1
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends = {"bos_token_id": last - 1, "eos_token_id": last, "pad_token_id": last}
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config={
            **sizes,
            **ends,
            "vocab_size": len(vocabulary),
            "max_position_embeddings": 16,
            "projection_dim": 8,
        },
        vision_config={**sizes, "image_size": 32, "patch_size": 8, "projection_dim": 8},
        projection_dim=8,
    )
    CLIPModel(config).save_pretrained(folder)
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    CLIPProcessor(images, tokenizer).save_pretrained(folder)
    return ModelFiles("MODEL_CLIP", str(folder), {"local_files_only": True})


def pictures(count: int) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)) for _ in range(count)]


def test_scores_are_a_hundred_times_the_cosine_of_image_and_text_and_never_below_zero(clip: ModelFiles) -> None:
    images, prompts = pictures(6), ["an apple", "boat", "a cat on the mat", "x", "zebra", "dog"]
    model, processor = CLIPModel.from_pretrained(clip.name).eval(), CLIPProcessor.from_pretrained(clip.name)
    with torch.no_grad():
        output = model(**processor(text=prompts, images=images, return_tensors="pt", padding=True))
    cosines = (output.image_embeds * output.text_embeds).sum(dim=1)
    assert (cosines < 0).any(), "a cosine below zero, or the clamp would go untested"
    assert clip_scores(images, prompts, Clip(clip)) == pytest.approx((100 * cosines).clamp(min=0).tolist(), abs=1e-3)


def test_a_score_does_not_depend_on_the_batch_it_is_computed_in(clip: ModelFiles) -> None:
    images, prompts = pictures(35), [letter * (1 + number % 7) for number, letter in enumerate(LETTERS + LETTERS[:9])]
    loaded = Clip(clip)
    whole = clip_scores(images, prompts, loaded)
    assert len(whole) == 35
    assert [clip_scores([images[i]], [prompts[i]], loaded)[0] for i in (0, 33)] == pytest.approx(
        [whole[0], whole[33]], abs=1e-3
    )


def test_a_prompt_longer_than_the_text_encoder_reads_is_cut(clip: ModelFiles) -> None:
    assert len(clip_scores(pictures(1), ["a very long prompt " * 20], Clip(clip))) == 1


def test_embeddings_are_those_of_the_model_at_length_1_in_the_order_of_any_number_of_images(clip: ModelFiles) -> None:
    images = pictures(35)
    model, processor = CLIPModel.from_pretrained(clip.name).eval(), CLIPProcessor.from_pretrained(clip.name)
    with torch.no_grad():
        expected = model(**processor(text=["a"], images=images, return_tensors="pt")).image_embeds.numpy()
    found = clip_embeddings(iter(images), Clip(clip))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_a_folder_without_a_clip_is_named_with_its_setting(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="MODEL_CLIP"):
        Clip(ModelFiles("MODEL_CLIP", str(tmp_path), {"local_files_only": True}))
