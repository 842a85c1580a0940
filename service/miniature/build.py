"""Trains the miniature family and writes it where the package looks for it.

    npm pack emoji-datasource-google@16.0.0
    python -m service.miniature.build --package emoji-datasource-google-16.0.0.tgz all

Every part is checkpointed in the work folder and resumes. The parts may also run side by side, each by its name; the
denoiser needs the finished autoencoder and the CLIP, `export` needs all of them. An edition may go on from the one before:
with `--stable-diffusion FOLDER` that one's autoencoder is kept and its U-Net learns on.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import BlipForConditionalGeneration, CLIPModel

from service.miniature.autoencoder import train_autoencoder
from service.miniature.captioner import train_captioner
from service.miniature.clip import train_clip
from service.miniature.corpus import Emoji, read_corpus
from service.miniature.denoiser import train_denoiser
from service.miniature.export import SHEET, export, load_family, write_card, write_sheet
from service.miniature.measure import measure
from service.miniature.vocabulary import bert_tokenizer, clip_tokenizer

STEPS = {"autoencoder": 2600, "clip": 1500, "denoiser": 3000, "captioner": 3500}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=[*STEPS, "export", "measure", "all"])
    parser.add_argument(
        "--package", type=Path, required=True, help="the npm archive emoji-datasource-google-16.0.0.tgz"
    )
    parser.add_argument("--work", type=Path, default=Path("build/miniature"), help="folder of the checkpoints")
    parser.add_argument("--stable-diffusion", type=Path, help="folder of the edition whose autoencoder and U-Net go on")
    parser.add_argument("--steps", type=int, help="steps of this part instead of the default")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.work.mkdir(parents=True, exist_ok=True)
    steps = STEPS | ({arguments.part: arguments.steps} if arguments.steps else {})
    build(arguments.part, read_corpus(arguments.package), arguments.work, steps, arguments.stable_diffusion)


def build(part: str, emoji: list[Emoji], work: Path, steps: dict[str, int], before: Path | None) -> None:
    names = [e.name for e in emoji]
    clip_words, bert_words = clip_tokenizer(names), bert_tokenizer(names)

    def autoencoder() -> AutoencoderKL:
        if before:
            return AutoencoderKL.from_pretrained(before, subfolder="vae", torch_dtype=torch.float32)
        return train_autoencoder(emoji, work, steps["autoencoder"])

    def clip() -> CLIPModel:
        return train_clip(emoji, clip_words, work, steps["clip"])

    def denoiser() -> nn.ModuleDict:
        unet = before and UNet2DConditionModel.from_pretrained(before, subfolder="unet", torch_dtype=torch.float32)
        return train_denoiser(emoji, autoencoder(), clip(), clip_words, work, steps["denoiser"], unet)

    def captioner() -> BlipForConditionalGeneration:
        return train_captioner(emoji, bert_words, work, steps["captioner"])

    parts: dict[str, Callable[[], nn.Module]] = {
        "autoencoder": autoencoder,
        "clip": clip,
        "denoiser": denoiser,
        "captioner": captioner,
    }
    if part in parts:
        parts[part]()
    if part in ("export", "all"):
        export(emoji, autoencoder(), denoiser(), clip(), captioner(), clip_words, bert_words)
    if part in ("measure", "all"):
        figures, pictures = measure(emoji, *load_family(), work)
        write_card(figures)
        write_sheet(pictures, SHEET)


if __name__ == "__main__":
    main()
