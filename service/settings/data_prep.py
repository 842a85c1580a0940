"""Settings of `sdlora data-prep`."""

from importlib import import_module
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, model_validator
from pydantic_settings import NoDecode

from service.settings.base import MOST_PIXELS, YEAR, Text
from service.settings.common import Identifier, TextList, prefixed, split_list
from service.settings.declaring import decides, only_how
from service.settings.marks import Marks
from service.settings.models import BaseModelSettings, CaptionerSettings, ClipSettings
from service.settings.places import Place

CANDIDATES_PER_IMAGE = 3
"""Looked at for each image wanted, unless the operator says otherwise: of a search's links a third is often dead."""

DECODERS = {
    "heic": ("pi_heif", "pip install 'sdlora[heic]'"),
    "avif": ("PIL._avif", "install a Pillow that was built with AVIF"),
}
"""Of each further format, the module that opens it and how to get that."""


def installed(formats: list[str]) -> list[str]:
    """The formats. Raises ValueError where the decoder of one is not installed, or does not load."""
    for word in formats:
        module, remedy = DECODERS[word]
        try:
            import_module(module)
        except ImportError as error:
            raise ValueError(f"the decoder of {word} is not installed ({error}): {remedy}") from error
    return formats


UNTOLD = {"folder", "urls", "exclude"}
"""Settings that say where the images lie, or which others are left out: the same images are the same data set nevertheless."""

ExtraFormats = Annotated[
    list[Literal["heic", "avif"]], NoDecode, BeforeValidator(split_list), AfterValidator(installed)
]


