"""What the headers of a LoRA's files say, for programs that show it, and for people who look before they use it."""

import json
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from service.artifacts import layout
from service.training.trained import Trained

MOST_TAGS = 1000
"""So many phrases of the captions are counted: captions in sentences are all different, and a header is read at each start."""


def header_facts(trained: Trained, prediction: str) -> dict[str, str]:
    """For the headers of the weights: Stability's ModelSpec 1.0.0, the keys that kohya's readers know, and our own.

    What is not known has no key. Nothing is of the clock: a LoRA that is trained again has the same bytes. There is no
    `modelspec.merged_from`: by the standard, a LoRA that has one was merged from others rather than trained.
    """
    facts = _modelspec(trained, prediction) | _kohya(trained) | _own(trained)
    return {name: str(fact) for name, fact in facts.items() if fact is not None}


def _modelspec(trained: Trained, prediction: str) -> dict[str, Any]:
    recipe = trained.recipe
    return {
        "modelspec.title": trained.name,
        "modelspec.description": _description(trained),
        "modelspec.author": recipe["author"],
        "modelspec.license": trained.licence,
        "modelspec.date": recipe["date"],
        "modelspec.tags": ", ".join(filter(None, ["lora", "text-to-image", trained.trigger])),
        "modelspec.trigger_phrase": trained.trigger,
        "modelspec.usage_hint": trained.trigger and f"Begin prompts with: {trained.trigger}",
        "modelspec.resolution": f"{recipe['resolution']}x{recipe['resolution']}",
        "modelspec.prediction_type": "v" if prediction == "v_prediction" else prediction,
    }


def _kohya(trained: Trained) -> dict[str, Any]:
    recipe = trained.recipe
    name = _dataset_name(recipe["dataset"])
    return {
        "ss_output_name": trained.name,
        "ss_training_started_at": recipe["date"] and datetime.fromisoformat(recipe["date"] + "T00:00:00Z").timestamp(),
        "ss_sd_model_name": trained.base_name,
        "ss_num_train_images": len(trained.captions),
        "ss_dataset_dirs": json.dumps({name: {"n_repeats": 1, "img_count": len(trained.captions)}}),
        "ss_tag_frequency": json.dumps({name: tag_frequency(trained.captions)}),
        "ss_resolution": f"({recipe['resolution']}, {recipe['resolution']})",
        "ss_steps": trained.of_step,
        "ss_total_batch_size": recipe["batch_size"],
        "ss_learning_rate": recipe["learning_rate"],
        "ss_lr_scheduler": recipe["lr_scheduler"],
        "ss_optimizer": recipe["optimizer"],
        "ss_seed": recipe["seed"],
        "ss_min_snr_gamma": str(recipe["min_snr_gamma"]),
        "ss_noise_offset": recipe["noise_offset"],
        "ss_caption_dropout_rate": recipe["caption_dropout"],
    }


def _own(trained: Trained) -> dict[str, Any]:
    """With the alpha of the training: that of a file is the one by which its readers come to the same scale."""
    recipe = trained.recipe
    names = ("dataset", "profile", "lora_alpha", "rslora", "dora")
    return {f"sdlora.{name}": recipe[name] for name in names}


def _description(trained: Trained) -> str:
    text = (
        f"A LoRA of rank {trained.recipe['rank']} for {trained.base_name}, trained on {len(trained.captions)} images of "
        f"{_dataset_name(trained.recipe['dataset'])} for {trained.of_step} steps."
    )
    return f"{text} Begin prompts with: {trained.trigger}." if trained.trigger else text


def tag_frequency(captions: Sequence[str]) -> dict[str, int]:
    """How often each phrase between commas stands in the captions, as kohya's scripts count them: the commonest first.

    Of more than 1,000 different ones, the commonest 1,000; of as common ones, by the alphabet.
    """
    counts = Counter(tag for caption in captions for part in caption.split(",") if (tag := part.strip().lower()))
    return dict(sorted(counts.items(), key=lambda found: (-found[1], found[0]))[:MOST_TAGS])


def _dataset_name(path: str) -> str:
    """The name of a data set of ours; of one that lies elsewhere, its whole path."""
    place = layout.Dataset.parse(path)
    return place.name if place else path
