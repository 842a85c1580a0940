"""Prompts → token ids → the text encoder's states, which the U-Net attends to."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import CLIPTextModel, PreTrainedTokenizerBase

STATES = "encoder_hidden_states"
"""The one tensor of a condition, (L, D) float32, under the name that the U-Net has for it."""
TOKENS = "input_ids"
"""The one tensor of a condition where the text encoder learns too, (L,) int64."""


def tokenize_prompt(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> Tensor:
    """Returns (B, 77) int64: padded to the tokenizer's limit and cut there, as the pipeline does when it draws."""
    tokens = tokenizer(
        list(prompts), padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
    )
    return tokens.input_ids


@torch.no_grad()
def encode_prompt(text_encoder: CLIPTextModel, input_ids: Tensor) -> Tensor:
    """input_ids: (B, L) int64; returns the last hidden state, (B, L, D) in the encoder's precision."""
    return text_encoder(input_ids.to(text_encoder.device))[0]
