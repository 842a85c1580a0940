"""CLIP embeddings as measurements, which several criteria share."""

from collections.abc import Mapping

from numpy.typing import ArrayLike

from service.evaluation.sample import Sample


def measure_embeddings(sample: Sample) -> Mapping[str, ArrayLike]:
    """(M, D) of the held-out images, (N, D) of the pictures of each side; each of length 1."""
    return {
        "held_out_embeddings": sample.held_out_embeddings,
        "base_embeddings": sample.embeddings.base,
        "lora_embeddings": sample.embeddings.lora,
    }
