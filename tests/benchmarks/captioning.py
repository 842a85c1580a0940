"""Images a second of captioning with a BLIP of the real size, against a plain loop at each fixed batch size.

`python -m tests.benchmarks.captioning [IMAGES] [TOKENS]`; random weights, so that captions never end before TOKENS; in
turns, all in one process. Ours reads PNGs, goes through the cache, and starts from the default batch.
"""

import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import BertTokenizer, BlipConfig, BlipForConditionalGeneration, BlipImageProcessor, BlipProcessor

from service.dataset.candidates import Candidate, Features, Record
from service.dataset.captions import captioners
from service.dataset.captions.captioning import described
from service.settings.data_prep import DataPrepSettings
from service.storage.local import LocalStore
from tests.benchmarks.screening import photo

BATCHES = (1, 2, 4, 8)
ROUNDS = 3
VOCABULARY = 30_524


def blip_base(folder: Path) -> None:
    """The configuration of Salesforce/blip-image-captioning-base, with weights at random."""
    torch.manual_seed(0)
    text = {"vocab_size": VOCABULARY, "num_hidden_layers": 12, "num_attention_heads": 12, "encoder_hidden_size": 768}
    special = {"bos_token_id": 30_522, "eos_token_id": 2, "sep_token_id": 102, "pad_token_id": 0}
    config = BlipConfig(text_config={**text, **special}, vision_config={"image_size": 384, "patch_size": 16})
    model = BlipForConditionalGeneration(config)
    model.generation_config.eos_token_id = None
    model.save_pretrained(folder)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{number}" for number in range(VOCABULARY - 5))]
    tokenizer = BertTokenizer(vocab={word: index for index, word in enumerate(words)})
    BlipProcessor(BlipImageProcessor(size={"height": 384, "width": 384}), tokenizer).save_pretrained(folder)


def pngs(count: int) -> list[bytes]:
    found = []
    for seed in range(count):
        buffer = BytesIO()
        with Image.open(BytesIO(photo(seed))) as image:
            image.save(buffer, "PNG", compress_level=1)
        found.append(buffer.getvalue())
    return found


def opened(png: bytes) -> Image.Image:
    return Image.open(BytesIO(png)).convert("RGB")


def plain(model: Any, processor: Any, images: list[bytes], batch: int) -> Callable[[], None]:
    @torch.inference_mode()
    def run() -> None:
        for start in range(0, len(images), batch):
            inputs = processor(images=[opened(png) for png in images[start : start + batch]], return_tensors="pt")
            tokens = model.generate(pixel_values=inputs.pixel_values, **captioners.GENERATION)
            processor.batch_decode(tokens, skip_special_tokens=True)

    return run


def ours(folder: Path, images: list[bytes]) -> Callable[[], None]:
    settings = DataPrepSettings(model_captioner=str(folder))
    captioner = captioners.open_captioner(settings)
    captioner.describe([opened(images[0])])  # loaded, as theirs is
    captioners.open_captioner = lambda _: captioner
    records = {
        f"{rank:064x}": Record(Candidate(rank, str(rank)), features=Features(f"{rank:064x}", 1, 1, 1, 1, 0, 0, 0))
        for rank in range(len(images))
    }

    def run() -> None:
        with tempfile.TemporaryDirectory() as store:
            described(records, lambda one: opened(images[one.candidate.rank]), settings, LocalStore(Path(store)))

    return run


def main() -> None:
    count, tokens = (int(value) for value in (sys.argv[1:] + ["16", "10"][len(sys.argv) - 1 :])[:2])
    captioners.GENERATION["max_new_tokens"] = tokens
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        blip_base(folder)
        images = pngs(count)
        model, processor = (
            BlipForConditionalGeneration.from_pretrained(folder).eval(),
            BlipProcessor.from_pretrained(folder),
        )
        runs = {"ours": ours(folder, images)}
        runs |= {f"plain loop, batch {number}": plain(model, processor, images, number) for number in BATCHES}
        rates: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(ROUNDS):
            for name, run in runs.items():
                start = time.perf_counter()
                run()
                rates[name].append(count / (time.perf_counter() - start))
    best = max((name for name in rates if name != "ours"), key=lambda name: statistics.median(rates[name]))
    for name, measured in rates.items():
        print(f"{name:<24}{statistics.median(measured):7.3f} images/s {'(best plain loop)' if name == best else ''}")  # noqa: T201
    ratio = statistics.median(a / b for a, b in zip(rates["ours"], rates[best], strict=True))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"ours / best plain loop {ratio:.3f}, {count} images, {tokens} tokens, peak memory {peak} MiB")  # noqa: T201


if __name__ == "__main__":
    main()
