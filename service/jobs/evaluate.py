"""`sdlora evaluate`: the LoRA against the base model on held-out images; promote, hold or reject."""

import json
from pathlib import Path

import structlog
from PIL import Image

from service import stopping
from service.artifacts import layout
from service.artifacts.keys import content_key
from service.artifacts.publishing import exists, fetch, publish, read_manifest
from service.artifacts.runs import Run
from service.diffusion.clip import clip_scores
from service.diffusion.drawing.grid import comparison_grid
from service.diffusion.drawing.kept_pictures import KeptPictures, clear
from service.diffusion.drawing.requests import Drawing, by_prompt, requests_for
from service.diffusion.drawing.sampling import draw_pictures
from service.diffusion.families import family_of
from service.diffusion.held_out import losses_of
from service.diffusion.images import CaptionedImage, open_image, read_split
from service.diffusion.models import locate_model
from service.evaluation.adherence import content_of
from service.evaluation.features import StyleFeatures, style_features
from service.evaluation.gate import Decision, Measurements, Thresholds, decide
from service.evaluation.metrics import adherence_gain, held_out_gain, kid, liveness, style_gain
from service.evaluation.report import Counts, Evaluation, Pair, write_report
from service.exits import Rejected
from service.settings.evaluate import EvaluateSettings
from service.storage.opening import open_store
from service.storage.scratch import scratch_folder

log = structlog.get_logger(__name__)

PAGE_NAME = "index.html"


def evaluate(settings: EvaluateSettings) -> str:
    """Measures, decides and publishes the evaluation. Returns its path below ARTIFACTS_URI.

    Raises Rejected, after publishing, when EVALUATE_FAIL_UNLESS_PROMOTED is set and the decision is another.
    """
    run = Run(open_store(settings.artifacts_uri), settings.run_id)
    lora_path = settings.lora or run.lora_path
    lora = read_manifest(run.store, lora_path)
    recipe = {**settings.recipe(), "lora": lora_path, "lora_version": lora.version}
    path = layout.Evaluation(run.run_id, content_key(recipe)).path
    under_way = layout.Drawing(run.run_id, content_key(recipe)).path
    if not exists(run.store, path):
        measure_and_publish(run, settings, lora_path, path, under_way, recipe)
    clear(run.store, under_way)
    found = read_decision(fetch(run.store, path, settings.work_dir))
    log.info("decided", decision=found.outcome, reason=found.reason, evaluation=path, page=f"{path}/{PAGE_NAME}")
    if settings.fail_unless_promoted and found.outcome != "promote":
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

    pipeline = family_of(settings).open_pipeline(settings)
    base_losses = losses_of(pipeline, held_out_images, lora.settings["resolution"])
    base_kept, lora_kept = (KeptPictures(run.store, f"{under_way}/{model}") for model in ("base", "lora"))
    base = draw_pictures(pipeline, requests, drawing, "drawing with the base model", base_kept)
    pipeline.put_on_lora(lora_folder)
    lora_losses = losses_of(pipeline, held_out_images, lora.settings["resolution"])
    styled = draw_pictures(pipeline, requests, drawing, "drawing with the LoRA", lora_kept)

    network = StyleFeatures().to(pipeline.device)
    reference = style_features(as_large_as(held_out_images, base[0].size), network)
    base_features, lora_features = style_features(base, network), style_features(styled, network)
    contents = [content_of(request.prompt, style) for request in requests]
    clip = locate_model(settings, "model_clip")
    base_scores = clip_scores(base, contents, clip, pipeline.device)
    lora_scores = clip_scores(styled, contents, clip, pipeline.device)

    groups = [request.prompt for request in requests]
    measurements = Measurements(
        liveness=liveness(base, styled),
        style_gain=style_gain(reference, base_features, lora_features, groups, settings.confidence),
        adherence_gain=adherence_gain(base_scores, lora_scores, groups, settings.confidence),
        held_out_gain=held_out_gain(base_losses, lora_losses, settings.confidence),
    )
    thresholds = Thresholds(adherence_margin=settings.adherence_margin)
    decision = decide(measurements, thresholds)
    evaluation = Evaluation(
        decision=decision.outcome,
        reason=decision.reason,
        measurements=measurements,
        thresholds=thresholds,
        confidence=settings.confidence,
        style_distance=Pair(kid(reference, base_features), kid(reference, lora_features)),
        adherence=Pair(mean(base_scores), mean(lora_scores)),
        held_out_loss=Pair(mean(base_losses), mean(lora_losses)),
        counts=Counts(len(prompts), settings.variations, len(held_out_images)),
        prompts=prompts,
        lora=lora_path,
        dataset=dataset_path,
        settings=dict(recipe),
    )
    with scratch_folder(settings.work_dir) as folder:
        rows = settings.variations
        grid = comparison_grid(prompts, by_prompt(base, rows), by_prompt(styled, rows))
        loss, held_out_loss = read_curves(lora_folder)
        write_report(folder, evaluation, grid, loss, held_out_loss)
        publish(run.store, folder, kind="evaluation", path=path, parents=[lora_path, dataset_path], settings=recipe)


def as_large_as(images: list[CaptionedImage], size: tuple[int, int]) -> list[Image.Image]:
    """The held-out images at the size of the drawn ones: else the resizing itself would read as a difference of style."""
    return [open_image(image).resize(size, Image.Resampling.LANCZOS) for image in images]


def read_curves(lora_folder: Path) -> tuple[list[tuple[int, float]], list[tuple[int, float]]]:
    """Training and held-out loss by step, as `train` left them beside the LoRA; empty for a LoRA from elsewhere."""
    metrics = lora_folder / "metrics.jsonl"
    lines = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []

    def curve(name: str) -> list[tuple[int, float]]:
        return [(line["step"], line[name]) for line in lines if name in line]

    return curve("loss"), curve("held_out_loss")


def read_decision(folder: Path) -> Decision:
    found = json.loads((folder / "evaluation.json").read_text())
    return Decision(found["decision"], found["reason"])


def mean(values: list[float]) -> float:
    return sum(values) / len(values)
