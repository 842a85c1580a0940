"""What the frozen models say of the data set, computed once: the training step is then the U-Net alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from service.diffusion.components import Components
from service.diffusion.images import CaptionedImage
from service.diffusion.latents import encode_images
from service.diffusion.prompts import encode_prompt, tokenize_prompt
from service.logs import progress
from service.training.randomness import Draw

ENCODED_AT_ONCE = 4


@dataclass(frozen=True)
class EncodedDataset:
    """Posteriors and prompt states of N images.

    mean, deviation: (2, N, C, H, W) float32, scaled; the second orientation is the mirrored image.
    prompt_states: (P, L, D) float32, the last of them for the empty prompt; caption_of: (N,) indices into them.
    """

    names: list[str]
    mean: Tensor
    deviation: Tensor
    prompt_states: Tensor
    caption_of: list[int]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """(C, H, W) of one image."""
        return tuple(self.mean.shape[2:])

    def latents(self, indices: Sequence[int], draws: Sequence[Draw]) -> Tensor:
        """(B, C, H, W) float32: samples of the posteriors with the noise and the orientation of `draws`."""
        return torch.stack(
            [
                self.mean[int(draw.flip), index] + self.deviation[int(draw.flip), index] * draw.posterior_noise
                for index, draw in zip(indices, draws, strict=True)
            ]
        )

    def states(self, indices: Sequence[int], draws: Sequence[Draw]) -> Tensor:
        """(B, L, D) float32: the states of the captions, of the empty prompt where the caption is dropped."""
        empty = len(self.prompt_states) - 1
        rows = [
            empty if draw.drop_caption else self.caption_of[index] for index, draw in zip(indices, draws, strict=True)
        ]
        return self.prompt_states[rows]


def encode_dataset(images: Sequence[CaptionedImage], parts: Components, resolution: int) -> EncodedDataset:
    """Runs the autoencoder over every image in both orientations and the text encoder over every caption."""
    groups = [images[i : i + ENCODED_AT_ONCE] for i in range(0, len(images), ENCODED_AT_ONCE)]
    means: list[list[Tensor]] = [[], []]
    deviations: list[list[Tensor]] = [[], []]
    for group in progress(groups, "encoding images", len(groups)):
        for orientation in (0, 1):
            mean, deviation = encode_images(parts.vae, group, resolution, mirrored=bool(orientation))
            means[orientation].append(mean)
            deviations[orientation].append(deviation)
    captions = sorted({image.caption for image in images})
    states = [encode_prompt(parts.text_encoder, tokenize_prompt(parts.tokenizer, [text])) for text in [*captions, ""]]
    scale = parts.vae.config["scaling_factor"]
    return EncodedDataset(
        names=[image.name for image in images],
        mean=torch.stack([torch.cat(rows) for rows in means]) * scale,
        deviation=torch.stack([torch.cat(rows) for rows in deviations]) * scale,
        prompt_states=torch.cat(states).float().cpu(),
        caption_of=[captions.index(image.caption) for image in images],
    )
