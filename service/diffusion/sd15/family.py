"""Stable Diffusion 1.x: a U-Net that attends to a CLIP's states, and predicts noise or velocity."""

from service.diffusion.sd15.components import Components, load_components
from service.diffusion.sd15.pipeline import SD15Pipeline, open_pipeline
from service.settings.models import DiffusionSettings


class SD15Family:
    """The `Family`."""

    name = "sd15"

    def load(self, settings: DiffusionSettings) -> Components:
        """The parts of MODEL_BASE and MODEL_VAE. Raises MissingInput, BadData or BadConfiguration."""
        return load_components(settings)

    def open_pipeline(self, settings: DiffusionSettings) -> SD15Pipeline:
        """diffusers' pipeline of MODEL_BASE and MODEL_VAE. Raises as `load` does."""
        return open_pipeline(settings)
