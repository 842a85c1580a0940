"""What is judged: which prompts are drawn, at which strength of the LoRA, beside what else."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import structlog
from PIL import Image

from service import stopping
from service.artifacts import layout
from service.artifacts.fetching import fetch
from service.artifacts.kinds.dataset import read as read_dataset
from service.artifacts.kinds.evaluation import Champion
from service.artifacts.kinds.images import BASE, LORA
from service.artifacts.kinds.lora import Lora
from service.artifacts.kinds.lora import read as read_lora
from service.artifacts.kinds.measurements import Candidate
from service.artifacts.runs import Run
from service.diffusion.drawing.comparison import Comparison, images_of
from service.diffusion.drawing.files import read_pictures
from service.diffusion.drawing.requests import Drawing
from service.diffusion.images import CaptionedImage, read_split
from service.diffusion.trained_on import check_comparable
from service.evaluation.adherence import content_of
from service.evaluation.choosing import chosen, halves
from service.evaluation.judges import LoadedJudges
from service.evaluation.metrics import kid, mean
from service.evaluation.sample import Sample, Sides
from service.settings.evaluate import EvaluateSettings
from service.settings.identity import identity

log = structlog.get_logger(__name__)


def made_of(settings: EvaluateSettings, lora: Lora, dataset_path: str) -> dict[str, Any]:
    """What no setting tells of an evaluation. The LoRA's own data set goes without saying."""
    own = lora.parents[:1] == [dataset_path]
    return {
        "lora": lora.path,
        "lora_version": lora.version,
        "dataset": None if own else dataset_path,
        "scales": scales_of(settings, lora),
    }


def scales_of(settings: EvaluateSettings, lora: Lora) -> list[float]:
    """The strengths to try; empty for the LoRA's own where that is 1."""
    return settings.scales or ([] if lora.scale == 1 else [lora.scale])


def what_chooses(settings: EvaluateSettings) -> dict[str, Any]:
    """Of the settings that else decide alone, the one by which a strength is chosen: with another, another may be."""
    return {"adherence_margin": settings.adherence_margin} if len(settings.scales) > 1 else {}


@dataclass(frozen=True)
class Choice:
    """What is judged. held_out: the images that decide; candidates: the strengths that were tried, none where there is one."""

    comparison: Comparison
    held_out: Sequence[CaptionedImage]
    candidates: Sequence[Candidate] = ()


def choice_of(run: Run, settings: EvaluateSettings, lora: Lora, dataset_path: str) -> Choice:
    """All prompts at one strength; of several, the one that half of the prompts choose, and the other half of them."""
    weights = fetch(run.store, lora.path, settings.work_dir)  # before anything is drawn: it may be damaged
    held_out = read_split(fetch(run.store, dataset_path, settings.work_dir, stopping.check), "validation")
    comparison = comparison_of(settings, lora, dataset_path, [image.caption for image in held_out])
    if len(settings.scales) < 2:
        return Choice(comparison, held_out)
    choosing, deciding = halves(comparison.prompts)
    half = replace(comparison, prompts=choosing, place=layout.Tried)
    tried = [replace(at_scale(half, scale), with_base=not number) for number, scale in enumerate(settings.scales)]
    images = [images_of(run, settings, one) for one in tried]
    candidates, needed = candidates_of(run, settings, tried, images, held_out, weights, dataset_path)
    best = chosen(candidates, needed)
    log.info("strength chosen", scale=best.scale, of=settings.scales, prompts=len(choosing))
    others = [image for image in held_out if image.caption not in choosing]
    return Choice(replace(at_scale(comparison, best.scale), prompts=deciding), others, candidates)


def candidates_of(
    run: Run,
    settings: EvaluateSettings,
    tried: Sequence[Comparison],
    images: Sequence[str],
    held_out: Sequence[CaptionedImage],
    weights: Path,
    dataset_path: str,
) -> tuple[list[Candidate], float]:
    """What became of each strength by the held-out images of these prompts alone; and the CLIPScore that is needed."""
    first = pictures_of(run, settings, images[0])
    sample = Sample(
        prompts=[request.prompt for request in tried[0].requests],
        pictures=first,
        held_out=[image for image in held_out if image.caption in tried[0].prompts],
        training=[],
        style=read_dataset(run.store, dataset_path).style,
        judges=LoadedJudges(settings, weights, first.base[0].width),
    )
    scores = sample.judges.clip_scores
    found = []
    for one, path in zip(tried, images, strict=True):
        drawn = alone(run, settings, path)
        distance = kid(sample.held_out_features, sample.judges.style_features(drawn))
        adherence = mean(scores(drawn, sample.contents))
        found.append(Candidate(scale=one.lora_scale, style_distance=distance, adherence=adherence, images=path))
    return found, mean(scores(first.base, sample.contents)) - settings.adherence_margin


def pictures_of(run: Run, settings: EvaluateSettings, path: str) -> Sides[Sequence[Image.Image]]:
    """The pictures of both sides of published images."""
    folder = fetch(run.store, path, settings.work_dir, stopping.check)
    return Sides(read_pictures(folder / BASE), read_pictures(folder / LORA))


def alone(run: Run, settings: EvaluateSettings, path: str) -> list[Image.Image]:
    """The pictures of published images that were drawn with a LoRA alone."""
    return read_pictures(fetch(run.store, path, settings.work_dir, stopping.check) / LORA)


def rival_of(
    run: Run, settings: EvaluateSettings, comparison: Comparison, champion: Champion, dataset_path: str
) -> Comparison:
    """What the champion draws: the same, at its own strength. The base's pictures are in the comparison already.

    Raises MissingInput when its LoRA is gone, BadData when another one is there by now, BadConfiguration for that of another
    base model.
    """
    check_comparable(read_lora(run.store, champion.lora), champion.version, settings)
    recipe = identity(
        settings,
        "drawing",
        lora=champion.lora,
        lora_version=champion.version,
        lora_scale=champion.scale,
        dataset=dataset_path,
    )
    drawn = replace(comparison, with_base=False, place=layout.Rival)
    return replace(drawn, lora=champion.lora, lora_scale=champion.scale, recipe=recipe)


def comparison_of(settings: EvaluateSettings, lora: Lora, dataset_path: str, captions: Sequence[str]) -> Comparison:
    """What is drawn: the captions of held-out images, each once, at the LoRA's own strength or the one that is asked for."""
    return Comparison(
        prompts=list(dict.fromkeys(captions))[: settings.max_prompts],
        variations=settings.variations,
        seed=settings.seed,
        drawing=Drawing(settings.steps, settings.guidance, settings.resolution, settings.batch_size),
        lora=lora.path,
        lora_scale=next(iter(scales_of(settings, lora)), 1.0),
        recipe=identity(settings, "drawing", **made_of(settings, lora, dataset_path)),
    )


def at_scale(comparison: Comparison, scale: float) -> Comparison:
    """The same at one of several strengths."""
    return replace(comparison, lora_scale=scale, recipe={**comparison.recipe, "lora_scale": scale})


def unprompted_of(comparison: Comparison, count: int, style: str) -> Comparison | None:
    """What is drawn to see whether the style bleeds: what `count` of the prompts ask for beside the style, one seed each.

    None where fewer than 2 prompts have both.
    """
    contents = [content for prompt in comparison.prompts if (content := content_of(prompt, style)) != prompt]
    prompts = list(dict.fromkeys(contents))[:count]
    if len(prompts) < 2:
        return None
    recipe = {**comparison.recipe, "bleed_prompts": count}
    return replace(comparison, prompts=prompts, variations=1, recipe=recipe, place=layout.Unprompted)
