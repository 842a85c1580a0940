"""At which strength a LoRA is judged: half of the prompts choose it, and the other half, which had no say in it, decides.

Whoever tries many and judges the best by what made it the best promotes luck: of 12 LoRAs that do nothing, one looks good.
"""

import hashlib
from collections.abc import Sequence

from service.artifacts.kinds.measurements import Candidate
from service.exits import BadData

FEWEST = 2
"""Prompts of a half: an interval needs as many."""


def halves(prompts: Sequence[str]) -> tuple[list[str], list[str]]:
    """The prompts that choose, and those that decide, each in the order of before.

    By the hash of the prompt, so that no order and no seed tells on which side one is. Raises BadData for fewer than 4.
    """
    if len(set(prompts)) < 2 * FEWEST:
        raise BadData(
            f"EVALUATE_SCALES names several strengths, and half of the prompts choose one: {2 * FEWEST} different captions of "
            f"held-out images are needed and there are {len(set(prompts))}; hold out more images, or name one strength"
        )
    ranked = sorted(set(prompts), key=lambda prompt: hashlib.sha256(prompt.encode()).digest())
    choosing = set(ranked[: len(ranked) // 2])
    return [one for one in prompts if one in choosing], [one for one in prompts if one not in choosing]


def chosen(candidates: Sequence[Candidate], adherence_needed: float) -> Candidate:
    """The candidate nearest to the style among those that follow the prompts; where none does, the one that follows most.

    adherence_needed: CLIPScore that must be reached. Of equals the one that was named first.
    """
    faithful = [one for one in candidates if one.adherence >= adherence_needed]
    if not faithful:
        return max(candidates, key=lambda one: one.adherence)
    return min(faithful, key=lambda one: one.style_distance)
