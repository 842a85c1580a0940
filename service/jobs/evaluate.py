"""`sdlora evaluate`: the LoRA against the base model on held-out images; promote, hold or reject."""

from collections.abc import Sequence
from typing import Any

import structlog
from PIL import Image

from service import stopping
from service.artifacts import layout
from service.artifacts.fetching import fetch
from service.artifacts.history import History
from service.artifacts.kinds import evaluation, measurements
from service.artifacts.kinds.dataset import read as read_dataset
from service.artifacts.kinds.images import BASE, GRID, LORA
from service.artifacts.kinds.lora import Lora, read_curves
from service.artifacts.recipes import result_of
from service.artifacts.runs import Run
from service.diffusion.drawing.comparison import Comparison, images_of
from service.diffusion.drawing.files import read_picture, read_pictures
from service.diffusion.drawing.requests import Drawing
from service.diffusion.images import read_split
from service.diffusion.imported import lora_of
from service.diffusion.trained_on import check_trained_on
from service.evaluation.gate import CRITERIA, decide, examine, measure
from service.evaluation.judges import LoadedJudges
from service.evaluation.report import write_evaluation
from service.evaluation.sample import Sample, Sides
from service.exits import Rejected
from service.outcome import add_facts
from service.settings.evaluate import EvaluateSettings
from service.settings.identity import identity
from service.storage.interface import ObjectStore
from service.storage.opening import open_store
from service.storage.scratch import scratch_folder

log = structlog.get_logger(__name__)


def evaluate(settings: EvaluateSettings) -> str:
    """Draws, measures, decides and publishes the evaluation. Returns its path below ARTIFACTS_URI.

    Each of the three is done only where its result is not there yet: another threshold decides anew what was measured,
    another MODEL_CLIP measures anew what was drawn. Raises Rejected, after publishing, when EVALUATE_FAIL_UNLESS_PROMOTED
    is set and the decision is another.
    """
    run = Run(open_store(settings.artifacts_uri), settings.run_id)
    lora = lora_of(run, settings.lora, settings.work_dir)
    check_trained_on(lora, settings)
    path = decided(run, settings, lora, dataset_of(run, settings, lora))
    found = evaluation.read_json(fetch(run.store, path, settings.work_dir))
    page = f"{path}/{evaluation.PAGE_FILE}"
    add_facts(decision=found.decision, reason=found.reason, page=page)
    log.info("decided", decision=found.decision, reason=found.reason, evaluation=path, page=page)
    if settings.fail_unless_promoted and found.decision != "promote":
        raise Rejected(found.reason)
    return path


def dataset_of(run: Run, settings: EvaluateSettings, lora: Lora) -> str:
    """Path of the data set whose held-out images are the measure: the LoRA's own, or the run's for a LoRA from elsewhere."""
    return settings.dataset or (lora.dataset if lora.parents else run.dataset())


def made_of(lora: Lora, dataset_path: str) -> dict[str, Any]:
    """What no setting tells of an evaluation. The LoRA's own data set goes without saying."""
    own = lora.parents[:1] == [dataset_path]
    return {"lora": lora.path, "lora_version": lora.version, "dataset": None if own else dataset_path}


def champion_now(store: ObjectStore, model: str | None) -> evaluation.Champion | None:
    """The champion of the model at this moment; None where no model is named, or it has none."""
    entry = History.read(store, model).champion if model else None
    return evaluation.Champion(lora=entry.lora or "", version=entry.version) if entry else None


def decided(run: Run, settings: EvaluateSettings, lora: Lora, dataset_path: str) -> str:
    """The path of the evaluation: from what was measured, without a model."""
    champion = champion_now(run.store, settings.champion)
    against = champion.model_dump() if champion else None
    recipe = identity(settings, **made_of(lora, dataset_path), champion=against)
    result = result_of(run, layout.Evaluation, settings, recipe)
    if result.made:
        return result.path
    measured_at = measured(run, settings, lora, dataset_path)
    found = measurements.read_arrays(fetch(run.store, measured_at, settings.work_dir))
    findings = examine(found, settings)
    decision = decide(findings)
    prompts = list(dict.fromkeys(found.of.prompts))
    counts = evaluation.Counts(len(prompts), found.of.variations, len(found.of.held_out))
    content = evaluation.Evaluation(
        decision=decision.outcome,
        reason=decision.reason,
        findings=findings,
        confidence=settings.confidence,
        counts=counts,
        prompts=prompts,
        lora=lora.path,
        champion=champion,
        dataset=dataset_path,
        measurements=measured_at,
        settings=recipe,
    )
    grid = read_picture(fetch(run.store, found.of.images, settings.work_dir, stopping.check) / GRID)
    curves = read_curves(fetch(run.store, lora.path, settings.work_dir))
    with scratch_folder(settings.work_dir) as folder:
        write_evaluation(folder, content, grid, *curves)
        parents = [lora.path, dataset_path, measured_at]
        evaluation.write(run.store, folder, path=result.path, parents=parents, recipe=recipe)
    return result.path


def measured(run: Run, settings: EvaluateSettings, lora: Lora, dataset_path: str) -> str:
    """The path of the measurements: what models say of the images, for all criteria."""
    criteria = [criterion.name for criterion in CRITERIA]
    recipe = identity(settings, "measuring", **made_of(lora, dataset_path), criteria=criteria)
    result = result_of(run, layout.Measurements, settings, recipe)
    if result.made:
        return result.path
    weights = fetch(run.store, lora.path, settings.work_dir)  # before anything is drawn: it may be damaged
    dataset = fetch(run.store, dataset_path, settings.work_dir, stopping.check)
    held_out = read_split(dataset, "validation")
    comparison = comparison_of(settings, lora, dataset_path, [image.caption for image in held_out])
    images_path = images_of(run, settings, comparison)

    pictures = fetch(run.store, images_path, settings.work_dir, stopping.check)
    sides: Sides[Sequence[Image.Image]] = Sides(read_pictures(pictures / BASE), read_pictures(pictures / LORA))
    side = lora.resolution if "resolution" in lora.recipe else sides.base[0].width
    sample = Sample(
        prompts=[request.prompt for request in comparison.requests],
        pictures=sides,
        held_out=held_out,
        training=read_split(dataset, "train"),
        style=read_dataset(run.store, dataset_path).style,
        judges=LoadedJudges(settings, weights, side),
    )
    content = measurements.Measured(
        images=images_path,
        prompts=list(sample.prompts),
        variations=settings.variations,
        held_out=[image.name for image in held_out],
    )
    with scratch_folder(settings.work_dir) as folder:
        measurements.write_arrays(measurements.Measurements(content, measure(sample)), folder)
        parents = [lora.path, dataset_path, images_path]
        measurements.write(run.store, folder, path=result.path, parents=parents, recipe=recipe)
    log.info("measured", measurements=result.path, criteria=criteria)
    return result.path


def comparison_of(settings: EvaluateSettings, lora: Lora, dataset_path: str, captions: Sequence[str]) -> Comparison:
    """What is drawn: the captions of held-out images, each once."""
    return Comparison(
        prompts=list(dict.fromkeys(captions))[: settings.max_prompts],
        variations=settings.variations,
        seed=settings.seed,
        drawing=Drawing(settings.steps, settings.guidance, settings.resolution, settings.batch_size),
        lora=lora.path,
        lora_scale=1.0,
        recipe=identity(settings, "drawing", **made_of(lora, dataset_path)),
    )
