"""Whatever a family of models is, the rest of the service takes it as it is; and which family a model is of."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from safetensors import safe_open

from service.artifacts.fetching import fetch
from service.artifacts.publishing import publish_version
from service.diffusion import families
from service.diffusion.drawing import comparison
from service.diffusion.drawing.files import OURS
from service.diffusion.families import family_name, family_of, token_counter
from service.diffusion.family import Family
from service.diffusion.held_out import losses_of
from service.diffusion.images import CaptionedImage, read_split
from service.diffusion.lora import WEIGHTS_NAME, lora_parameters
from service.exits import BadConfiguration, BadData
from service.jobs import infer as infer_job
from service.jobs import train as train_job
from service.settings.infer import InferSettings
from service.settings.models import DiffusionSettings
from service.settings.train import TrainSettings
from service.storage.opening import open_store
from service.training.encoded.loading import encode_dataset
from service.training.processes.coordinator import Coordinator
from service.training.randomness import draw, global_batch
from service.training.trainer import Trainer
from tests.unit.diffusion.flow_family import TIMESTEPS, FlowDenoiser, FlowFamily, FlowParts
from tests.unit.training.building import distance, trained_state

CAPTIONS = ("red boat", "a green boat at sea", "blue", "red boat")
STEPS = 30


def settings_for(folder: Path, **options: object) -> TrainSettings:
    return TrainSettings.model_validate(
        {
            "profile": "miniature", "model_base": "miniature", "target_modules": "attention,proj_in,proj_out",
            "artifacts_uri": str(folder / "artifacts"), "work_dir": folder / "work", "run_id": "flow", "resolution": 64,
            "batch_size": 4, "max_steps": STEPS, "learning_rate": 1e-2, "validate_every": STEPS,
            "checkpoint_every": STEPS, "samples": 1, "sample_steps": 2, **options,
        }
    )  # fmt: skip


def pictures(folder: Path) -> None:
    """An imagefolder: of each colour one picture to learn from, and one that is held out."""
    for split in ("train", "validation"):
        place = folder / "imagefolder" / split
        place.mkdir(parents=True)
        lines = ["file_name,caption"]
        for number, caption in enumerate(CAPTIONS):
            noise = np.random.default_rng(number).integers(0, 256, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(noise // 4 + 150).save(place / f"{number}.png")
            lines.append(f"{number}.png,{caption}")
        (place / "metadata.csv").write_text("\n".join(lines) + "\n")


@pytest.fixture
def images(tmp_path: Path) -> list[CaptionedImage]:
    pictures(tmp_path / "dataset")
    return read_split(tmp_path / "dataset", "train")


def trainer_of(images: list[CaptionedImage], settings: TrainSettings, family: Family) -> Trainer:
    parts, accelerator = family.load(settings), Accelerator(cpu=True)
    store = open_store(settings.artifacts_uri)
    data, held_out, _ = encode_dataset(
        parts, images, images[:2], also=[], store=store, coordinator=Coordinator(accelerator), settings=settings
    )
    torch.manual_seed(settings.seed)
    denoiser = parts.trainable(settings, torch.float32)
    return Trainer(accelerator, denoiser, parts.noise_scheduler, data, held_out, settings)


def test_a_family_with_other_conditions_and_another_objective_trains(
    images: list[CaptionedImage], tmp_path: Path
) -> None:
    settings = settings_for(tmp_path)
    trainer = trainer_of(images, settings, FlowFamily(settings))
    trainer.fit([])
    first, last = trainer.progress.measurements
    assert last.loss < 0.9 * first.loss


def test_its_loss_is_that_of_its_own_formulas_on_its_own_conditions(
    images: list[CaptionedImage], tmp_path: Path
) -> None:
    settings = settings_for(tmp_path, caption_dropout=0.5, min_snr_gamma=5.0)
    trainer = trainer_of(images, settings, FlowFamily(settings))
    parts = FlowParts([])
    denoiser = FlowDenoiser(parts.transformer)  # at the start the LoRA has no effect
    expected = []
    for position, index in enumerate(global_batch(settings.seed, 0, 4, [range(len(images))])):
        d = draw(
            settings.seed, 0, position, shape=(4, 8, 8), timesteps=TIMESTEPS, flip=settings.random_flip,
            drop_caption=settings.caption_dropout, crops=1,
        )  # fmt: skip
        pixels = torch.tensor(np.asarray(Image.open(images[index].path))).permute(2, 0, 1)[None] / 127.5 - 1
        mean, deviation = parts.encode_images(pixels.flip(-1) if d.flip else pixels, ["it"])
        latents = mean + deviation * d.posterior_noise
        sigma = (d.timestep + 1) / TIMESTEPS
        condition = parts.encode_prompts(["" if d.drop_caption else images[index].caption])
        predicted = denoiser((1 - sigma) * latents + sigma * d.noise, torch.tensor([d.timestep]), condition)
        ratio = ((1 - sigma) / sigma) ** 2
        weight = min(ratio, 5.0) / (ratio + 1)
        expected.append(weight * ((predicted - (d.noise - latents)) ** 2).mean())
    torch.testing.assert_close(trainer.take_step(0)[0], torch.stack(expected).detach(), rtol=1e-5, atol=1e-7)


def test_its_conditions_are_cached_too_each_tensor_in_its_own_shape(
    images: list[CaptionedImage], tmp_path: Path
) -> None:
    settings = settings_for(tmp_path)
    family = FlowFamily(settings)
    first = trainer_of(images, settings, family)
    assert set(CAPTIONS) | {""} <= set(family.asked)
    family.asked.clear()
    again = trainer_of(images, settings, family)
    assert family.asked == []
    for one, other in zip(first.held_out.conditions.items(), again.held_out.conditions.items(), strict=True):
        assert one[0] == other[0]
        assert torch.equal(one[1], other[1])
    assert {name: tuple(t.shape) for name, t in again.held_out.conditions.items()} == {
        "words": (2, 6, 12),
        "length": (2, 1),
    }


def test_it_resumes_to_the_same_bits(images: list[CaptionedImage], tmp_path: Path) -> None:
    settings = settings_for(tmp_path, max_steps=4, validate_every=2)
    whole, halted, resumed = (trainer_of(images, settings, FlowFamily(settings)) for _ in range(3))
    whole.fit([])
    for step in range(2):
        halted.take_step(step)
        halted.progress.step = step + 1
    halted.best_state = halted.lora()
    halted.save(tmp_path / "checkpoint")
    resumed.resume(tmp_path / "checkpoint")
    resumed.fit([])
    assert distance(trained_state(resumed), trained_state(whole)) == 0


def test_train_and_infer_publish_a_lora_and_pictures_of_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    for module in (train_job, comparison):
        monkeypatch.setattr(module, "family_of", lambda _: FlowFamily(settings))
    pictures(tmp_path / "dataset")
    store = open_store(settings.artifacts_uri)
    dataset = publish_version(store, tmp_path / "dataset", kind="dataset", prefix="datasets/ours")
    settings = settings.model_copy(update={"dataset": dataset.path})

    lora = fetch(store, train_job.train(settings), settings.work_dir)
    with safe_open(lora / WEIGHTS_NAME, "pt") as file:
        assert "transformer.to_q.lora_A.weight" in file.keys()  # noqa: SIM118
        assert file.metadata()["ss_steps"] == str(STEPS)
        assert file.metadata()["modelspec.prediction_type"] == "flow"
    card = (lora / "README.md").read_text()
    assert "from diffusers import FlowPipeline" in card
    assert f'weight_name="{WEIGHTS_NAME}"' in card
    assert "in 6 modules of the transformer,\n" in card
    assert "\n- flow\n" in card
    assert (lora / "samples.png").exists()

    drawn = InferSettings(
        model_base="miniature", artifacts_uri=settings.artifacts_uri, work_dir=settings.work_dir, run_id="flow",
        prompts=["red boat"], variations=2, steps=2,
    )  # fmt: skip
    folder = fetch(store, infer_job.infer(drawn), settings.work_dir)
    base, styled = (Image.open(folder / kind / "00001.png") for kind in ("base", "lora"))
    assert base.size == (64, 64)
    assert base.tobytes() != styled.tobytes()
    assert json.loads(str(styled.info[OURS]))["prompt"] == "red boat"


def test_its_held_out_loss_is_measured_on_the_pipeline_as_it_is(images: list[CaptionedImage], tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    trainer = trainer_of(images, settings, FlowFamily(settings))
    for parameter in lora_parameters(trainer.unwrapped):
        parameter.data += 0.1
    trainer.unwrapped.export(tmp_path, "flow", {})
    pipeline = FlowFamily(settings).open_pipeline(settings)
    base = losses_of(pipeline, images[:2], settings.resolution)
    pipeline.put_on_lora(tmp_path)
    styled = losses_of(pipeline, images[:2], settings.resolution)
    trainer.fit([])  # measures the moved LoRA first
    measured = trainer.progress.measurements[0].loss
    assert sum(styled) / 2 == pytest.approx(measured, rel=1e-5)
    assert sum(base) / 2 != pytest.approx(measured, rel=1e-3)


def test_the_miniature_is_of_the_first_family() -> None:
    assert family_of(DiffusionSettings(model_base="miniature")).name == "sd15"


def base_model(folder: Path, index: str | None) -> DiffusionSettings:
    folder.mkdir(exist_ok=True)
    if index is not None:
        (folder / "model_index.json").write_text(index)
    return DiffusionSettings(model_base=str(folder))


@pytest.mark.parametrize("ask", [family_of, token_counter])
def test_a_model_of_another_family_is_refused_before_anything_of_it_is_loaded(ask: object, tmp_path: Path) -> None:
    settings = base_model(tmp_path / "xl", '{"_class_name": "StableDiffusionXLPipeline"}')
    with pytest.raises(
        BadConfiguration, match=r"MODEL_BASE=\S+xl is a StableDiffusionXLPipeline; .* StableDiffusionPipeline"
    ):
        ask(settings)


@pytest.mark.parametrize("index", ['{"_class_name": "StableDi', "[1]", "null", "\0"])
def test_an_index_that_is_none_is_damage_and_no_bug(index: str, tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"MODEL_BASE=\S+cut is damaged: its model_index.json"):
        family_name(base_model(tmp_path / "cut", index))


def test_a_folder_without_an_index_is_taken_for_the_first_family(tmp_path: Path) -> None:
    assert family_name(base_model(tmp_path / "parts", None)) == "sd15"


def test_the_index_of_a_mirror_is_read_without_fetching_the_model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = open_store(str(tmp_path / "mirror"))
    store.put("model_index.json", b'{"_class_name": "FluxPipeline"}')
    monkeypatch.setattr(families, "mirror_of", lambda *_: (store, ""))
    with pytest.raises(BadConfiguration, match="s3://models/flux is a FluxPipeline"):
        family_name(DiffusionSettings(model_base="s3://models/flux"))


def test_tokens_are_counted_as_the_text_encoder_reads_them() -> None:
    limit, count = token_counter(DiffusionSettings(model_base="miniature"))
    assert limit == 77
    assert count("") == 2  # begin and end
    assert count("a cat") > count("a") > 2
