"""What decides a result, declared where the setting is: keys, checkpoints and messages follow from it."""

import datetime
import json
import os
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin
from unittest import mock

import pytest
from annotated_types import Ge, Gt, Le, Lt, MultipleOf
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from service import miniature
from service.exits import BadConfiguration
from service.settings.base import variable_name
from service.settings.catalogue import CHAIN, all_settings
from service.settings.common import CommonSettings
from service.settings.data_prep import DataPrepSettings
from service.settings.declaring import STAGES, UNKNOWN, decides, role_of
from service.settings.evaluate import EvaluateSettings
from service.settings.identity import check_identity, differences, for_key, identity, same
from service.settings.infer import InferSettings
from service.settings.train import TrainSettings

RECIPES = sorted(Path(__file__).with_name("recipes").glob("*.json"))
# Of these, other settings decide whether they do anything: as they are here, all do.
EVERYTHING_COUNTS = {"DATA_PREP_FOLDER": "s3://bucket/x", "DATA_PREP_URLS": "list.csv", "DATA_PREP_MIN_RELEVANCE": "20",
                     "DATA_PREP_STEP": "finalize", "PRICE_PER_HOUR": "2"}  # fmt: skip
SETTINGS = all_settings()
MODELS = ("model_base", "model_vae", "model_captioner", "model_clip")
FORMS = {
    "rendezvous": "{}:29500",
    "notify_url": "https://{}.example.org",
    "exclude": "https://example.org/{}.png",
} | dict.fromkeys(MODELS, "owner/{}")
FIELDS = [(job, field) for job, settings in SETTINGS.items() for field in settings.model_fields]


def values(job: str, field: str) -> st.SearchStrategy[str]:
    """Values of a setting, as somebody writes them into the environment; not all of them are accepted."""
    info = SETTINGS[job].model_fields[field]
    if field == "jobs":
        return st.sampled_from(CHAIN)
    if (job, field) == ("evaluate", "scales"):
        return st.lists(st.integers(1, 40), min_size=1, max_size=3, unique=True).map(
            lambda tenths: ",".join(str(tenth / 10) for tenth in tenths)
        )
    if (job, field) == ("champion", "on"):
        return st.dates().map(str)
    kinds = get_args(info.annotation) if get_origin(info.annotation) is not Literal else (info.annotation,)
    kind = next((k for k in kinds if k is not type(None)), info.annotation) if kinds else info.annotation
    if get_origin(kind) is Literal:
        return st.sampled_from(get_args(kind))
    if kind is datetime.date:
        return st.dates().map(str)
    if kind is bool:
        return st.sampled_from(["true", "false"])
    if kind in (int, float) and get_origin(info.annotation) is not list:
        factor = next((m.multiple_of for m in info.metadata if isinstance(m, MultipleOf)), 1)
        least = max(
            (int(m.ge if isinstance(m, Ge) else m.gt) for m in info.metadata if isinstance(m, Ge | Gt)), default=0
        )
        most = min(
            (int(m.le if isinstance(m, Le) else m.lt) for m in info.metadata if isinstance(m, Le | Lt)), default=999
        )
        if kind is int:
            return st.integers(least, most).map(lambda number: str(number * factor))
        return st.floats(least, most, exclude_min=True, exclude_max=True).map(str)
    return st.text("abcdefgh", min_size=1, max_size=9).map(lambda text: FORMS.get(field, "{}").format(text))


@cache
def settings_of_all(environment: tuple[tuple[str, str], ...]) -> dict[str, CommonSettings]:
    with mock.patch.dict(os.environ, environment):
        return {job: settings() for job, settings in SETTINGS.items()}


def identities(settings: CommonSettings) -> list[dict[str, Any]]:
    """Of the whole job, and of each of its stages."""
    return [identity(settings, stage) for stage in (None, *STAGES)]


@pytest.mark.parametrize(("job", "field"), FIELDS)
@settings(max_examples=3)
@given(data=st.data())
def test_only_what_is_said_to_decide_changes_a_key_or_refuses_what_is_stored_and_only_of_its_own_job(
    job: str, field: str, data: Any
) -> None:
    variable = variable_name(SETTINGS[job], field)
    before = settings_of_all(tuple(EVERYTHING_COUNTS.items()))
    changed = EVERYTHING_COUNTS | {variable: data.draw(values(job, field))}
    try:
        after = settings_of_all(tuple(changed.items()))
    except ValidationError:
        assume(False)
    assume(before[job].public()[field] != after[job].public()[field])

    for other, declared in SETTINGS.items():
        stored, wanted = identity(before[other]), identity(after[other])
        mine = [name for name in declared.model_fields if variable_name(declared, name) == variable]
        decisive = any(getattr(role_of(declared.model_fields[name]), "decides", False) for name in mine)
        assert (identities(before[other]) != identities(after[other])) == decisive
        assert (for_key(declared, stored) != for_key(declared, wanted)) == decisive
        assert (variable in {difference.name for difference in differences(declared, stored, wanted)}) == decisive
        if not decisive:
            check_identity(declared, stored, wanted, "runs/x/lora")


