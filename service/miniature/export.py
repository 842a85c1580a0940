"""Writes the trained family as the folders that `from_pretrained` loads, with its samples and its model card."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from PIL import Image
from torch import nn
from transformers import (
    BertTokenizer,
    BlipForConditionalGeneration,
    BlipProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTokenizer,
)

from service import miniature
from service.miniature import captioner as captioner_part
from service.miniature import clip as clip_part
from service.miniature import corpus
from service.miniature.corpus import Emoji
from service.miniature.denoiser import new_scheduler
from service.miniature.measure import PLAIN, STYLE_PHRASE, UNSEEN, Figures

SAMPLE_COLOURS = 16
SHEET_COLUMNS = 24
CARD = Path(__file__).with_name("README.md")
SHEET = Path(__file__).with_name("sheet.png")


def export(
    emoji: Sequence[Emoji],
    vae: AutoencoderKL,
    parts: nn.ModuleDict,
    clip: CLIPModel,
    captioner: BlipForConditionalGeneration,
    clip_words: CLIPTokenizer,
    bert_words: BertTokenizer,
) -> None:
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=parts["text_encoder"],
        tokenizer=clip_words,
        unet=parts["unet"],
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    folders = (miniature.STABLE_DIFFUSION, miniature.CAPTIONER, miniature.CLIP)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    pipeline.to(torch.float16).save_pretrained(miniature.STABLE_DIFFUSION)
    for model, processor, folder in (
        (captioner, captioner_part.new_processor(bert_words), miniature.CAPTIONER),
        (clip, clip_part.new_processor(clip_words), miniature.CLIP),
    ):
        model.to(torch.float16).save_pretrained(folder)
        processor.save_pretrained(folder)
    for tokenizer in miniature.STABLE_DIFFUSION.parent.rglob("tokenizer.json"):
        compact(tokenizer)
    revisions = {folder.name: miniature.content_revision(folder) for folder in folders}
    miniature.REVISIONS.write_text(json.dumps(revisions, indent=2) + "\n", encoding="utf-8")
    write_samples(emoji, miniature.SAMPLES)


def compact(path: Path) -> None:
    """Takes the white space out of a JSON file: a vocabulary written with it takes twice the room."""
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")


def load_family() -> tuple[
    StableDiffusionPipeline, tuple[BlipForConditionalGeneration, BlipProcessor], tuple[CLIPModel, CLIPProcessor]
]:
    """The family as a user loads it: the figures are those of the published half-precision weights."""
    pipeline = StableDiffusionPipeline.from_pretrained(miniature.STABLE_DIFFUSION, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    captioner = BlipForConditionalGeneration.from_pretrained(miniature.CAPTIONER, dtype=torch.float32)
    clip = CLIPModel.from_pretrained(miniature.CLIP, dtype=torch.float32)
    return (
        pipeline,
        (captioner, BlipProcessor.from_pretrained(miniature.CAPTIONER)),
        (clip, CLIPProcessor.from_pretrained(miniature.CLIP)),
    )


def write_samples(emoji: Sequence[Emoji], folder: Path) -> None:
    """Some of the subjects in 8-bit style, the material of the demo; the denoiser never saw them so."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for subject in (e for e in emoji if e.sample):
        picture = Image.fromarray(corpus.pixelate(subject.pixels, colours=SAMPLE_COLOURS))
        picture.save(folder / f"{subject.key}.png", optimize=True)


def write_sheet(pictures: np.ndarray, path: Path) -> None:
    """(N, 64, 64, 3) uint8 side by side, SHEET_COLUMNS in a row."""
    rows = -(-len(pictures) // SHEET_COLUMNS)
    sheet = Image.new("RGB", (SHEET_COLUMNS * corpus.SIZE, rows * corpus.SIZE), "white")
    for number, picture in enumerate(pictures):
        place = (number % SHEET_COLUMNS * corpus.SIZE, number // SHEET_COLUMNS * corpus.SIZE)
        sheet.paste(Image.fromarray(picture), place)
    sheet.save(path, optimize=True)


def write_card(figures: Figures) -> None:
    """Puts the figures between the marks in the model card."""
    rows = [
        ("Autoencoder, PSNR on held-out emoji, smooth", f"{figures.psnr_smooth:.1f} dB"),
        ("Autoencoder, PSNR on held-out emoji, pixelated to 16×16", f"{figures.psnr_pixelated:.1f} dB"),
        ("Captioner, caption has the head noun, smooth subjects", f"{figures.captioned_smooth:.0%}"),
        ("Captioner, caption has the head noun, pixelated subjects", f"{figures.captioned_pixelated:.0%}"),
        ("Of the wrong pictures, taken for the same subject", f"{figures.mistaken:.1%}"),
    ]
    table = ["| What | Figure |", "|---|---|", *(f"| {what} | {figure} |" for what, figure in rows)]
    table += ["", "| Prompt | Right by CLIP | Right by EfficientNet | Block edges |", "|---|---|---|---|"]
    for wording in (PLAIN, STYLE_PHRASE, *UNSEEN):
        ranking = figures.rankings[wording]
        prompt = wording.format("…")
        table.append(f"| {prompt} | {ranking.by_clip:.1%} | {ranking.by_efficientnet:.1%} | {ranking.edges:.2f} |")
    before, _, rest = CARD.read_text(encoding="utf-8").partition("<!-- figures -->")
    _, _, after = rest.partition("<!-- end of figures -->")
    text = "\n".join(table)
    CARD.write_text(f"{before}<!-- figures -->\n{text}\n<!-- end of figures -->{after}", encoding="utf-8")
