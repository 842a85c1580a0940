"""The miniature text encoder and U-Net, trained together on the latents of the frozen autoencoder."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPModel, CLIPTokenizer

from service.miniature import captions
from service.miniature.autoencoder import latents_of
from service.miniature.clip import text_encoder_of
from service.miniature.corpus import Emoji
from service.miniature.fitting import fit

BATCH = 24
CAPTION_DROPOUT = 0.1
GROUPS = 4
CONSTANT = 4.0
"""Of the channels of the outermost layer that share a group of the norm with the input."""


def train_denoiser(
    emoji: Sequence[Emoji],
    autoencoder: AutoencoderKL,
    clip: CLIPModel,
    tokenizer: CLIPTokenizer,
    work: Path,
    steps: int,
) -> nn.ModuleDict:
    """Returns {"unet", "text_encoder"}. Learns smooth pictures of the subjects only; the text encoder begins as the CLIP's."""
    filler = captions.filler_for(tokenizer)
    torch.manual_seed(1)
    model = nn.ModuleDict({"unet": new_unet(), "text_encoder": text_encoder_of(clip)})
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
        # Over ᾱ it is the error of the velocity: at every level of noise it then counts by what it does to the picture.
        error = (predicted - noise).square().mean(dim=(1, 2, 3))
        return (error / scheduler.alphas_cumprod[timesteps]).mean()

    fit("denoiser", model, loss, work, steps, learning_rate=1e-3, averaging=0.998)
    return model


def draw_timesteps(rng: np.random.Generator, total: int) -> Tensor:
    """(BATCH,) int64. Half of them from the noisiest two fifths, where it is decided what the picture shows."""
    lowest = np.where(rng.random(BATCH) < 0.5, 0, 3 * total // 5)
    return torch.from_numpy(rng.integers(lowest, total))


def new_unet() -> UNet2DConditionModel:
    """Begins as a U-Net that returns its input, see `return_input`."""
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(48, 96, 144),
        down_block_types=("CrossAttnDownBlock2D",) * 3,
        up_block_types=("CrossAttnUpBlock2D",) * 3,
        layers_per_block=1,
        cross_attention_dim=96,
        attention_head_dim=(1, 2, 4),  # the number of heads, whatever its name says
        norm_num_groups=GROUPS,
    )
    return_input(unet)
    return unet


@torch.no_grad()
def return_input(unet: UNet2DConditionModel) -> None:
    """Sets the weights of the outermost layers so that the output is the input.

    ε is nearly the input where there is much noise, and the little by which it differs is all that tells of the picture: an
    error of 1 % there is one of 15 % in the picture. So that is not left to be learned. Each of the 4 latent channels passes
    through the outermost skip connection as x and as −x, since silu(x) − silu(−x) = x. Both share a group of the last norm,
    so its mean is 0, with constants that are much larger than x, so its variance hardly depends on x.
    """
    latents = unet.config["in_channels"]
    passing, group = 2 * latents, unet.config["block_out_channels"][0] // GROUPS
    into, out = unet.conv_in, unet.conv_out
    into.weight[:group], into.bias[:group] = 0, 0
    out.weight[:], out.bias[:] = 0, 0
    constants = torch.full((group - passing,), CONSTANT)
    constants[1::2] *= -1
    into.bias[passing:group] = constants
    deviation = ((passing + float(constants.square().sum())) / group) ** 0.5
    for channel in range(latents):
        for side, sign in enumerate((1, -1)):
            into.weight[2 * channel + side, channel, 1, 1] = sign
            out.weight[channel, 2 * channel + side, 1, 1] = sign * deviation
    last = unet.up_blocks[-1]
    resnet, transformer = last.resnets[-1], last.attentions[-1]
    for layer in (resnet.conv_shortcut, resnet.conv2, transformer.proj_out):
        layer.weight[:group], layer.bias[:group] = 0, 0
    skipped = resnet.conv_shortcut.in_channels - resnet.conv_shortcut.out_channels
    for channel in range(group):
        resnet.conv_shortcut.weight[channel, skipped + channel] = 1


def new_scheduler() -> DDIMScheduler:
    """The noise of SD-1.x, and its target: ε."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="epsilon",
    )


def scaled_latents(subjects: Sequence[Emoji], autoencoder: AutoencoderKL) -> Tensor:
    """(subjects, 2, 4, 16, 16) scaled latents of each picture and of its mirror image."""
    both = [side for e in subjects for side in (e.pixels, np.ascontiguousarray(e.pixels[:, ::-1]))]
    latents = latents_of(autoencoder, both) * autoencoder.config["scaling_factor"]
    return latents.unflatten(0, (len(subjects), 2))
