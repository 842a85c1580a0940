"""`sdlora evaluate`: the LoRA against the base model on held-out images; promote, hold or reject."""

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import structlog
import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline
from numpy.typing import NDArray
from PIL import Image

from service import stopping
from service.artifacts import layout
from service.artifacts.keys import content_key
from service.artifacts.kinds.evaluation import PAGE_FILE, Counts, Evaluation, read
from service.artifacts.kinds.measurements import Measured, Measurements
from service.artifacts.publishing import fetch, find_made, publish, read_manifest
from service.artifacts.runs import Run
from service.diffusion.clip import clip_scores
from service.diffusion.drawing.grid import comparison_grid
from service.diffusion.drawing.kept_pictures import KeptPictures, clear
from service.diffusion.drawing.sampling import (
    Drawing,
    by_prompt,
    draw_pictures,
    open_pipeline,
    put_on_lora,
    requests_for,
)
from service.diffusion.held_out import encode_held_out, held_out_losses
from service.diffusion.images import CaptionedImage, read_split
from service.diffusion.models import locate_model
from service.evaluation.features import StyleFeatures, style_features
from service.evaluation.gate import decide, examine, measure
from service.evaluation.report import write_evaluation
from service.evaluation.sample import Sample, Sides
from service.exits import Rejected
from service.settings.evaluate import EvaluateSettings
from service.settings.identity import for_key, identity, same
from service.storage.opening import open_store
from service.storage.scratch import scratch_folder

log = structlog.get_logger(__name__)


def evaluate(settings: EvaluateSettings) -> str:
    """Measures, decides and publishes the evaluation. Returns its path below ARTIFACTS_URI.

    Raises Rejected, after publishing, when EVALUATE_FAIL_UNLESS_PROMOTED is set and the decision is another.
    """
    run = Run(open_store(settings.artifacts_uri), settings.run_id)
    lora_path = settings.lora or run.lora_path
    lora = read_manifest(run.store, lora_path)
    recipe = identity(settings, lora=lora_path, lora_version=lora.version)
    key = content_key(for_key(EvaluateSettings, recipe))
    path, under_way = layout.Evaluation(run.run_id, key).path, layout.Drawing(run.run_id, key).path
    made = find_made(run.store, path, lambda stored: same(EvaluateSettings, stored, recipe))
    if made is None:
        measure_and_publish(run, settings, lora_path, path, under_way, recipe)
    path = made or path
    clear(run.store, under_way)
    found = read(fetch(run.store, path, settings.work_dir))
    log.info("decided", decision=found.decision, reason=found.reason, evaluation=path, page=f"{path}/{PAGE_FILE}")
    if settings.fail_unless_promoted and found.decision != "promote":
        raise Rejected(found.reason)
    return path


def measure_and_publish(
    run: Run, settings: EvaluateSettings, lora_path: str, path: str, under_way: str, recipe: dict[str, object]
) -> None:
    """Publishes the evaluation at `path`; `under_way` is where its pictures are kept until then."""
    lora = read_manifest(run.store, lora_path)
    dataset_path = lora.parents[0]
    dataset = fetch(run.store, dataset_path, settings.work_dir, stopping.check)
    lora_folder = fetch(run.store, lora_path, settings.work_dir)
    style = str(read_manifest(run.store, dataset_path).settings.get("style", ""))

    held_out_images = read_split(dataset, "validation")
    prompts = list(dict.fromkeys(image.caption for image in held_out_images))[: settings.max_prompts]
    requests = requests_for(prompts, settings.variations, settings.seed)
    drawing = Drawing(settings.steps, settings.guidance, settings.resolution, settings.batch_size)

    pipeline = open_pipeline(settings)
    base_losses = losses_of(pipeline, held_out_images, lora.settings["resolution"])
    base_kept, lora_kept = (KeptPictures(run.store, f"{under_way}/{model}") for model in ("base", "lora"))
    base = draw_pictures(pipeline, requests, drawing, "drawing with the base model", base_kept)
    put_on_lora(pipeline, lora_folder)
    lora_losses = losses_of(pipeline, held_out_images, lora.settings["resolution"])
    styled = draw_pictures(pipeline, requests, drawing, "drawing with the LoRA", lora_kept)

    sample = Sample(
        prompts=[request.prompt for request in requests],
        pictures=Sides(base, styled),
        held_out=held_out_images,
        training=read_split(dataset, "train"),
        style=style,
        judges=LoadedJudges(settings, pipeline.device, Sides(base_losses, lora_losses)),
    )
    measured = Measured(
        images=path,
        prompts=list(sample.prompts),
        variations=settings.variations,
        held_out=[image.name for image in held_out_images],
    )
    measurements = Measurements(measured, measure(sample))
    findings = examine(measurements, settings)
    decision = decide(findings)
    evaluation = Evaluation(
        decision=decision.outcome,
        reason=decision.reason,
        findings=findings,
        confidence=settings.confidence,
        counts=Counts(len(prompts), settings.variations, len(held_out_images)),
        prompts=prompts,
        lora=lora_path,
        dataset=dataset_path,
        measurements=None,
        settings=dict(recipe),
    )
    with scratch_folder(settings.work_dir) as folder:
        rows = settings.variations
        grid = comparison_grid(prompts, by_prompt(base, rows), by_prompt(styled, rows))
        loss, held_out_loss = read_curves(lora_folder)
        write_evaluation(folder, evaluation, grid, loss, held_out_loss)
        publish(run.store, folder, kind="evaluation", path=path, parents=[lora_path, dataset_path], settings=recipe)


class LoadedJudges:
    """The models that the settings name, on the device."""

    def __init__(self, settings: EvaluateSettings, device: torch.device, losses: Sides[list[float]]) -> None:
        self._settings = settings
        self._device = device
        self._losses = losses

    @cached_property
    def _network(self) -> StyleFeatures:
        return StyleFeatures().to(self._device)

    def style_features(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        return style_features(images, self._network)

    def clip_scores(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        return clip_scores(images, prompts, locate_model(self._settings, "model_clip"), self._device)

    def held_out_losses(self, _: Sequence[CaptionedImage]) -> Sides[list[float]]:
        return self._losses


def losses_of(pipeline: StableDiffusionPipeline, images: list[CaptionedImage], resolution: int) -> list[float]:
    """Held-out loss of each image, over all timesteps; the captions are encoded anew, as a LoRA may sit there too."""
    held_out = encode_held_out(images, pipeline.vae, pipeline.tokenizer, pipeline.text_encoder, resolution)
    scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
    with torch.autocast(pipeline.device.type, pipeline.dtype, enabled=pipeline.dtype != torch.float32):
        images_one_by_one = stopping.interruptible(range(len(held_out)))
        losses = held_out_losses(pipeline.unet, scheduler, held_out, pipeline.device, images_one_by_one)
    means: list[float] = losses.mean(dim=1).tolist()
    return means


def read_curves(lora_folder: Path) -> tuple[list[tuple[int, float]], list[tuple[int, float]]]:
    """Training and held-out loss by step, as `train` left them beside the LoRA; empty for a LoRA from elsewhere."""
    metrics = lora_folder / "metrics.jsonl"
    lines = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []

    def curve(name: str) -> list[tuple[int, float]]:
        return [(line["step"], line[name]) for line in lines if name in line]

    return curve("loss"), curve("held_out_loss")
