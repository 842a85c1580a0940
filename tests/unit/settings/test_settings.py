"""One declaration gives the variable, the flag, the help and the README row."""

import json

import pytest
from pydantic import ValidationError

from service.__main__ import read_settings, run
from service.exits import BadConfiguration, ExitCode
from service.settings.base import flag_name, variable_name
from service.settings.catalogue import CHAIN, JOBS, all_settings
from service.settings.common import CommonSettings, export
from service.settings.evaluate import EvaluateSettings
from service.settings.models import FamilySettings, ModelSettings
from service.settings.s3 import S3Settings
from service.settings.train import PROFILES, TrainSettings
from service.settings.variables import explain_validation, known_variables, misspelt_variables
from tests.readme import README, SETTINGS_PAGE, settings_page, with_exit_codes

SETTINGS = all_settings()


def test_a_misspelt_variable_is_found_and_the_right_one_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRAIN_MAX_STEP", "100")
    assert run(["config", "--check"]) == ExitCode.BAD_CONFIGURATION
    assert "did you mean TRAIN_MAX_STEPS?" in capsys.readouterr().err


def test_every_job_refuses_a_misspelt_variable_before_it_does_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_BSAE", "miniature")
    # doctor goes on, to find what else is wrong.
    assert {run([job]) for job in SETTINGS if job != "doctor"} == {ExitCode.BAD_CONFIGURATION}


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ARTIFACTS_URI", "s3://key:verysecret@bucket/x"),
        ("MODEL_BASE", "s3://verysecret@bucket/x"),
        ("DATA_PREP_FOLDER", "s3://key:verysecret@bucket/x"),
    ],
)
def test_credentials_in_an_address_are_refused_and_not_repeated(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, value)
    assert run(["data-prep"]) == ExitCode.BAD_CONFIGURATION
    told = capsys.readouterr().err
    assert variable in told
    assert "AWS_SECRET_ACCESS_KEY" in told
    assert "verysecret" not in told


def test_variables_of_other_programs_are_no_business_of_ours() -> None:
    assert misspelt_variables(["PATH", "TRAINING", "AWS_REGION", "HF_HOME", "MY_TRAIN_STEPS"]) == {}


def test_a_variable_that_resembles_none_of_ours_is_still_refused() -> None:
    assert misspelt_variables(["TRAIN_ZZZZZZZZ"]) == {"TRAIN_ZZZZZZZZ": None}


@pytest.mark.parametrize("settings", SETTINGS.values())
def test_every_field_has_a_description(settings: type[CommonSettings]) -> None:
    assert [name for name, field in settings.model_fields.items() if not field.description] == []


def test_the_flag_has_the_name_of_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAIN_MAX_STEPS", "3")
    assert TrainSettings().max_steps == 3
    assert read_settings(TrainSettings, ["--train-max-steps", "5"]).max_steps == 5
    assert (variable_name(TrainSettings, "run_id"), flag_name(TrainSettings, "run_id")) == ("RUN_ID", "--run-id")


def test_a_refused_value_is_named_by_its_variable_in_one_line() -> None:
    with pytest.raises(ValidationError) as caught:
        TrainSettings(rank=0, resolution=100)
    told = explain_validation(TrainSettings, caught.value)
    assert "TRAIN_RANK=0: " in told
    assert "TRAIN_RESOLUTION=100: " in told
    assert "\n" not in told


def test_an_unknown_flag_is_a_bad_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "--train-rnk", "3"]) == ExitCode.BAD_CONFIGURATION
    capsys.readouterr()


def test_the_report_profile_is_the_published_recipe_value_for_value() -> None:
    settings = TrainSettings(profile="report")
    assert (settings.rank, settings.lora_alpha, settings.init) == (4, 4, "gaussian")
    assert settings.target_modules == ["to_k", "to_q", "to_v", "to_out.0"]
    assert (settings.learning_rate, settings.weight_decay, settings.lr_scheduler) == (1e-4, 1e-2, "cosine")
    assert (settings.max_grad_norm, settings.batch_size, settings.resolution) == (1.0, 2, 1024)
    assert (settings.random_flip, settings.max_steps, settings.checkpoint_every) == (0.5, 10_000, 5_000)


def test_the_declared_defaults_are_those_of_the_report_profile() -> None:
    declared = {name: TrainSettings.model_fields[name].default for name in PROFILES["report"]}
    assert declared == PROFILES["report"]


def test_a_variable_overrides_the_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAIN_PROFILE", "recommended")
    monkeypatch.setenv("TRAIN_RANK", "8")
    settings = TrainSettings()
    assert (settings.rank, settings.resolution) == (8, 512)


def test_profiles_set_only_what_there_is_to_set() -> None:
    assert {name for profile in PROFILES.values() for name in profile} <= set(TrainSettings.model_fields)


def test_a_miniature_base_makes_the_whole_family_miniature_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MODEL_BASE", "miniature")
    monkeypatch.setenv("MODEL_CLIP", "openai/clip-vit-large-patch14")
    settings = FamilySettings()
    assert (settings.model_vae, settings.model_captioner) == ("miniature", "miniature")
    assert settings.model_clip == "openai/clip-vit-large-patch14"


