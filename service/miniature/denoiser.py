"""The miniature text encoder and U-Net, trained together on the latents of the frozen autoencoder."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPModel, CLIPTokenizer

from service.miniature import captions
from service.miniature.autoencoder import latents_of
from service.miniature.clip import text_encoder_of
from service.miniature.corpus import Emoji
from service.miniature.fitting import fit

BATCH = 24
CAPTION_DROPOUT = 0.1
LEARNING_RATE = 8e-4


def train_denoiser(
    emoji: Sequence[Emoji],
    autoencoder: AutoencoderKL,
    clip: CLIPModel,
    tokenizer: CLIPTokenizer,
    work: Path,
    steps: int,
    unet: UNet2DConditionModel | None = None,
) -> nn.ModuleDict:
    """Returns {"unet", "text_encoder"}. Learns smooth pictures of the subjects only.

    The text encoder begins as the CLIP's, the U-Net as the given one, which has learned from the same latents, or as a new one.
    """
    filler = captions.filler_for(tokenizer)
    torch.manual_seed(1)
    model = nn.ModuleDict({"unet": unet or new_unet(), "text_encoder": text_encoder_of(clip)})
    scheduler = new_scheduler()
    subjects = [e for e in emoji if e.subject]
    latents = scaled_latents(subjects, autoencoder)

    def loss(rng: np.random.Generator) -> Tensor:
        which = rng.integers(len(subjects), size=BATCH)
        clean = latents[which, rng.integers(2, size=BATCH)]
        texts = [
            "" if rng.random() < CAPTION_DROPOUT else captions.caption(subjects[i].name, rng, filler) for i in which
        ]
        tokens = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
        noise = torch.randn_like(clean)
        timesteps = draw_timesteps(rng, scheduler.config["num_train_timesteps"])
        states = model["text_encoder"](tokens)[0]
        predicted = model["unet"](scheduler.add_noise(clean, noise, timesteps), timesteps, states).sample
        return F.mse_loss(predicted, scheduler.get_velocity(clean, noise, timesteps))

    fit("denoiser", model, loss, work, steps, learning_rate=LEARNING_RATE, averaging=0.998)
    return model


def draw_timesteps(rng: np.random.Generator, total: int) -> Tensor:
    """(BATCH,) int64. Half of them from the noisiest two fifths, where it is decided what the picture shows."""
    lowest = np.where(rng.random(BATCH) < 0.5, 0, 3 * total // 5)
    return torch.from_numpy(rng.integers(lowest, total))


def new_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(48, 96, 144),
        down_block_types=("CrossAttnDownBlock2D",) * 3,
        up_block_types=("CrossAttnUpBlock2D",) * 3,
        layers_per_block=1,
        cross_attention_dim=96,
        attention_head_dim=4,  # the number of heads, whatever its name says
        norm_num_groups=16,
    )


def new_scheduler() -> DDIMScheduler:
    """The noise of SD-1.x, with the velocity as target: its error counts by what it does to the picture, whatever the noise."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction",
    )


def scaled_latents(subjects: Sequence[Emoji], autoencoder: AutoencoderKL) -> Tensor:
    """(subjects, 2, 4, 16, 16) scaled latents of each picture and of its mirror image."""
    both = [side for e in subjects for side in (e.pixels, np.ascontiguousarray(e.pixels[:, ::-1]))]
    latents = latents_of(autoencoder, both) * autoencoder.config["scaling_factor"]
    return latents.unflatten(0, (len(subjects), 2))
