"""The models, one class each: a job's settings inherit those of the models that it loads.

Python reads the bases of a class from the right: the rightmost model comes first in help, tables and recipes.
"""

from typing import Any

from pydantic import model_validator

from service.settings.common import CommonSettings
from service.settings.declaring import decides

MINIATURE = "miniature"
GONE_FROM_THE_HUB = {"runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5"}


class ModelSettings(CommonSettings):
    """What all models share. `miniature` as base makes the whole family miniature unless told otherwise."""

    @classmethod
    def known_models(cls) -> tuple[str, ...]:
        """The fields that name a model, such as "model_base"."""
        return tuple(name for name in cls.model_fields if f"{name}_revision" in cls.model_fields)

    def models(self) -> tuple[str, ...]:
        """Those of them that the job will load."""
        return self.known_models()

    @model_validator(mode="before")
    @classmethod
    def _miniature_is_a_family(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("model_base") == MINIATURE:
            return {"model_vae": MINIATURE, "model_captioner": MINIATURE, "model_clip": MINIATURE, **values}
        return values

    @model_validator(mode="before")
    @classmethod
    def _follow_moved_models(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("model_base") in GONE_FROM_THE_HUB:
            return {**values, "model_base": GONE_FROM_THE_HUB[values["model_base"]]}
        return values


class BaseModelSettings(ModelSettings):
    model_base: str = decides(
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        stage="drawing",
        validation_alias="model_base",
        description="Base model: a hub id, a local folder, an s3:// mirror, or `miniature`.",
    )
    model_base_revision: str = decides(
        "451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
        stage="drawing",
        validation_alias="model_base_revision",
        description="Commit of the base model on the hub.",
    )


class VaeSettings(ModelSettings):
    model_vae: str = decides(
        "stabilityai/sd-vae-ft-mse",
        stage="drawing",
        validation_alias="model_vae",
        description="Autoencoder, named like the base model; `base` for the base model's own.",
    )
    model_vae_revision: str = decides(
        "31f26fdeee1355a5c34592e401dd41e45d25a493",
        stage="drawing",
        validation_alias="model_vae_revision",
        description="Commit of the autoencoder on the hub.",
    )


class CaptionerSettings(ModelSettings):
    model_captioner: str = decides(
        "Salesforce/blip-image-captioning-base",
        validation_alias="model_captioner",
        description="Model that captions the images, a BLIP unless DATA_PREP_CAPTIONER says otherwise.",
    )
    model_captioner_revision: str = decides(
        "82a37760796d32b1411fe092ab5d4e227313294b",
        validation_alias="model_captioner_revision",
        description="Commit of the captioner on the hub.",
    )


class ClipSettings(ModelSettings):
    model_clip: str = decides(
        "openai/clip-vit-base-patch32",
        stage="measuring",
        validation_alias="model_clip",
        description="CLIP model that judges prompt adherence, named like the base model.",
    )
    model_clip_revision: str = decides(
        "3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268",
        stage="measuring",
        validation_alias="model_clip_revision",
        description="Commit of the CLIP model on the hub.",
    )


class DiffusionSettings(VaeSettings, BaseModelSettings):
    """What trains and draws: the base model with an autoencoder."""


class FamilySettings(ClipSettings, CaptionerSettings, DiffusionSettings):
    """All models that any job loads."""