def test_the_model_that_left_the_hub_is_found_where_it_went(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_BASE", "runwayml/stable-diffusion-v1-5")
    assert TrainSettings().model_base == "stable-diffusion-v1-5/stable-diffusion-v1-5"


def test_a_list_is_a_line_each_or_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFER_PROMPTS", "a cat, asleep\na dog")
    assert SETTINGS["infer"]().model_dump()["prompts"] == ["a cat, asleep", "a dog"]
    monkeypatch.setenv("TRAIN_TARGET_MODULES", "to_q, to_k")
    assert TrainSettings().target_modules == ["to_q", "to_k"]


def test_the_demo_sets_only_variables_that_exist() -> None:
    from service.settings.demo import DEMO_VARIABLES

    assert set(DEMO_VARIABLES) <= known_variables()


def test_the_page_of_settings_and_the_readme_have_the_tables_that_the_code_gives() -> None:
    assert SETTINGS_PAGE.read_text(encoding="utf-8") == settings_page()
    text = README.read_text(encoding="utf-8")
    assert text == with_exit_codes(text)


def test_a_bad_configuration_is_reported_with_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_PREP_SOURCE", "folder")
    with pytest.raises(BadConfiguration, match="DATA_PREP_FOLDER"):
        read_settings(SETTINGS["data-prep"], [])


def test_every_setting_of_every_job_has_a_row_on_the_page_of_settings() -> None:
    text = SETTINGS_PAGE.read_text(encoding="utf-8")
    assert SETTINGS_PAGE.relative_to(README.parent).as_posix() in README.read_text(encoding="utf-8")
    fields = {
        (settings, field) for job, settings in SETTINGS.items() if job != "demo" for field in settings.model_fields
    }
    assert [variable_name(*field) for field in fields if f"| `{variable_name(*field)}` |" not in text] == []


def test_a_variable_without_our_prefix_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "SEED", "BATCH_SIZE", "STEPS", "LIMIT"):
        monkeypatch.setenv(name, "77")
    for settings in SETTINGS.values():
        assert 77 not in read_settings(settings, []).model_dump().values()


@pytest.mark.parametrize("job", ["train", "config"])
@pytest.mark.parametrize("old", ["AWS_CONNECT_TIMEOUT", "AWS_READ_TIMEOUT", "AWS_S3_ADDRESSING_STYLE"])
def test_a_variable_that_stood_in_the_namespace_of_another_is_refused_and_the_new_name_given(
    old: str, job: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(old, "5")
    assert run([job]) == ExitCode.BAD_CONFIGURATION
    assert f"{old} is called S3_{old.removeprefix('AWS_').removeprefix('S3_')} now" in capsys.readouterr().err


def test_the_settings_of_s3_are_checked_for_spelling_and_those_of_other_programs_left_alone() -> None:
    assert misspelt_variables(["S3_READ_TIMEOUTS", "S3_ADRESSING_STYLE"]) == {
        "S3_READ_TIMEOUTS": "S3_READ_TIMEOUT",
        "S3_ADRESSING_STYLE": "S3_ADDRESSING_STYLE",
    }
    assert misspelt_variables(["S3_BUCKET", "S3_ENDPOINT", "S3_ENDPOINT_URL", "S3_REGION", "S3_SECRET_KEY"]) == {}


def test_config_shows_the_settings_of_s3(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S3_READ_TIMEOUT", "7")
    assert run(["config"]) == ExitCode.DONE
    shown = json.loads(capsys.readouterr().out)
    assert (shown["S3_ADDRESSING_STYLE"], shown["S3_CONNECT_TIMEOUT"], shown["S3_READ_TIMEOUT"]) == ("auto", 10, 7)


def test_a_flag_of_s3_counts_wherever_a_bucket_is_opened() -> None:
    export(read_settings(TrainSettings, ["--s3-read-timeout", "0.5", "--retry-seconds", "7"]))
    assert S3Settings().or_else(s3_connect_timeout=5, s3_read_timeout=30).model_dump() == {
        "retry_seconds": 7,
        "s3_addressing_style": "auto",
        "s3_connect_timeout": 5,
        "s3_read_timeout": 0.5,
    }


def test_a_job_is_one_record_and_its_function_and_settings_follow_from_it() -> None:
    assert [job.settings_class.__name__ for job in JOBS.values() if job.settings] == [
        settings.__name__ for settings in SETTINGS.values()
    ]
    assert JOBS["config"].function.__module__ == "service.jobs.config"
    assert [job for job in CHAIN if not issubclass(SETTINGS[job], ModelSettings)] == []


def test_a_model_name_that_can_be_nothing_is_refused_with_what_it_could_be() -> None:
    with pytest.raises(
        BadConfiguration, match="MODEL_BASE='stable diffusion': 'stable diffusion' is no model: use a hub id"
    ):
        read_settings(TrainSettings, ["--model-base", "stable diffusion"])


def test_with_the_miniature_evaluate_has_thresholds_of_its_own_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = EvaluateSettings()
    assert (real.style_reference, real.adherence_margin) == ("original", 1.0)
    monkeypatch.setenv("MODEL_BASE", "miniature")
    small = EvaluateSettings()
    assert (small.style_reference, small.adherence_margin) == ("reconstructed", 3.0)
    monkeypatch.setenv("EVALUATE_ADHERENCE_MARGIN", "2")
    assert EvaluateSettings(style_reference="original").style_reference == "original"
    assert EvaluateSettings().adherence_margin == 2.0
