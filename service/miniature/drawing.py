"""The pictures that the miniature is judged by, drawn once and kept in the work folder."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import structlog
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import save

from service.miniature.corpus import Emoji

SEEDS = 4
SUBJECTS_AT_ONCE = 6
DRAWING = {"num_inference_steps": 10, "guidance_scale": 4.0}

log = structlog.get_logger(__name__)


def draw(
    pipeline: StableDiffusionPipeline, subjects: Sequence[Emoji], wording: str, work: Path, seeds: int = SEEDS
) -> np.ndarray:
    """(subjects · seeds, 64, 64, 3) uint8, subject by subject; `wording` has {} for the name of the subject.

    What was drawn is kept under the digest of the models, so a killed measurement goes on, and one of other models begins anew.
    """
    folder = work / "drawn" / model_digest(pipeline) / hashlib.sha256(wording.encode()).hexdigest()[:8]
    folder.mkdir(parents=True, exist_ok=True)
    batches = []
    for start in range(0, len(subjects), SUBJECTS_AT_ONCE):
        chosen = subjects[start : start + SUBJECTS_AT_ONCE]
        path = folder / f"{seeds}-{chosen[0].key}.npy"
        if not path.exists():
            prompts = [wording.format(e.name) for e in chosen for _ in range(seeds)]
            generators = [torch.Generator().manual_seed(seed) for _ in chosen for seed in range(seeds)]
            pictures = pipeline(prompts, generator=generators, output_type="np", **DRAWING).images
            np.save(path.with_suffix(".tmp.npy"), np.round(pictures * 255).astype(np.uint8))
            os.replace(path.with_suffix(".tmp.npy"), path)
        batches.append(np.load(path))
    log.info("drawn", wording=wording, pictures=sum(map(len, batches)))
    return np.concatenate(batches)


def model_digest(pipeline: StableDiffusionPipeline) -> str:
    """Tells one state of the weights from another."""
    digest = hashlib.sha256()
    for part in (pipeline.unet, pipeline.text_encoder, pipeline.vae):
        digest.update(save({name: value.contiguous() for name, value in part.state_dict().items()}))
    return digest.hexdigest()[:12]
