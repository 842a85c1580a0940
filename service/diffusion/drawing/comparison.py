"""The same prompts and seeds by the base model and by LoRAs: drawn once, published as images, read again."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import structlog
from PIL import Image

from service.artifacts import layout
from service.artifacts.fetching import fetch
from service.artifacts.kinds import images
from service.artifacts.kinds.images import BASE, GRID, LORA
from service.artifacts.places import Place
from service.artifacts.recipes import Result, result_of
from service.artifacts.runs import Run
from service.diffusion.drawing.files import Origin, write_grid, write_pictures
from service.diffusion.drawing.grid import comparison_grid
from service.diffusion.drawing.kept_pictures import KeptPictures, clear
from service.diffusion.drawing.requests import Drawing, Request, by_prompt, requests_for
from service.diffusion.drawing.sampling import draw_pictures
from service.diffusion.families import family_of
from service.diffusion.family import Pipeline
from service.settings.models import DiffusionSettings
from service.storage.scratch import scratch_folder

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Comparison:
    """What is drawn, and what the images are known by.

    Each of the prompts is drawn with the seeds seed, seed + 1, … as often as there are variations. lora: its path below
    ARTIFACTS_URI; lora_scale: its strength; recipe: the identity of the images; place: where such images lie, by run and key.
    with_base: False draws with the LoRA alone, where the base's pictures are there already.
    """

    prompts: Sequence[str]
    variations: int
    seed: int
    drawing: Drawing
    lora: str
    lora_scale: float
    recipe: Mapping[str, Any]
    place: Callable[[str, str], Place] = layout.Images
    with_base: bool = True

    @property
    def requests(self) -> list[Request]:
        """The pictures of each side, prompt by prompt."""
        return requests_for(self.prompts, self.variations, self.seed)


def images_of(run: Run, settings: DiffusionSettings, comparison: Comparison) -> str:
    """The path of the images below ARTIFACTS_URI: of those that were drawn before, or of new ones.

    Finished batches are kept in the store while it is under way. Raises BadData for a LoRA that does not fit the base model,
    Stopped when a stop was requested.
    """
    result = result_of(run, comparison.place, settings, comparison.recipe)
    under_way = layout.Drawing(run.run_id, result.key).path
    if result.made:
        log.info("already complete", images=result.path)
    else:
        _draw_and_publish(run, settings, comparison, result)
    clear(run.store, under_way)
    return result.path


def _draw_and_publish(run: Run, settings: DiffusionSettings, comparison: Comparison, result: Result) -> None:
    lora_folder = fetch(run.store, comparison.lora, settings.work_dir)  # before anything is drawn: it may be damaged
    pipeline = family_of(settings).open_pipeline(settings)
    base, lora = _draw(pipeline, comparison, lora_folder, [_kept(run, result.key, side) for side in (BASE, LORA)])
    with scratch_folder(settings.work_dir) as folder:
        origin = Origin(comparison.drawing, settings.model_base, pipeline.sampler, comparison.recipe)
        write_pictures(folder / LORA, lora, comparison.requests, origin)
        if comparison.with_base:
            of_base = replace(origin, recipe={**comparison.recipe, "lora": None, "lora_version": None})
            write_pictures(folder / BASE, base, comparison.requests, of_base)
            above, below = (by_prompt(side, comparison.variations) for side in (base, lora))
            grid = comparison_grid(comparison.prompts, above, below)
            write_grid(folder / GRID, grid, base[0].size, comparison.requests, origin)
        recipe = comparison.recipe
        images.write(run.store, folder, path=result.path, lora=comparison.lora, recipe=recipe)
    log.info("images published", images=result.path, count=len(base) + len(lora))


def _draw(
    pipeline: Pipeline, comparison: Comparison, lora: Path, kept: Sequence[KeptPictures]
) -> tuple[list[Image.Image], list[Image.Image]]:
    """The pictures of both sides, of the base none where it is not asked for."""
    requests, drawing = comparison.requests, comparison.drawing
    base = []
    if comparison.with_base:
        base = draw_pictures(pipeline, requests, drawing, "drawing with the base model", kept[0])
    pipeline.put_on_lora(lora, comparison.lora_scale)
    return base, draw_pictures(pipeline, requests, drawing, "drawing with the LoRA", kept[1])


def _kept(run: Run, key: str, side: str) -> KeptPictures:
    return KeptPictures(run.store, layout.Drawn(run.run_id, key, side).path)
