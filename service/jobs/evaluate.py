"""`sdlora evaluate`: the LoRA against the base model on held-out images; promote, hold or reject."""

from collections.abc import Sequence

import structlog

from service import stopping
from service.artifacts import layout
from service.artifacts.fetching import fetch
from service.artifacts.history import History
from service.artifacts.kinds import evaluation, measurements
from service.artifacts.kinds.dataset import read as read_dataset
from service.artifacts.kinds.evaluation import Champion
from service.artifacts.kinds.images import GRID
from service.artifacts.kinds.images import read as read_images
from service.artifacts.kinds.lora import Lora, read_curves
from service.artifacts.kinds.votes import hashes_of, read_files
from service.artifacts.recipes import result_of
from service.artifacts.runs import Run
from service.diffusion.drawing.comparison import images_of
from service.diffusion.drawing.files import read_picture
from service.diffusion.drawing.grid import comparison_grid, rows_grid
from service.diffusion.drawing.requests import by_prompt
from service.diffusion.images import CaptionedImage, read_split
from service.diffusion.imported import lora_of
from service.diffusion.trained_on import check_trained_on
from service.evaluation.blind import with_votes
from service.evaluation.compare import Pairs
from service.evaluation.extremes import extremes, extremes_grid
from service.evaluation.gate import criteria, decide, examine, measure
from service.evaluation.judged import (
    Choice,
    alone,
    choice_of,
    made_of,
    pictures_of,
    rival_of,
    scales_of,
    unprompted_of,
    what_chooses,
)
from service.evaluation.judges import LoadedJudges
from service.evaluation.neighbours import neighbours, neighbours_grid
from service.evaluation.report import Exhibits, write_evaluation
from service.evaluation.sample import Sample
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


def champion_now(store: ObjectStore, model: str | None) -> Champion | None:
    """The champion of the model at this moment; None where no model is named, or it has none."""
    entry = History.read(store, model).champion if model else None
    return Champion(lora=entry.lora or "", version=entry.version, scale=entry.scale) if entry else None


def rival_now(champion: Champion | None, settings: EvaluateSettings, lora: Lora) -> Champion | None:
    """The champion, unless it is this LoRA at this strength."""
    strengths = scales_of(settings, lora) or [1.0]
    itself = champion and champion.version == lora.version and strengths == [champion.scale]
    return None if itself else champion


def decided(run: Run, settings: EvaluateSettings, lora: Lora, dataset_path: str) -> str:
    """The path of the evaluation: from what was measured, without a model."""
    champion = champion_now(run.store, settings.champion)
    against = champion.model_dump() if champion else None
    votes = read_files(settings.votes or [], "EVALUATE_VOTES")
    recipe = identity(settings, **made_of(settings, lora, dataset_path), champion=against, votes=hashes_of(votes))
    result = result_of(run, layout.Evaluation, settings, recipe)
    if result.made:
        return result.path
    measured_at = measured(run, settings, lora, dataset_path, rival_now(champion, settings, lora))
    found = measurements.read_arrays(fetch(run.store, measured_at, settings.work_dir))
    if votes:
        found = with_votes(found, votes, read_images(run.store, found.of.images).version)
    findings = examine(found, settings)
    decision = decide(findings)
    prompts = list(dict.fromkeys(found.of.prompts))
    training = read_split(fetch(run.store, dataset_path, settings.work_dir, stopping.check), "train")
    counts = evaluation.Counts(len(prompts), found.of.variations, len(found.of.held_out))
    content = evaluation.Evaluation(
        decision=decision.outcome,
        reason=decision.reason,
        findings=findings,
        confidence=settings.confidence,
        counts=counts,
        prompts=prompts,
        nearest=neighbours(found, training),
        lora=lora.path,
        champion=champion,
        dataset=dataset_path,
        scale=found.of.scale,
        candidates=found.of.candidates,
        measurements=measured_at,
        settings=recipe,
    )
    exhibits = exhibits_of(run, settings, content, found, training)
    with scratch_folder(settings.work_dir) as folder:
        write_evaluation(folder, content, exhibits)
        evaluation.write_votes(sorted(votes.values()), folder)
        parents = [lora.path, dataset_path, measured_at]
        evaluation.write(run.store, folder, path=result.path, parents=parents, recipe=recipe)
    return result.path