class DataPrepSettings(ClipSettings, CaptionerSettings, BaseModelSettings):
    """Turns images into a captioned, checked and published data set."""

    model_config = prefixed("data_prep")

    source: Literal["bing", "urls", "folder", "s3"] = decides(
        "bing",
        stage="collecting",
        description="Where the images come from: a Bing image search, a list of URLs, a folder, or a prefix of a bucket.",
    )
    query: TextList = decides(
        ["8-bit illustration"],
        stage="collecting",
        min_length=1,
        description="For the source `bing`: what to search for; several queries a line each, or separated by commas.",
    )
    licence: Literal["any", "public_domain", "share", "share_commercially", "modify", "modify_commercially"] = decides(
        "any",
        stage="collecting",
        description="For the source `bing`: only images that Bing takes to be under such a licence.",
    )
    urls: Place | None = decides(
        None,
        stage="collecting",
        description="For the source `urls`: a CSV, JSON lines or Parquet file, local or s3://, with a column `url` and, "
        "if you like, `caption`, `page` and `licence`.",
    )
    folder: Place | None = decides(
        None,
        stage="collecting",
        description="For the sources `folder` and `s3`: a local folder, the s3:// URI of one, the path of a published "
        "artifact below ARTIFACTS_URI, or `miniature` for the sample images that ship with the package. Captions in a "
        "`metadata.csv`, .jsonl or .parquet, or in a .txt or .caption file beside an image, are kept.",
    )
    limit: int = decides(200, gt=0, le=10_000_000, description="At most this many images are taken.")
    candidates: int | None = decides(
        None,
        gt=0,
        description="At most this many candidates are looked at to find them; without it, "
        f"{CANDIDATES_PER_IMAGE} for each image of DATA_PREP_LIMIT.",
    )
    min_images: int = decides(10, gt=0, description="With fewer good images than this, nothing is published (exit 65).")
    name: Identifier = decides("8-bit-illustration", description="Name of the data set.")
    style: Text = decides(
        "8-bit illustration",
        description="Style phrase that opens every caption and binds the style; empty for captions without one.",
    )
    min_side: int = decides(
        32, stage="collecting", gt=0, description="Images whose shorter side has fewer pixels than this are left out."
    )
    max_aspect: float = decides(
        4.0,
        stage="collecting",
        ge=1,
        description="Images whose longer side is more than this many times the shorter one are left out.",
    )
    min_entropy: float = decides(
        0.1,
        stage="collecting",
        ge=0,
        le=8,
        description="Images whose shades of grey carry less information than this, in bits a pixel, are left out: "
        "blank ones.",
    )
    min_relevance: float = decides(
        0,
        ge=0,
        le=100,
        description="Images are left out when 100 times the cosine that MODEL_CLIP finds between them and the query (or "
        "the style, where there was no search) is less than this; 0 asks no CLIP. 20 is a good start for CLIP ViT-B/32.",
    )
    near_duplicates: Literal["drop", "keep"] = decides(
        "drop",
        description="Of images that look alike the largest alone is kept, or all are; either way they are held out "
        "together or not at all.",
    )
    near_distance: int = decides(
        8,
        ge=0,
        le=32,
        description="Two images look alike when each of two perceptual hashes differs in at most this many of 64 bits, and "
        "their mean colours are near.",
    )
    """What JPEG at quality 30, WebP at 50 and resizing from half to double change at most in pixel art; distinct drawings
    are 13 and more apart."""
    extra_formats: ExtraFormats = decides(
        [],
        stage="collecting",
        before=[],
        description="Formats that are opened besides JPEG, PNG, WebP, GIF and BMP: `heic` (the image has it; elsewhere "
        "`pip install sdlora[heic]`), `avif`. Each is a further decoder that files of strangers can reach.",
    )
    square: Literal["keep", "crop", "pad"] = decides(
        "keep",
        stage="collecting",
        description="What to do with images that are not square: keep them, crop the centre, or pad with white.",
    )
    side: int | None = decides(
        None,
        stage="collecting",
        ge=8,
        le=MOST_PIXELS,
        description="The shorter side is resized to this many pixels (with `pad`, the longer one); without it, sizes stay.",
    )
    enlarge: Literal["nearest", "lanczos", "never"] = decides(
        "nearest",
        stage="collecting",
        description="How smaller images are enlarged; `nearest` keeps the pixels of pixel art sharp.",
    )
    shrink: Literal["lanczos", "box", "never"] = decides(
        "lanczos", stage="collecting", description="How larger images are shrunk."
    )
    exclude: Marks = decides(
        [],
        before=[],
        description="Images that are left out: sha256 of a file or of its pixels, URLs of images or pages, or looks "
        "`phash:dhash:colour` as provenance tells them; a line each, or separated by commas. What the store's records in "
        "`exclusions/` name is left out as well.",
    )
    validation_share: float = decides(
        0.1,
        ge=0,
        lt=1,
        description="Share of the images held out from training for the evaluation; at least one image.",
    )
    captioner: Literal["blip", "image-text-to-text", "sidecar"] = decides(
        "blip",
        description="Who captions images that bring no caption: the BLIP of MODEL_CAPTIONER, any other image-text-to-text "
        "model there, or nobody (`sidecar`: images without a caption of their own are left out).",
    )
    caption_prompt: Text = decides(
        "Describe the image in one short sentence.",
        min_length=1,
        description="For the captioner `image-text-to-text`: what the model is asked about each image.",
    )
    caption_files: Literal["none", "txt"] = decides(
        "none",
        before="none",
        description="`txt` writes each caption into a .txt file beside its image as well, for kohya's scripts and SimpleTuner.",
    )
    caption_batch: int | None = only_how(
        None,
        gt=0,
        description="Images captioned at once; without it, 32 on a GPU and 4 on a CPU. Halved by itself when memory runs out.",
    )
    fetch_timeout: float = only_how(
        20,
        gt=0,
        le=YEAR,
        description="Seconds that one image may take to download, its redirects and retries included.",
    )
    fetch_max_bytes: int = decides(
        30_000_000, stage="collecting", gt=0, description="Downloads over this size are given up."
    )
    fetch_concurrency: int = only_how(64, gt=0, le=1000, description="Images downloaded at once.")
    fetch_per_host: int = only_how(8, gt=0, description="Images downloaded at once from one host.")
    fetch_noai: Literal["honour", "ignore"] = decides(
        "honour",
        stage="collecting",
        description="Whether images whose X-Robots-Tag says `noai` or `noimageai` are left out.",
    )
    fetch_user_agent: Text = only_how(
        "sdlora-data-prep/0.1 (collects images to train a LoRA; honours X-Robots-Tag: noai)",
        min_length=1,
        description="How the service introduces itself to the hosts of images; a place to give an address.",
    )
    step: Literal["all", "shard", "finalize"] = only_how(
        "all",
        description="`shard` collects and captions one shard, `finalize` merges and publishes them once all are done; "
        "`all` does both, where there is one shard.",
    )
    shards: int = only_how(1, gt=0, le=10_000, description="Into how many shards the candidates are divided.")
    shard: int = only_how(
        0,
        ge=0,
        validation_alias="job_completion_index",
        description="Which shard this process does, from 0. Kubernetes sets it in the pods of an Indexed Job.",
    )

    def models(self) -> tuple[str, ...]:
        loaded = {"model_captioner": self.captioner != "sidecar", "model_clip": self.min_relevance > 0}
        return tuple(name for name in self.known_models() if loaded.get(name, True))

    @property
    def max_candidates(self) -> int:
        """How many candidates are looked at."""
        return self.candidates or CANDIDATES_PER_IMAGE * self.limit

    @model_validator(mode="after")
    def _the_source_is_named(self) -> Self:
        if self.source == "folder" and not self.folder:
            raise ValueError("DATA_PREP_SOURCE=folder needs DATA_PREP_FOLDER, the folder or URI of the images")
        if self.source == "s3" and not (self.folder or "").startswith("s3://"):
            raise ValueError("DATA_PREP_SOURCE=s3 needs DATA_PREP_FOLDER, the s3:// URI of the images")
        if self.source == "urls" and not self.urls:
            raise ValueError("DATA_PREP_SOURCE=urls needs DATA_PREP_URLS, the file of the list")
        return self

    @model_validator(mode="after")
    def _the_shard_exists(self) -> Self:
        if self.step == "all" and self.shards > 1:
            raise ValueError(
                f"DATA_PREP_STEP=all does one shard and DATA_PREP_SHARDS is {self.shards}; use `shard` for each of them, "
                "then `finalize`"
            )
        if self.step != "finalize" and self.shard >= self.shards:
            raise ValueError(f"JOB_COMPLETION_INDEX={self.shard} is no shard of DATA_PREP_SHARDS={self.shards}")
        return self
