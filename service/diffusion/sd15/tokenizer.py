"""How many tokens a text has, without torch: AutoTokenizer would import it, half a gigabyte."""

from collections.abc import Callable

from transformers import CLIPTokenizer

from service.diffusion.models import loading, locate_model
from service.settings.models import BaseModelSettings


def load_token_counter(settings: BaseModelSettings) -> tuple[int, Callable[[str], int]]:
    """The text encoder's limit in tokens, and what counts those of a text, its begin and end included.

    Raises MissingInput, BadData or BadConfiguration when MODEL_BASE cannot be loaded.
    """
    files = locate_model(settings, "model_base")
    with loading(files):
        tokenizer = CLIPTokenizer.from_pretrained(files.name, subfolder="tokenizer", **files.options)
    return tokenizer.model_max_length, lambda text: len(tokenizer(text).input_ids)
