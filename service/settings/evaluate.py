"""Settings of `sdlora evaluate`."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_settings import NoDecode

from service.settings.base import MOST_PIXELS, MOST_STEPS, check_seeds
from service.settings.common import Identifier, StringList, prefixed, split_list
from service.settings.declaring import decides, only_how
from service.settings.models import MINIATURE, ClipSettings, DiffusionSettings
from service.settings.places import ArtifactPath, LoraPath, checked_place

STRONGEST = 4
FOR_MINIATURE = {"style_reference": "reconstructed", "adherence_margin": 3.0}
"""Defaults with the miniature: its autoencoder blurs the very edges that make a style, and its CLIP gives three times the
scores of the real one, up to 97 of 100, so that what is a point there is three here."""


def _strengths(scales: list[float]) -> list[float]:
    for scale in scales:
        if not 0 < scale <= STRONGEST:
            raise ValueError(f"{scale:g} is no strength of a LoRA: more than 0 and at most {STRONGEST} are")
    if len(set(scales)) < len(scales):
        raise ValueError("a strength is named twice")
    return scales


Scales = Annotated[list[float], NoDecode, BeforeValidator(split_list), AfterValidator(_strengths)]
Votes = Annotated[
    StringList, Field(min_length=1), AfterValidator(lambda places: [checked_place(place) for place in places])
]


class EvaluateSettings(ClipSettings, DiffusionSettings):
    """Measures the LoRA against the base model on held-out images, and decides: promote, hold or reject."""

    model_config = prefixed("evaluate")

    @classmethod
    def prepared(cls, values: dict[str, Any]) -> dict[str, Any]:
        if values.get("model_base") == MINIATURE:
            chosen = {
                name: value for name, value in FOR_MINIATURE.items() if not {name, f"evaluate_{name}"} & values.keys()
            }
            values = {**chosen, **values}
        return super().prepared(values)

    lora: LoraPath | None = decides(
        None,
        stage="drawing",
        description="Path of the LoRA below ARTIFACTS_URI, or a LoRA file from elsewhere (a local or s3:// path that ends in "
        ".safetensors), or registry: and the name of a model, for its champion; without it, the one that this run trained.",
    )
    champion: Identifier | None = decides(
        None,
        stage="deciding",
        before=None,
        validation_alias="promote_model",
        description="Name of the model in the registry whose champion of now the LoRA is measured against, besides the base "
        "model; without it, no champion.",
    )
    dataset: ArtifactPath | None = decides(
        None,
        stage="drawing",
        before=None,
        description="Path of the data set below ARTIFACTS_URI whose held-out images are the measure; without it, the one "
        "that the LoRA was trained on, or that of this run for a LoRA from elsewhere.",
    )
    max_prompts: int = decides(
        32, stage="drawing", ge=2, description="At most this many held-out captions serve as prompts."
    )
    scales: Scales = decides(
        [],
        stage="drawing",
        before=[],
        description="Strengths of the LoRA to try, 1 is that of its training: half of the prompts choose one, the other half "
        "decides about it. Without one it is judged at its own, with a single one at that, on all prompts.",
    )
    variations: int = decides(
        3, stage="drawing", gt=0, le=100_000, description="Images a prompt, each with its own seed."
    )
    steps: int = decides(30, stage="drawing", gt=0, le=MOST_STEPS, description="Denoising steps.")
    guidance: float = decides(7.5, stage="drawing", ge=0, description="Classifier-free guidance scale.")
    resolution: int | None = decides(
        None,
        stage="drawing",
        gt=0,
        le=MOST_PIXELS,
        multiple_of=8,
        description="Side of the images in pixels; without it, the model's own.",
    )
    batch_size: int = decides(4, stage="drawing", gt=0, description="Images drawn at once.")
    seed: int = decides(1000, stage="drawing", ge=0, description="Seed of the first variation; the next ones count up.")
    bleed_prompts: int = decides(
        8,
        stage="measuring",
        before=8,
        ge=0,
        description="So many of the prompts are drawn without their style phrase as well, once each, to see whether the style "
        "bleeds into them; 0 for none.",
    )
    style_reference: Literal["original", "reconstructed"] = decides(
        "original",
        stage="measuring",
        before="original",
        description="What the style is compared with: the held-out images as they are, or as the autoencoder gives them back, "
        "as every drawn picture has gone through it. What a weak one cannot draw is a distance to the style that no LoRA gets "
        "over, so that is the default with the miniature.",
    )
    confidence: float = decides(
        0.95, stage="deciding", gt=0.5, lt=1, description="Confidence of the bootstrapped intervals."
    )
    live_share: float = decides(
        0.95,
        stage="deciding",
        before=0.95,
        ge=0,
        le=1,
        description="Share of the pairs of images that the LoRA must visibly change, 0 to 1.",
    )
    broken_pictures: int = decides(
        0,
        stage="deciding",
        before=0,
        ge=0,
        description="Pictures of the LoRA that may be black, or of one colour.",
    )
    style_gain: float = decides(
        0.0,
        stage="deciding",
        before=0.0,
        allow_inf_nan=False,
        description="The distance to the style must shrink by more than this, for certain: KID, base − LoRA.",
    )
    cmmd_gain: float | None = decides(
        None,
        stage="deciding",
        before=None,
        allow_inf_nan=False,
        description="The distance by CLIP must shrink by more than this, for certain: CMMD, base − LoRA. 0 is a value to begin "
        "with; without one, it is only told.",
    )
    similarity_gain: float | None = decides(
        None,
        stage="deciding",
        before=None,
        allow_inf_nan=False,
        description="The likeness to the held-out images must grow by more than this, for certain: mean cosine of CLIP "
        "embeddings, LoRA − base. 0 is a value to begin with; without one, it is only told.",
    )
    adherence_margin: float = decides(
        1.0,
        stage="deciding",
        ge=0,
        description="Points of CLIPScore that the LoRA may lose against the base on the content of the prompts; 3 with the "
        "miniature, whose scores are three times as high.",
    )
    champion_style_margin: float = decides(
        0.05,
        stage="deciding",
        before=0.05,
        ge=0,
        allow_inf_nan=False,
        description="So much farther from the style than the champion may the LoRA be: KID. EVALUATE_ADHERENCE_MARGIN holds "
        "against the champion as well.",
    )
    bleed_margin: float | None = decides(
        None,
        stage="deciding",
        before=None,
        ge=0,
        allow_inf_nan=False,
        description="So much nearer may the LoRA bring pictures to the style whose prompts lack the style phrase: KID. Without "
        "a value, it is only told.",
    )
    diversity_margin: float | None = decides(
        None,
        stage="deciding",
        before=None,
        ge=0,
        lt=1,
        description="The share of the base's diversity across seeds that the LoRA may lose. 0.2 is a value to begin with; "
        "without one, it is only told.",
    )
    memorised_share: float | None = decides(
        None,
        stage="deciding",
        before=None,
        ge=0,
        lt=1,
        description="So many more of the LoRA's pictures than of the base's, as a share, may be nearer to a training image "
        "than 99 % of the held-out images are. 0.01 is a value to begin with; without one, it is only told.",
    )
    copies: int | None = decides(
        None,
        stage="deciding",
        before=None,
        ge=0,
        description="Pictures of the LoRA that may look like a training image, by perceptual hashes. 0 is a value to begin "
        "with; without one, it is only told.",
    )
    held_out_gain: float = decides(
        0.0,
        stage="deciding",
        before=0.0,
        allow_inf_nan=False,
        description="A LoRA is held when its gain in held-out loss, base − LoRA, is for certain below this.",
    )
    votes: Votes | None = decides(
        None,
        stage="deciding",
        before=None,
        description="Files of votes that an evaluation's `compare.html` made, local or s3:// paths, a line each or separated "
        "by commas: how people who did not know which is which chose between base and LoRA. Without one, nobody is asked.",
    )
    votes_share: float = decides(
        0.5,
        stage="deciding",
        before=0.5,
        ge=0,
        lt=1,
        description="Of the prompts on which EVALUATE_VOTES decide, the LoRA must win more than this share, for certain: by "
        "the exact interval of a sign test.",
    )
    fail_unless_promoted: bool = only_how(
        False, description="Exit 80 when the decision is not `promote`, for pipelines that stop there."
    )

    @model_validator(mode="after")
    def _the_last_seed_is_one(self) -> Self:
        check_seeds("EVALUATE", self.seed, self.variations)
        return self

    @model_validator(mode="after")
    def _what_has_a_threshold_is_measured(self) -> Self:
        if self.bleed_prompts == 1:
            raise ValueError(
                "EVALUATE_BLEED_PROMPTS is 1, and an interval needs 2 prompts; set it to 0 or to 2 or more"
            )
        if self.bleed_margin is not None and not self.bleed_prompts:
            raise ValueError("EVALUATE_BLEED_MARGIN is set while EVALUATE_BLEED_PROMPTS=0 measures no bleed")
        if self.diversity_margin is not None and self.variations < 2:
            raise ValueError(
                f"EVALUATE_DIVERSITY_MARGIN is set, and EVALUATE_VARIATIONS={self.variations} leaves nothing to compare; "
                "set it to 2 or more"
            )
        return self
