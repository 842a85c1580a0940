"""The models, one class each: a job's settings inherit those of the models that it loads.

Python reads the bases of a class from the right: the rightmost model comes first in help, tables and recipes.
"""

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, model_validator

from service import miniature
from service.settings.common import CommonSettings
from service.settings.declaring import decides
from service.settings.places import SCHEME, checked_place

MINIATURE = "miniature"
MINIATURE_FOLDERS = {
    "model_base": miniature.STABLE_DIFFUSION.name,
    "model_vae": miniature.STABLE_DIFFUSION.name,
    "model_captioner": miniature.CAPTIONER.name,
    "model_clip": miniature.CLIP.name,
}
OF_BASE = "base"
"""For the autoencoder: the one that belongs to the base model."""

GONE_FROM_THE_HUB = {"runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5"}


def _checked_model(name: str) -> str:
    """The name itself; raises ValueError when it can be no model's."""
    if name.startswith("s3://"):
        return checked_place(name)
    if SCHEME.match(name) or not (name == MINIATURE or _is_folder(name) or name.count("/") == 1):
        raise ValueError(
            f"{name!r} is no model: use a hub id (owner/name), a local folder, an s3:// mirror, or `miniature`"
        )
    return name


def _is_folder(name: str) -> bool:
    """Whether a model is named by its folder on this machine, be it there or not."""
    return name.startswith((".", "/", "~")) or Path(name).is_dir()


def is_public(name: str) -> bool:
    """Whether a model's name says something elsewhere too: the name of one on the hub, or the miniature's."""
    return not name.startswith("s3://") and not _is_folder(name)


def public_name(name: str) -> str:
    """A model's name for people elsewhere: of one in a folder or a bucket, the last part of its path."""
    return name if is_public(name) else Path(name).expanduser().name or "a model of its own"


Model = Annotated[str, AfterValidator(_checked_model)]
Vae = Annotated[str, AfterValidator(lambda name: name if name == OF_BASE else _checked_model(name))]


class ModelSettings(CommonSettings):
    """What all models share. `miniature` as base makes the whole family miniature unless told otherwise.

    The revision of a miniature follows from its files, so that a run of one edition does not go on with another.
    """

    @classmethod
    def known_models(cls) -> tuple[str, ...]:
        """The fields that name a model, such as "model_base"."""
        return tuple(name for name in cls.model_fields if f"{name}_revision" in cls.model_fields)

    def models(self) -> tuple[str, ...]:
        """Those of them that the job will load."""
        return self.known_models()

    @classmethod
    def prepared(cls, values: dict[str, Any]) -> dict[str, Any]:
        base = values.get("model_base")
        if base == MINIATURE:
            values = {"model_vae": MINIATURE, "model_captioner": MINIATURE, "model_clip": MINIATURE, **values}
        elif base in GONE_FROM_THE_HUB:
            values = {**values, "model_base": GONE_FROM_THE_HUB[base]}
        of_miniature = {
            f"{field}_revision": miniature.revisions()[folder]
            for field, folder in MINIATURE_FOLDERS.items()
            if values.get(field) == MINIATURE
        }
        return super().prepared({**of_miniature, **values})


class BaseModelSettings(ModelSettings):
    model_base: Model = decides(
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        stage="drawing",
        validation_alias="model_base",
        description="Base model: a hub id, a local folder, an s3:// mirror, or `miniature`.",
    )
    model_base_revision: str = decides(
        "451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
        stage="drawing",
        validation_alias="model_base_revision",
        description="Commit of the base model on the hub; of a miniature what its files come to.",
    )


class VaeSettings(ModelSettings):
    model_vae: Vae = decides(
        "stabilityai/sd-vae-ft-mse",
        stage="drawing",
        validation_alias="model_vae",
        description="Autoencoder, named like the base model; `base` for the base model's own.",
    )
    model_vae_revision: str = decides(
        "31f26fdeee1355a5c34592e401dd41e45d25a493",
        stage="drawing",
        validation_alias="model_vae_revision",
        description="Commit of the autoencoder on the hub; of a miniature what its files come to.",
    )


class CaptionerSettings(ModelSettings):
    model_captioner: Model = decides(
        "Salesforce/blip-image-captioning-base",
        validation_alias="model_captioner",
        description="Model that captions the images, a BLIP unless DATA_PREP_CAPTIONER says otherwise.",
    )
    model_captioner_revision: str = decides(
        "82a37760796d32b1411fe092ab5d4e227313294b",
        validation_alias="model_captioner_revision",
        description="Commit of the captioner on the hub; of a miniature what its files come to.",
    )


class ClipSettings(ModelSettings):
    model_clip: Model = decides(
        "openai/clip-vit-base-patch32",
        stage="measuring",
        validation_alias="model_clip",
        description="CLIP model that judges prompt adherence, named like the base model.",
    )
    model_clip_revision: str = decides(
        "3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268",
        stage="measuring",
        validation_alias="model_clip_revision",
        description="Commit of the CLIP model on the hub; of a miniature what its files come to.",
    )


class DiffusionSettings(VaeSettings, BaseModelSettings):
    """What trains and draws: the base model with an autoencoder."""

    @model_validator(mode="after")
    def _the_autoencoder_fits(self) -> Self:
        pair = (self.model_base, self.model_vae)
        if pair.count(MINIATURE) == 1:
            other = next(name for name in pair if name != MINIATURE)
            if other != OF_BASE and not other.startswith("s3://") and not _is_folder(other):
                raise ValueError(
                    f"MODEL_BASE={self.model_base} does not go with MODEL_VAE={self.model_vae}: the miniature's latents are "
                    "its own; leave MODEL_VAE out, or name two models that belong together"
                )
        return self


class FamilySettings(ClipSettings, CaptionerSettings, VaeSettings, BaseModelSettings):
    """All models that any job loads."""
