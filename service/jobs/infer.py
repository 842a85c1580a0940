"""`sdlora infer`: prompts in, images of the base model and of the LoRA out."""

from service.artifacts.runs import Run
from service.diffusion.drawing.comparison import Comparison, images_of
from service.diffusion.drawing.requests import Drawing
from service.diffusion.imported import lora_of
from service.diffusion.trained_on import check_trained_on
from service.settings.identity import identity
from service.settings.infer import InferSettings
from service.storage.opening import open_store


def infer(settings: InferSettings) -> str:
    """Draws the prompts with base and LoRA at the same seeds and publishes them. Returns the path of the images."""
    run = Run(open_store(settings.artifacts_uri), settings.run_id)
    lora = lora_of(run, settings.lora, settings.work_dir)
    check_trained_on(lora, settings)
    comparison = Comparison(
        prompts=settings.prompts,
        variations=settings.variations,
        seed=settings.seed,
        drawing=Drawing(
            settings.steps, settings.guidance, settings.resolution, settings.batch_size, settings.negative_prompt
        ),
        lora=lora.path,
        lora_scale=settings.lora_scale,
        recipe=identity(settings, lora=lora.path, lora_version=lora.version),
    )
    return images_of(run, settings, comparison)
