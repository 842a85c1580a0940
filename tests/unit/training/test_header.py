"""What the headers of the weights tell programs: as Stability's ModelSpec, kohya's readers and A1111 want it."""

import json
from typing import Any

import pytest

from service.training.header import header_facts, tag_frequency
from tests.unit.training.describing import trained

CAPTIONS = ["8-bit illustration, a cat", "8-bit illustration, a dog,  A Cat "]


def facts(prediction: str = "epsilon", **options: Any) -> dict[str, str]:
    return header_facts(trained(captions=CAPTIONS, **options), prediction)


def test_it_has_all_that_the_standard_asks_of_a_trained_lora() -> None:
    found = facts(author="Ada", licence="cc-by-4.0", date="2026-11-30")
    assert found["modelspec.title"] == "ours-1"
    assert found["modelspec.author"] == "Ada"
    assert found["modelspec.license"] == "cc-by-4.0"
    assert found["modelspec.date"] == "2026-11-30"
    assert found["modelspec.resolution"] == "1024x1024"
    assert found["modelspec.prediction_type"] == "epsilon"
    assert found["modelspec.trigger_phrase"] == "8-bit illustration"
    assert found["modelspec.tags"] == "lora, text-to-image, 8-bit illustration"
    assert found["modelspec.description"] == (
        "A LoRA of rank 4 for stable-diffusion-v1-5/stable-diffusion-v1-5, trained on 2 images of ours for 90 steps. "
        "Begin prompts with: 8-bit illustration."
    )
    assert facts("v_prediction")["modelspec.prediction_type"] == "v"


def test_what_is_not_known_is_left_out_rather_than_none() -> None:
    found = header_facts(trained(style="", model_base="owner/model"), "epsilon")
    unknown = ("author", "license", "date", "trigger_phrase", "usage_hint")
    assert not {f"modelspec.{name}" for name in unknown} & found.keys()
    assert "ss_training_started_at" not in found
    assert "modelspec.merged_from" not in found  # by the standard it would say that it was not trained
    assert all(isinstance(fact, str) for fact in found.values())


def test_a1111_shows_output_name_model_date_size_and_tags() -> None:
    found = facts(date="2026-11-30")
    assert found["ss_output_name"] == "ours-1"
    assert found["ss_sd_model_name"] == "stable-diffusion-v1-5/stable-diffusion-v1-5"
    assert float(found["ss_training_started_at"]) == 1_795_996_800  # midnight in Greenwich
    assert json.loads(found["ss_dataset_dirs"]) == {"ours": {"n_repeats": 1, "img_count": 2}}
    assert json.loads(found["ss_tag_frequency"]) == {"ours": {"8-bit illustration": 2, "a cat": 2, "a dog": 1}}
    assert found["ss_steps"] == "90"


def test_tags_are_counted_from_the_commonest_and_not_without_end() -> None:
    captions = ["style, the same"] * 3 + [f"style, number {number}" for number in range(5000)]
    found = tag_frequency(captions)
    assert list(found)[:3] == ["style", "the same", "number 0"]
    assert found["style"] == 5003
    assert len(found) == 1000
    assert tag_frequency(reversed(captions)) == found  # type: ignore[arg-type]
    assert tag_frequency([" , ,"]) == {}


@pytest.mark.parametrize("base", ["/home/lovelace/models/sd15/", "./sd15", "s3://lovelace/models/sd15"])
def test_no_header_tells_where_the_base_model_lies(base: str) -> None:
    found = facts(model_base=base)
    assert found["ss_sd_model_name"] == "sd15"
    assert not [name for name, fact in found.items() if "lovelace" in fact or "./" in fact]


def test_the_scale_of_the_training_is_told_beside_that_of_the_file() -> None:
    found = facts(rslora=True, lora_alpha=8)
    assert (found["sdlora.lora_alpha"], found["sdlora.rslora"]) == ("8.0", "True")
