"""`sdlora infer`: prompts in, images of the base model and of the LoRA out."""

from service.artifacts.runs import Run
from service.diffusion.drawing.comparison import Comparison, images_of
from service.diffusion.drawing.requests import Drawing
from service.diffusion.imported import lora_of
from service.diffusion.trained_on import check_trained_on
from service.outcome import add_facts
from service.settings.identity import identity
from service.settings.infer import InferSettings
from service.storage.opening import open_store


def infer(settings: InferSettings) -> str:
    """Draws the prompts with base and LoRA at the same seeds and publishes them. Returns the path of the images."""
    run = Run(open_store(settings.artifacts_uri), settings.run_id)
    lora = lora_of(run, settings.lora, settings.work_dir)
    check_trained_on(lora, settings)
    scale = settings.lora_scale if "lora_scale" in settings.model_fields_set else lora.scale
    comparison = Comparison(
        prompts=settings.prompts,
        variations=settings.variations,
        seed=settings.seed,
        drawing=Drawing(
            settings.steps, settings.guidance, settings.resolution, settings.batch_size, settings.negative_prompt
        ),
        lora=lora.path,
        lora_scale=scale,
        recipe=identity(settings, lora=lora.path, lora_version=lora.version, lora_scale=scale),
    )
    path = images_of(run, settings, comparison)
    add_facts(pictures=len(comparison.requests), base=settings.model_base, lora=lora.path, lora_scale=scale)
    return path