def exhibits_of(
    run: Run,
    settings: EvaluateSettings,
    content: evaluation.Evaluation,
    found: measurements.Measurements,
    training: Sequence[CaptionedImage],
) -> Exhibits:
    """What the page shows beside the figures."""
    of = found.of
    images = fetch(run.store, of.images, settings.work_dir, stopping.check)
    curves = read_curves(fetch(run.store, content.lora, settings.work_dir))
    sides = pictures_of(run, settings, of.images)
    base, lora = (by_prompt(side, of.variations) for side in sides)
    champion = None
    if of.champion_images:
        reigning = by_prompt(alone(run, settings, of.champion_images), of.variations)
        champion = comparison_grid(content.prompts, reigning, lora, ("champion", "LoRA"))
    candidates = {f"{one.scale:g}": alone(run, settings, one.images)[:: of.variations] for one in of.candidates}
    return Exhibits(
        grid=read_picture(images / GRID),
        extremes=extremes_grid(extremes(found), content.prompts, base, lora),
        nearest=neighbours_grid(content.nearest, sides.lora, training),
        champion=champion,
        candidates=rows_grid(candidates) if candidates else None,
        losses=curves.loss,
        held_out=curves.held_out_loss,
        pairs=Pairs(of.images, read_images(run.store, of.images).version, of.prompts, sides),
    )


def measured(run: Run, settings: EvaluateSettings, lora: Lora, dataset_path: str, rival: Champion | None) -> str:
    """The path of the measurements: what models say of the images, for all criteria. rival: the champion to compare with."""
    asked = [criterion.name for criterion in criteria(champion=rival is not None)]
    against = rival.model_dump() if rival else None
    made = made_of(settings, lora, dataset_path) | what_chooses(settings)
    recipe = identity(settings, "measuring", **made, criteria=asked, champion=against)
    result = result_of(run, layout.Measurements, settings, recipe)
    if result.made:
        return result.path
    choice = choice_of(run, settings, lora, dataset_path)
    sample, images = sample_of(run, settings, lora, dataset_path, rival, choice)
    content = measurements.Measured(
        images=images[0],
        champion_images=images[-1] if rival else None,
        scale=choice.comparison.lora_scale,
        candidates=list(choice.candidates),
        prompts=list(sample.prompts),
        variations=settings.variations,
        held_out=[image.name for image in sample.held_out],
    )
    with scratch_folder(settings.work_dir) as folder:
        measurements.write_arrays(measurements.Measurements(content, measure(sample)), folder)
        parents = [lora.path, dataset_path, *(one.images for one in choice.candidates), *images]
        measurements.write(run.store, folder, path=result.path, parents=parents, recipe=recipe)
    log.info("measured", measurements=result.path, criteria=asked)
    return result.path


def sample_of(
    run: Run, settings: EvaluateSettings, lora: Lora, dataset_path: str, rival: Champion | None, choice: Choice
) -> tuple[Sample, list[str]]:
    """All that there is to measure, drawn where it is not there yet; and the paths of the images.

    Those to judge by come first, and those of the champion, if there is one, last.
    """
    dataset = fetch(run.store, dataset_path, settings.work_dir, stopping.check)
    style = read_dataset(run.store, dataset_path).style
    comparison = choice.comparison
    unprompted = unprompted_of(comparison, settings.bleed_prompts, style)
    of_champion = rival_of(run, settings, comparison, rival, dataset_path) if rival else None
    images = [images_of(run, settings, drawn) for drawn in (comparison, unprompted, of_champion) if drawn]
    pictures = pictures_of(run, settings, images[0])
    sample = Sample(
        prompts=[request.prompt for request in comparison.requests],
        pictures=pictures,
        held_out=choice.held_out,
        training=read_split(dataset, "train"),
        style=style,
        judges=LoadedJudges(
            settings,
            fetch(run.store, lora.path, settings.work_dir),
            lora.resolution if "resolution" in lora.recipe else pictures.base[0].width,
            comparison.lora_scale,
        ),
        without_style=pictures_of(run, settings, images[1]) if unprompted else None,
        champion=alone(run, settings, images[-1]) if rival else None,
    )
    return sample, images
