"""The miniature CLIP: which picture belongs to which words."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTextModel, CLIPTokenizer

from service.miniature import captions, corpus
from service.miniature.corpus import Emoji
from service.miniature.fitting import fit

BATCH = 64
SUBJECTS_SHARE = 0.7


def train_clip(emoji: Sequence[Emoji], tokenizer: CLIPTokenizer, work: Path, steps: int) -> CLIPModel:
    """Contrastive, smooth and pixelated alike: a judge of *what* is drawn must not fall for *how* it is drawn."""
    filler = captions.filler_for(tokenizer)
    torch.manual_seed(2)
    model = new_clip(tokenizer)
    known = [e for e in emoji if not e.held_out]
    weights = np.array([SUBJECTS_SHARE if e.subject else 1 - SUBJECTS_SHARE for e in known])
    weights /= weights.sum()

    def loss(rng: np.random.Generator) -> Tensor:
        batch = [known[i] for i in rng.choice(len(known), size=BATCH, replace=False, p=weights)]
        pictures = corpus.to_tensor([corpus.roughen(e.pixels, rng) for e in batch])
        texts = [captions.caption(e.name, rng, filler) for e in batch]
        tokens = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        return model(pixel_values=pictures, return_loss=True, **tokens).loss

    fit("clip", model, loss, work, steps, learning_rate=1e-3)
    return model


def new_clip(tokenizer: CLIPTokenizer) -> CLIPModel:
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 96,
        "intermediate_size": 384,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 77,
        "projection_dim": 96,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {
        "image_size": corpus.SIZE,
        "patch_size": 8,
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "projection_dim": 96,
    }
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=96))


def text_encoder_of(clip: CLIPModel) -> CLIPTextModel:
    """A text encoder with the weights of the CLIP's, as that of SD-1.x has those of OpenAI's."""
    encoder = CLIPTextModel(clip.config.text_config)
    encoder.load_state_dict(clip.text_model.state_dict())
    return encoder


def new_processor(tokenizer: CLIPTokenizer) -> CLIPProcessor:
    half = [0.5, 0.5, 0.5]
    size = {"height": corpus.SIZE, "width": corpus.SIZE}
    images = CLIPImageProcessor(size=size, do_center_crop=False, image_mean=half, image_std=half)
    return CLIPProcessor(images, tokenizer)
