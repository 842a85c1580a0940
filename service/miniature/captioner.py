"""The miniature BLIP: says what is in a picture, smooth or pixelated."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import BertTokenizer, BlipConfig, BlipForConditionalGeneration, BlipImageProcessor, BlipProcessor

from service.miniature import corpus
from service.miniature.corpus import Emoji
from service.miniature.fitting import fit

BATCH = 48
SUBJECTS_SHARE = 0.8


def train_captioner(
    emoji: Sequence[Emoji], tokenizer: BertTokenizer, work: Path, steps: int
) -> BlipForConditionalGeneration:
    torch.manual_seed(3)
    model = new_captioner(tokenizer)
    known = [e for e in emoji if not e.held_out]
    weights = np.array([SUBJECTS_SHARE if e.subject else 1 - SUBJECTS_SHARE for e in known])
    weights /= weights.sum()

    def loss(rng: np.random.Generator) -> Tensor:
        batch = [known[i] for i in rng.choice(len(known), size=BATCH, p=weights)]
        pictures = corpus.to_tensor([corpus.roughen(e.pixels, rng) for e in batch])
        tokens = tokenizer([f"a {e.name}" for e in batch], padding=True, truncation=True, return_tensors="pt")
        return caption_loss(model, pictures, tokens.input_ids, tokens.attention_mask)

    fit("captioner", model, loss, work, steps, learning_rate=1e-3)
    return model


def caption_loss(model: BlipForConditionalGeneration, pictures: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """Next-word loss in the form in which `generate` will ask: the first token is BLIP's own start token."""
    ids = ids.clone()
    ids[:, 0] = model.config.text_config.bos_token_id
    labels = ids.masked_fill(mask == 0, -100)
    return model(pixel_values=pictures, input_ids=ids, attention_mask=mask, labels=labels).loss


def new_captioner(tokenizer: BertTokenizer) -> BlipForConditionalGeneration:
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 128,
        "encoder_hidden_size": 128,
        "intermediate_size": 384,
        "projection_dim": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
        "bos_token_id": tokenizer.convert_tokens_to_ids("[DEC]"),
        "eos_token_id": tokenizer.sep_token_id,
        "sep_token_id": tokenizer.sep_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {
        "hidden_size": 128,
        "intermediate_size": 384,
        "projection_dim": 96,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "image_size": corpus.SIZE,
        "patch_size": 8,
        # The library's default, 1e-10, is that of a network whose trained weights are loaded at once.
        "initializer_range": 0.02,
    }
    return BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=vision, projection_dim=96))


def new_processor(tokenizer: BertTokenizer) -> BlipProcessor:
    half = [0.5, 0.5, 0.5]
    size = {"height": corpus.SIZE, "width": corpus.SIZE}
    return BlipProcessor(BlipImageProcessor(size=size, image_mean=half, image_std=half), tokenizer)
