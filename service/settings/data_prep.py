"""Settings of `sdlora data-prep`."""

from typing import Literal, Self

from pydantic import Field, model_validator

from service.settings.common import Identifier, ModelSettings, prefixed


class DataPrepSettings(ModelSettings):
    """Turns images into a captioned, checked and published data set."""

    model_config = prefixed("data_prep")

    source: Literal["bing", "folder"] = Field(
        "bing", description="Where the images come from: a Bing image search, or a folder."
    )
    folder: str | None = Field(
        None,
        description="For the source `folder`: a local folder, the s3:// URI of one, the path of a published artifact "
        "below ARTIFACTS_URI, or `miniature` for the sample images that ship with the package.",
    )
    query: str = Field("8-bit illustration", min_length=1, description="For the source `bing`: what to search for.")
    limit: int = Field(200, gt=0, le=100_000, description="At most this many images are taken.")
    min_images: int = Field(10, gt=0, description="With fewer good images than this, nothing is published (exit 65).")
    name: Identifier = Field("8-bit-illustration", description="Name of the data set.")
    style: str = Field(
        "8-bit illustration",
        description="Style phrase that opens every caption and binds the style; empty for captions without one.",
    )
    square: Literal["keep", "crop", "pad"] = Field(
        "keep", description="What to do with images that are not square: keep them, crop the centre, or pad with white."
    )
    min_side: int = Field(32, gt=0, description="Images whose shorter side has fewer pixels than this are left out.")
    validation_share: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="Share of the images held out from training for the evaluation; at least one image.",
    )
    caption_batch: int = Field(32, gt=0, description="Images captioned at once.")
    fetch_timeout: float = Field(20, gt=0, description="Seconds that one image may take to download.")
    fetch_max_bytes: int = Field(30_000_000, gt=0, description="Downloads over this size are given up.")

    @model_validator(mode="after")
    def _folder_is_named(self) -> Self:
        if self.source == "folder" and not self.folder:
            raise ValueError("DATA_PREP_SOURCE=folder needs DATA_PREP_FOLDER, the folder or URI of the images")
        return self
