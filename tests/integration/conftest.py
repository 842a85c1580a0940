"""What the tests of data-prep share: a captioner that knows nothing, the job with small settings, and an internet."""

import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    BlipProcessor,
)

from service.dataset.captions import captioners
from service.exits import ExitCode
from service.jobs.data_prep import data_prep
from service.settings.data_prep import DataPrepSettings
from service.settings.demo import DEMO_VARIABLES
from tests.integration.bing import Web, offline_bing
from tests.integration.canary import CANARIES
from tests.integration.chain import SMALL, finish

SIDE = 32
WORDS = ["a", "red", "green", "blue", "cat", "dog", "tree", "castle", "on", "of", "picture", "sword"]


@pytest.fixture(scope="session")
def captioner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BLIP of the right shape that knows nothing: its captions are words at random, the same ones each time."""
    folder = tmp_path_factory.mktemp("blip")
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "[ENC]", *WORDS]
    tokenizer = BertTokenizer(vocab={token: index for index, token in enumerate(tokens)}, bos_token="[DEC]")
    layers = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**layers, "vocab_size": len(tokens), "encoder_hidden_size": 32, "max_position_embeddings": 64}
    special = {"bos_token_id": 5, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0}
    vision = {**layers, "image_size": SIDE, "patch_size": 8}
    torch.manual_seed(0)
    config = BlipConfig(text_config={**text, **special}, vision_config=vision, projection_dim=16)
    BlipForConditionalGeneration(config).save_pretrained(folder)
    size = {"height": SIDE, "width": SIDE}
    BlipProcessor(BlipImageProcessor(size=size), tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture
def prepare(tmp_path: Path, captioner: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Runs the job with small settings and short captions; keyword arguments replace the settings."""
    monkeypatch.setitem(captioners.GENERATION, "max_new_tokens", 6)
    # A model so small spends its time waiting for its own threads, all the more where other work has the cores.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)

    def run(**values: Any) -> str | None:
        return data_prep(
            DataPrepSettings.model_validate(
                {
                    "source": "folder",
                    "artifacts_uri": str(tmp_path / "artifacts"),
                    "work_dir": tmp_path / "work",
                    "model_base": "miniature",
                    "model_captioner": str(captioner),
                    "min_images": 3,
                    "caption_batch": 4,
                    **values,
                }
            )
        )

    yield run
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a data set and a LoRA of a few steps, made with a secret in every variable that may hold one."""
    folder = tmp_path_factory.mktemp("trained")
    for job in ("data-prep", "train"):
        assert finish(job, folder, DEMO_VARIABLES | SMALL | CANARIES).code == ExitCode.DONE
    return folder


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    """An internet of our own, which this process and those that it starts are in."""
    with offline_bing(tmp_path) as running:
        for name in ("https_proxy", "http_proxy"):
            monkeypatch.setenv(name, running.proxy)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.setenv("SSL_CERT_FILE", str(running.certificate))
        # urllib keeps the proxies that it found at its first request.
        monkeypatch.setattr(urllib.request, "_opener", None)
        yield running
