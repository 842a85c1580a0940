"""Settings of `sdlora demo`: the chain on the miniature, small enough for a laptop."""

from service.settings.common import CommonSettings, Identifier
from service.settings.declaring import only_how

# Environment variables of the four jobs; one that the user has set stays as it is.
DEMO_VARIABLES = {
    "RUN_ID": "demo",
    "MODEL_BASE": "miniature",
    "DATA_PREP_SOURCE": "folder",
    "DATA_PREP_FOLDER": "miniature",
    "DATA_PREP_VALIDATION_SHARE": "0.2",
    "TRAIN_PROFILE": "miniature",
    "INFER_PROMPTS": "\n".join(
        f"8-bit illustration, {subject}"
        # None of them is among the samples: what the LoRA learns is the style, not the pictures.
        for subject in ("a house", "a lion", "a ghost", "a lemon", "a teddy bear", "a butterfly")
    ),
    "INFER_VARIATIONS": "2",
    "INFER_STEPS": "20",
    "INFER_GUIDANCE": "2",
    "INFER_BATCH_SIZE": "12",
    "EVALUATE_STEPS": "20",
    "EVALUATE_GUIDANCE": "2",
    "EVALUATE_VARIATIONS": "2",
    "EVALUATE_MAX_PROMPTS": "24",
    "EVALUATE_BATCH_SIZE": "24",
}


class DemoSettings(CommonSettings):
    """Runs data-prep, train, infer and evaluate on the miniature; every variable of those jobs may be set as well."""

    run_id: Identifier = only_how(
        DEMO_VARIABLES["RUN_ID"],
        validation_alias="run_id",
        description=CommonSettings.model_fields["run_id"].description,
    )
