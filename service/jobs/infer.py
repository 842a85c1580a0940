"""`sdlora infer`: prompts in, images of the base model and of the LoRA out."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import structlog
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from service.artifacts import layout
from service.artifacts.keys import content_key
from service.artifacts.publishing import fetch, find_made, publish, read_manifest
from service.artifacts.runs import Run
from service.diffusion.drawing.grid import comparison_grid
from service.diffusion.drawing.kept_pictures import KeptPictures, clear
from service.diffusion.drawing.requests import Drawing, Request, by_prompt, requests_for
from service.diffusion.drawing.sampling import draw_pictures
from service.diffusion.families import family_of
from service.settings.identity import for_key, identity, same
from service.settings.infer import InferSettings
from service.storage.opening import open_store
from service.storage.scratch import scratch_folder

log = structlog.get_logger(__name__)

GRID_NAME = "grid.png"


def infer(settings: InferSettings) -> str:
    """Draws the prompts with base and LoRA at the same seeds and publishes them. Returns the path of the images."""
    run = Run(open_store(settings.artifacts_uri), settings.run_id)
    lora_path = settings.lora or run.lora_path
    lora = read_manifest(run.store, lora_path)
    recipe = identity(settings, lora=lora_path, lora_version=lora.version)
    key = content_key(for_key(InferSettings, recipe))
    images_path, under_way = layout.Images(run.run_id, key).path, layout.Drawing(run.run_id, key).path
    made = find_made(run.store, images_path, lambda stored: same(InferSettings, stored, recipe))
    if made is not None:
        clear(run.store, under_way)
        log.info("already complete", images=made)
        return made

    requests = requests_for(settings.prompts, settings.variations, settings.seed)
    drawing = Drawing(
        settings.steps, settings.guidance, settings.resolution, settings.batch_size, settings.negative_prompt
    )
    lora_folder = fetch(run.store, lora_path, settings.work_dir)  # before anything is drawn: it may be damaged
    pipeline = family_of(settings).open_pipeline(settings)
    base_kept, lora_kept = (KeptPictures(run.store, f"{under_way}/{model}") for model in ("base", "lora"))
    base = draw_pictures(pipeline, requests, drawing, "drawing with the base model", base_kept)
    pipeline.put_on_lora(lora_folder, settings.lora_scale)
    styled = draw_pictures(pipeline, requests, drawing, "drawing with the LoRA", lora_kept)

    with scratch_folder(settings.work_dir) as folder:
        write_images(folder / "base", base, requests, recipe | {"lora": None, "lora_version": None})
        write_images(folder / "lora", styled, requests, recipe)
        rows = settings.variations
        comparison_grid(settings.prompts, by_prompt(base, rows), by_prompt(styled, rows)).save(folder / GRID_NAME)
        publish(run.store, folder, kind="images", path=images_path, parents=[lora_path], settings=recipe)
    clear(run.store, under_way)
    log.info("images published", images=images_path, grid=f"{images_path}/{GRID_NAME}", count=len(base) + len(styled))
    return images_path


def write_images(
    folder: Path, pictures: Sequence[Image.Image], requests: Sequence[Request], recipe: dict[str, Any]
) -> None:
    """One PNG a picture, with everything inside that is needed to draw it again."""
    folder.mkdir()
    for number, (picture, request) in enumerate(zip(pictures, requests, strict=True)):
        parameters = PngInfo()
        parameters.add_text("parameters", json.dumps({**recipe, "prompt": request.prompt, "seed": request.seed}))
        picture.save(folder / f"{number:05d}.png", pnginfo=parameters)
