"""The models that say what is in an image: BLIP, and any that takes an image and a prompt."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from service import miniature
from service.dataset.captions import captioners
from service.dataset.captions.captioners import open_captioner
from service.exits import BadData
from service.settings.data_prep import DataPrepSettings
from tests.pictures import sprite

SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<image>"]
WORDS = [*SPECIAL, "describe", "it", "USER:", "ASSISTANT:", "a", "red", "cat", "dog", "castle"]
CHAT = (
    "{% for message in messages %}USER: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }} {% endif %}{% endfor %}{% endfor %}ASSISTANT:"
)
SIDE, PATCH = 32, 8


@pytest.fixture(autouse=True)
def few_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(captioners.GENERATION, "max_new_tokens", 5)


def llava(folder: Path, chat: bool) -> Path:
    """A LLaVA of the right shape that knows nothing: its answers are words at random, the same ones for the same image."""
    backend = Tokenizer(WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    backend.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        additional_special_tokens=["<image>"],
    )  # fmt: skip
    size = {"height": SIDE, "width": SIDE}
    processor = LlavaProcessor(
        CLIPImageProcessor(size=size, crop_size=size),
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT if chat else None,
    )
    layers = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**layers, image_size=SIDE, patch_size=PATCH),
        text_config=LlamaConfig(**layers, vocab_size=len(WORDS), pad_token_id=0, bos_token_id=1, eos_token_id=2),
        image_token_index=WORDS.index("<image>"),
        vision_feature_layer=-1,
    )
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def settings(folder: Path, prompt: str = "describe it") -> DataPrepSettings:
    return DataPrepSettings.model_validate(
        {
            "source": "folder",
            "folder": "x",
            "captioner": "image-text-to-text",
            "model_captioner": str(folder),
            "caption_prompt": prompt,
        }
    )


@pytest.mark.parametrize(("chat", "prompt"), [(True, "describe it"), (False, "USER: <image> describe it")])
def test_a_model_is_asked_in_its_own_form_and_only_its_answer_counts(chat: bool, prompt: str, tmp_path: Path) -> None:
    captioner = open_captioner(settings(llava(tmp_path, chat), prompt))
    images = [sprite(seed, (60 + seed, 40)) for seed in range(3)]
    together = captioner.describe(images)
    assert together == [captioner.describe([image])[0] for image in images]
    assert together == captioner.describe(images)
    assert all(text and not {"describe", "USER:", "<image>", "<pad>"} & set(text.split()) for text in together)


@pytest.mark.parametrize("captioner", ["image-text-to-text", "blip"])
def test_code_that_comes_with_weights_is_never_run(captioner: str, tmp_path: Path) -> None:
    folder = llava(tmp_path / "model", True)
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "unheard-of",
        "auto_map": {"AutoConfig": "ours.Config", "AutoModelForImageTextToText": "ours.Model"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    for file in ("processor_config.json", "preprocessor_config.json"):
        (folder / file).write_text(json.dumps({"auto_map": {"AutoProcessor": "ours.Processor"}}))
    (folder / "ours.py").write_text(f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\n")
    values = settings(folder).model_copy(update={"captioner": captioner})
    with pytest.raises(BadData, match="MODEL_CAPTIONER"):
        open_captioner(values).describe([sprite(1)])
    assert not (tmp_path / "ran").exists()


def test_the_key_is_that_of_the_content_the_prompt_and_the_parameters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = llava(tmp_path / "one", True)
    key = open_captioner(settings(folder)).key
    shutil.copytree(folder, tmp_path / "copy")
    assert open_captioner(settings(tmp_path / "copy")).key == key
    keys = {key, open_captioner(settings(folder, "what is it")).key}
    (tmp_path / "copy" / "model.safetensors").write_bytes(b"other weights")
    keys.add(open_captioner(settings(tmp_path / "copy")).key)
    monkeypatch.setitem(captioners.GENERATION, "num_beams", 5)
    keys.add(open_captioner(settings(folder)).key)
    assert len(keys) == 4


def test_the_key_of_a_model_of_the_hub_needs_no_hub() -> None:
    one = DataPrepSettings.model_validate({})
    other = DataPrepSettings.model_validate({"model_captioner_revision": "f" * 40})
    assert open_captioner(one).key == open_captioner(one).key != open_captioner(other).key


def test_blip_says_the_same_of_an_image_alone_and_among_others() -> None:
    captioner = open_captioner(
        DataPrepSettings.model_validate({"source": "folder", "folder": "x", "model_base": "miniature"})
    )
    from PIL import Image

    images = [Image.open(file).convert("RGB") for file in sorted(miniature.SAMPLES.glob("*.png"))[:9]]
    together = captioner.describe(images)
    assert together == [text for image in images for text in captioner.describe([image])]
    assert len(set(together)) > 5
