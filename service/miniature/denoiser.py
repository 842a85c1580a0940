"""The miniature text encoder and U-Net, trained together on the latents of the frozen autoencoder."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from service.miniature import corpus
from service.miniature.corpus import Emoji
from service.miniature.fitting import fit
from service.miniature.vocabulary import inner_pieces

BATCH = 24
CAPTION_DROPOUT = 0.1


def train_denoiser(
    emoji: Sequence[Emoji], autoencoder: AutoencoderKL, tokenizer: CLIPTokenizer, work: Path, steps: int
) -> nn.ModuleDict:
    """Returns {"unet", "text_encoder"}. Learns smooth pictures of the subjects only."""
    pieces = inner_pieces(tokenizer)
    torch.manual_seed(1)
    model = nn.ModuleDict({"unet": new_unet(), "text_encoder": new_text_encoder(tokenizer)})
    scheduler = new_scheduler()
    subjects = [e for e in emoji if e.drawn]
    latents = latents_of(subjects, autoencoder)

    def loss(rng: np.random.Generator) -> Tensor:
        which = rng.integers(len(subjects), size=BATCH)
        clean = latents[which, rng.integers(2, size=BATCH)]
        captions = [
            "" if rng.random() < CAPTION_DROPOUT else corpus.caption(subjects[i].name, rng, pieces) for i in which
        ]
        tokens = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
        noise = torch.randn_like(clean)
        timesteps = torch.from_numpy(rng.integers(scheduler.config["num_train_timesteps"], size=BATCH))
        states = model["text_encoder"](tokens)[0]
        predicted = model["unet"](scheduler.add_noise(clean, noise, timesteps), timesteps, states).sample
        return F.mse_loss(predicted, scheduler.get_velocity(clean, noise, timesteps))

    fit("denoiser", model, loss, work, steps, learning_rate=1e-3, averaging=0.995)
    return model


def new_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(48, 96, 144),
        down_block_types=("CrossAttnDownBlock2D",) * 3,
        up_block_types=("CrossAttnUpBlock2D",) * 3,
        layers_per_block=1,
        cross_attention_dim=96,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def new_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=96,
            intermediate_size=384,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=77,
            projection_dim=96,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def new_scheduler() -> DDIMScheduler:
    """The noise of SD-1.x, with the velocity as target: predicting ε, an error at high noise is enlarged fifteenfold in the
    picture, and so small a model in so short a time draws the right shapes in the wrong colours.
    """
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction",
    )


@torch.no_grad()
def latents_of(subjects: Sequence[Emoji], autoencoder: AutoencoderKL) -> Tensor:
    """(subjects, 2, 4, 16, 16) scaled latents of each picture and of its mirror image."""
    rows = []
    for subject in subjects:
        pictures = corpus.to_tensor([subject.pixels, np.ascontiguousarray(subject.pixels[:, ::-1])])
        rows.append(autoencoder.encode(pictures).latent_dist.mean * autoencoder.config["scaling_factor"])
    return torch.stack(rows)
