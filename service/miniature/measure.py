"""The figures of the miniature's model card, on emoji that training never saw where that is the question."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from PIL import Image
from torch import Tensor
from transformers import BlipForConditionalGeneration, BlipProcessor, CLIPModel, CLIPProcessor

from service.miniature import corpus
from service.miniature.corpus import Emoji
from service.miniature.drawing import SEEDS, draw
from service.miniature.judging import EfficientNetJudge, block_edges, clip_similarity, ranked_first

PLAIN = "a {}"
STYLE_PHRASE = "8-bit illustration, a {}"
UNSEEN = (
    "watercolour painting of a {}",
    "a photo of my {}",
    "zxq style, a {}",
    "oil on canvas, a {}",
    "a {}, pencil sketch, award winning",
    "pixel art of one {}",
    "vaporwave aesthetic a {}",
    "minimalist vector logo showing a {} from the side",
    "children's book illustration of a {} by an unknown master",
    "this morning we walked slowly through the old town and then, quite by surprise, saw a detailed drawing of a {} on a wall",
)
"""Phrases around the subject that no caption of training has: each of them has a word of style or one that is no word."""


@dataclass(frozen=True)
class Ranking:
    """Of the pictures of one wording: shares, 0 to 1, judged right, and their `block_edges`."""

    by_clip: float
    by_efficientnet: float
    edges: float


@dataclass(frozen=True)
class Figures:
    """psnr in dB on held-out emoji; `captioned` and `mistaken` are shares, 0 to 1; `rankings` by wording, {} for the subject.

    `mistaken`: of all the pictures that EfficientNet judges wrong, those that it takes for the same, most frequent subject.
    """

    psnr_smooth: float
    psnr_pixelated: float
    captioned_smooth: float
    captioned_pixelated: float
    rankings: dict[str, Ranking]
    mistaken: float


@torch.no_grad()
def reconstruction_psnr(model: AutoencoderKL, pictures: Sequence[np.ndarray]) -> float:
    """Mean over the pictures of the peak signal-to-noise ratio in dB after encoding and decoding."""
    batch = corpus.to_tensor(pictures)
    drawn = model.decode(model.encode(batch).latent_dist.mode()).sample.clamp(-1, 1)
    error = (drawn - batch).square().mean(dim=(1, 2, 3)) / 4
    return float((-10 * error.log10()).mean())


@torch.no_grad()
def captions_of(
    model: BlipForConditionalGeneration, processor: BlipProcessor, pictures: Sequence[np.ndarray]
) -> list[str]:
    inputs = processor(images=[Image.fromarray(picture) for picture in pictures], return_tensors="pt")
    tokens = model.generate(**inputs, do_sample=False, num_beams=3, max_new_tokens=12)
    return [text.strip() for text in processor.batch_decode(tokens, skip_special_tokens=True)]


def named(captions: Sequence[str], subjects: Sequence[Emoji]) -> float:
    """Share of the captions that contain the head noun of their subject, the last word of its name."""
    hits = [e.name.split()[-1] in caption.split() for caption, e in zip(captions, subjects, strict=True)]
    return float(np.mean(hits))


def most_frequent_mistake(similarity: Tensor, wrong: np.ndarray, right: Sequence[int]) -> tuple[int, float]:
    """The subject that the most of the `wrong` pictures are most similar to, and its share of them, 0 to 1."""
    others = similarity[torch.from_numpy(wrong)].clone()
    others[range(len(others)), np.asarray(right)[wrong]] = -torch.inf
    counts = Counter(others.argmax(dim=1).tolist())
    if not counts:
        return -1, 0.0
    subject, count = counts.most_common(1)[0]
    return subject, count / len(others)


def seeds_of(wording: str) -> int:
    """How many pictures of each subject are drawn with it."""
    return SEEDS if wording in (PLAIN, STYLE_PHRASE) else 1


def measure(
    emoji: Sequence[Emoji],
    pipeline: StableDiffusionPipeline,
    captioner: tuple[BlipForConditionalGeneration, BlipProcessor],
    clip: tuple[CLIPModel, CLIPProcessor],
    work: Path,
) -> tuple[Figures, np.ndarray]:
    """All figures, and one picture of each subject. What was drawn is kept in `work` and not drawn again after a kill."""
    held_out = [e.pixels for e in emoji if e.held_out]
    subjects = [e for e in emoji if e.subject]
    judge = EfficientNetJudge(subjects)
    rankings, similarities, wrong, of, sheet = {}, [], [], [], []
    for wording in (PLAIN, STYLE_PHRASE, *UNSEEN):
        seeds = seeds_of(wording)
        pictures = draw(pipeline, subjects, wording, work, seeds)
        right = [index for index in range(len(subjects)) for _ in range(seeds)]
        of += right
        sheet.append(pictures[::seeds])
        by_clip = ranked_first(clip_similarity(*clip, pictures, subjects), right)
        similarities.append(judge.similarity(pictures))
        wrong.append(~ranked_first(similarities[-1], right))
        rankings[wording] = Ranking(float(by_clip.mean()), float(1 - wrong[-1].mean()), block_edges(pictures))
    _, mistaken = most_frequent_mistake(torch.cat(similarities), np.concatenate(wrong), of)
    figures = Figures(
        psnr_smooth=reconstruction_psnr(pipeline.vae, held_out),
        psnr_pixelated=reconstruction_psnr(pipeline.vae, [corpus.pixelate(p) for p in held_out]),
        captioned_smooth=named(captions_of(*captioner, [e.pixels for e in subjects]), subjects),
        captioned_pixelated=named(captions_of(*captioner, [corpus.pixelate(e.pixels) for e in subjects]), subjects),
        rankings=rankings,
        mistaken=mistaken,
    )
    return figures, sheet[0]