def test_the_variables_that_differ_are_named_as_users_write_them() -> None:
    stored, wanted = identity(TrainSettings()), identity(TrainSettings(rank=7, model_base="owner/other"), dataset="d")
    with pytest.raises(BadConfiguration) as refused:
        check_identity(TrainSettings, stored, wanted, "runs/x/lora")
    assert "TRAIN_RANK (4 there, 7 now)" in str(refused.value)
    assert "MODEL_BASE (stable-diffusion-v1-5/stable-diffusion-v1-5 there, owner/other now)" in str(refused.value)
    assert "TRAIN_DATASET (None there, d now)" in str(refused.value)


def test_a_changed_model_that_a_job_does_not_load_refuses_no_half_done_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stored = identity(TrainSettings())
    monkeypatch.setenv("MODEL_CLIP", "owner/other")
    monkeypatch.setenv("MODEL_CAPTIONER", "owner/other")
    check_identity(TrainSettings, stored, identity(TrainSettings()), "runs/x/lora")


@pytest.mark.parametrize(
    ("changed", "kept"),
    [
        ({"fail_unless_promoted": True}, ["drawing", "measuring", "deciding", None]),
        ({"adherence_margin": 2.0}, ["drawing", "measuring"]),
        ({"confidence": 0.9}, ["drawing", "measuring"]),
        ({"model_clip": "owner/other"}, ["drawing"]),
        ({"steps": 7}, []),
        ({"model_vae": "base"}, []),
    ],
)
def test_drawing_measuring_and_deciding_are_told_apart(changed: dict[str, Any], kept: list[Any]) -> None:
    stages = ("drawing", "measuring", "deciding", None)
    before, after = EvaluateSettings(), EvaluateSettings(**changed)
    assert [stage for stage in stages if identity(before, stage) == identity(after, stage)] == kept


def test_of_the_same_images_another_style_or_captioner_needs_no_new_search() -> None:
    before, after = DataPrepSettings(), DataPrepSettings(style="", captioner="sidecar", limit=3, name="other")
    assert identity(before, "collecting") == identity(after, "collecting")
    assert identity(before, "collecting") != identity(DataPrepSettings(query=["a cat"]), "collecting")


def test_models_that_other_settings_leave_unused_decide_nothing() -> None:
    settings = DataPrepSettings(captioner="sidecar", min_relevance=0)
    assert settings.models() == ("model_base",)
    assert {"model_captioner", "model_captioner_revision", "model_clip"}.isdisjoint(identity(settings))
    assert DataPrepSettings(min_relevance=20).models() == ("model_base", "model_captioner", "model_clip")


def test_a_field_that_does_not_say_what_it_does_cannot_be_declared() -> None:
    with pytest.raises(TypeError, match=r"Careless: forgotten must be declared by `decides` or `only_how`"):

        class Careless(InferSettings):
            forgotten: int = Field(3, description="Of which nobody knows whether it decides.")


class Later(TrainSettings):
    """TrainSettings of a later version, in which work is done by default that the code of then did not do."""

    sharpness: float = decides(0.5, before=0.0, description="A setting of later.")


def test_a_setting_of_later_is_taken_to_have_had_the_value_of_then() -> None:
    stored = identity(TrainSettings(), dataset="d")
    as_then, as_now = identity(Later(sharpness=0.0), dataset="d"), identity(Later(), dataset="d")
    assert same(Later, stored, as_then)
    assert for_key(Later, as_then) == for_key(TrainSettings, stored)
    with pytest.raises(BadConfiguration, match=r"TRAIN_SHARPNESS \(0.0 there, 0.5 now\)"):
        check_identity(Later, stored, as_now, "runs/x/lora")


@pytest.mark.parametrize("recipes", RECIPES, ids=lambda path: path.stem)
@pytest.mark.parametrize("job", ["data-prep", "train", "infer", "evaluate"])
def test_what_an_older_version_made_by_its_defaults_is_what_the_defaults_make_now(recipes: Path, job: str) -> None:
    stored = json.loads(recipes.read_text())[job]
    check_identity(SETTINGS[job], stored, identity(SETTINGS[job]()), "artifact")


def test_a_setting_that_the_first_recipes_do_not_know_says_what_they_had_in_its_place() -> None:
    first = json.loads(RECIPES[0].read_text())
    roles = {
        (job, name): role_of(SETTINGS[job].model_fields[name]) for job in first for name in SETTINGS[job].model_fields
    }
    unsaid = [
        (job, name)
        for (job, name), role in roles.items()
        if role is not None and role.decides and role.before is UNKNOWN and name not in first[job]
    ]
    assert unsaid == []


def test_the_miniature_is_known_by_its_files_and_a_run_of_an_older_edition_is_told_so() -> None:
    settings = TrainSettings(model_base="miniature")
    recipe = identity(settings)
    for field, folder in (("model_base", "stable-diffusion"), ("model_vae", "stable-diffusion")):
        assert recipe[f"{field}_revision"] == miniature.revisions()[folder]
    # What a run of the first edition recorded: the revision of the default model, which said nothing of the miniature.
    of_before = recipe | {"model_base_revision": "451f4fe16113bff5a5d2269ed5ad43b0592e9a14"}
    with pytest.raises(BadConfiguration, match="runs/x was made with other settings: MODEL_BASE_REVISION"):
        check_identity(TrainSettings, of_before, recipe, "runs/x")
    assert EvaluateSettings(model_base="miniature").model_clip_revision == miniature.revisions()["clip"]
    assert DataPrepSettings(model_base="miniature").model_captioner_revision == miniature.revisions()["blip"]
