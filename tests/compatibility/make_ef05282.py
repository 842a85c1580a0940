"""Made `tests/compatibility/ef05282/`, with the code of commit ef05282. Kept as a record: nobody writes that folder again.

    git worktree add /tmp/ef05282 ef05282
    python -m tests.compatibility.make_ef05282 /tmp/ef05282 tests/compatibility/ef05282

It draws the pictures, makes models of a few thousand random weights, runs the jobs as processes with the old checkout on
their path, and writes down what the old code makes of the half-done run when it goes on, in a copy.
"""

import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from tokenizers import pre_tokenizers
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
)

SIDE = 32
WRITTEN = 1_700_000_000
"""Seconds: when the pictures were last written. data-prep takes a folder by the names, sizes and times of its files."""

# Everything is named relative to the folder of the fixture, so that a copy of it elsewhere is the same to the jobs.
ALL = {
    "ARTIFACTS_URI": "artifacts",
    "WORK_DIR": "work",
    "MODEL_BASE": "models/stable-diffusion",
    "MODEL_VAE": "base",
    "MODEL_CLIP": "models/clip",
    "DATA_PREP_SOURCE": "folder",
    "DATA_PREP_FOLDER": "pictures",
    "DATA_PREP_CAPTIONER": "sidecar",
    "DATA_PREP_NAME": "blocks",
    "DATA_PREP_STYLE": "blocks",
    "DATA_PREP_VALIDATION_SHARE": "0.25",
    "TRAIN_RESOLUTION": str(SIDE),
    "TRAIN_MIXED_PRECISION": "no",
    "TRAIN_LOG_EVERY": "1",
    "TRAIN_SAMPLE_STEPS": "2",
}
FINISHED = {
    "RUN_ID": "finished",
    "TRAIN_PROFILE": "report",
    "TRAIN_LEARNING_RATE": "0.01",
    "TRAIN_MAX_STEPS": "9",
    "TRAIN_CHECKPOINT_EVERY": "3",
    "TRAIN_VALIDATE_EVERY": "3",
    "TRAIN_SAMPLES": "1",
    "TRAIN_SAMPLE_EVERY": "5",
    "INFER_PROMPTS": "blocks, red and blue\nblocks, green",
    "INFER_VARIATIONS": "2",
    "INFER_STEPS": "3",
    "EVALUATE_MAX_PROMPTS": "3",
    "EVALUATE_VARIATIONS": "2",
    "EVALUATE_STEPS": "3",
}
HALF_DONE = {
    "RUN_ID": "half-done",
    "TRAIN_PROFILE": "recommended",
    "TRAIN_RANK": "2",
    "TRAIN_LORA_ALPHA": "2",
    "TRAIN_TEXT_ENCODER": "true",
    "TRAIN_DORA": "true",
    "TRAIN_LEARNING_RATE": "0.03",
    "TRAIN_LR_WARMUP_STEPS": "2",
    "TRAIN_BATCH_SIZE": "2",
    "TRAIN_BUCKET_STEP": "8",
    "TRAIN_CROPS": "2",
    "TRAIN_EMA_DECAY": "0.5",
    "TRAIN_MAX_STEPS": "12",
    "TRAIN_CHECKPOINT_EVERY": "5",
    "TRAIN_VALIDATE_EVERY": "4",
    "TRAIN_SAMPLES": "1",
}
STOPPED_AT = 8

# The signal comes while the line of that step is written, so that the step at which the training stops is always the same.
STOPPED = f"""
import os, signal, sys

class Stopping:
    def __init__(self, stream):
        self.stream = stream
    def write(self, text):
        if '"event": "step"' in text and '"step": {STOPPED_AT},' in text:
            os.kill(os.getpid(), signal.SIGTERM)
        return self.stream.write(text)
    def __getattr__(self, name):
        return getattr(self.stream, name)

sys.stderr = Stopping(sys.stderr)
from service.__main__ import main
main(["train"])
"""


def main(checkout: Path, fixture: Path) -> None:
    fixture.mkdir()
    make_models(fixture / "models")
    draw_pictures(fixture / "pictures")
    for job in ("data-prep", "train", "infer", "evaluate"):
        run(checkout, fixture, ["-m", "service", job], FINISHED)
    run(checkout, fixture, ["-m", "service", "data-prep"], HALF_DONE)
    run(checkout, fixture, ["-c", STOPPED], HALF_DONE, code=75)
    checkpoints = sorted(fixture.glob("artifacts/runs/half-done/checkpoints/step-*/*/MANIFEST.json"))
    assert [int(manifest.parts[-3].removeprefix("step-")) for manifest in checkpoints] == [5, STOPPED_AT], checkpoints
    variables = {"all": ALL, "finished": FINISHED, "half-done": HALF_DONE}
    write(fixture / "variables.json", {"pictures_written": WRITTEN, **variables})
    write_what_is_expected(checkout, fixture)


def run(checkout: Path, folder: Path, command: list[str], variables: dict[str, str], code: int = 0) -> None:
    """A job of the old code, in an environment of nothing but what is said here."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ["HOME"],
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(checkout.resolve()),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "LOG_FORMAT": "json",
    }
    ended = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environment | ALL | variables,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    shutil.rmtree(folder / "work", ignore_errors=True)
    assert ended.returncode == code, ended.stderr


def write_what_is_expected(checkout: Path, fixture: Path) -> None:
    """What ef05282 itself makes of its store: `expected.json`, and in `expected/` the LoRA to which the half-done run goes."""
    artifacts = {path: manifest["version"] for path, manifest in manifests(fixture / "artifacts").items()}
    evaluation = next(fixture.glob("artifacts/runs/finished/evaluation/*/evaluation.json"))
    with TemporaryDirectory() as place:
        copy = Path(place, "copy")
        shutil.copytree(fixture, copy)
        run(checkout, copy, ["-m", "service", "train"], HALF_DONE)
        lora = copy / "artifacts/runs/half-done/lora"
        names = ["pytorch_lora_weights.safetensors", "kohya_lora_weights.safetensors", "metrics.jsonl"]
        (fixture / "expected").mkdir()
        for name in names:
            shutil.copy(lora / name, fixture / "expected" / name)
        gone_on = {
            "sha256": {name: sha256(lora / name) for name in names},
            "version": json.loads((lora / "MANIFEST.json").read_text())["version"],
            "complete": json.loads((lora.parent / "COMPLETE.json").read_text()),
        }
    pruned = {}
    for variables in (FINISHED, HALF_DONE):
        with TemporaryDirectory() as place:
            copy = Path(place, "copy")
            shutil.copytree(fixture, copy)
            run(checkout, copy, ["-m", "service", "prune"], {**variables, "PRUNE_DRY_RUN": "false"})
            pruned[variables["RUN_ID"]] = sorted(artifacts.keys() - manifests(copy / "artifacts").keys())
    decided = json.loads(evaluation.read_text())
    write(
        fixture / "expected.json",
        {
            "artifacts": artifacts,
            "evaluation": {"decision": decided["decision"], "reason": decided["reason"]},
            "half_done_gone_on": gone_on,
            "pruned": pruned,
        },
    )


def manifests(store: Path) -> dict[str, dict]:
    found = sorted(store.rglob("MANIFEST.json"))
    return {path.parent.relative_to(store).as_posix(): json.loads(path.read_text()) for path in found}


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def write(file: Path, content: object) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n")


def draw_pictures(folder: Path) -> None:
    """Blocks of colour in three shapes, half of them captioned in a text beside them, half in a table; two are of no use."""
    folder.mkdir()
    dice = np.random.default_rng(0)
    colours = {"red": (210, 40, 40), "green": (40, 170, 60), "blue": (40, 70, 200), "yellow": (230, 210, 50)}
    table = []
    for number in range(12):
        width, height = ((40, 40), (48, 32), (32, 48))[number % 3]
        names = [str(name) for name in dice.choice(list(colours), size=2, replace=False)]
        chosen = dice.integers(2, size=(height // 8, width // 8))
        pixels = np.array([colours[name] for name in names], dtype=np.uint8)[chosen].repeat(8, axis=0).repeat(8, axis=1)
        name, caption = f"{number:02}.png", f"{names[0]} and {names[1]}"
        Image.fromarray(pixels).save(folder / name, optimize=True)
        if number % 2:
            (folder / name).with_suffix(".txt").write_text(caption + "\n")
        else:
            table.append({"file_name": name, "caption": caption})
    Image.open(folder / "00.png").resize((80, 80), Image.Resampling.NEAREST).save(folder / "looks-like-00.png")
    table.append({"file_name": "looks-like-00.png", "caption": "the same, larger"})
    Image.open(folder / "01.png").resize((16, 16)).save(folder / "too-small.jpg")
    with (folder / "metadata.csv").open("w", newline="") as file:
        rows = csv.DictWriter(file, ["file_name", "caption"])
        rows.writeheader()
        rows.writerows(table)
    for file in folder.iterdir():
        os.utime(file, (WRITTEN, WRITTEN))


def make_models(folder: Path) -> None:
    """A Stable Diffusion 1.x and a CLIP with random weights: they know nothing, and are always the same."""
    torch.manual_seed(0)
    tokenizer = spelling_tokenizer()
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 77,
        "projection_dim": 16,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vae = AutoencoderKL(
        sample_size=SIDE,
        block_out_channels=(8, 8, 16),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        scaling_factor=2.0,
    )
    with torch.no_grad():
        vae.decoder.conv_out.weight.mul_(3)  # else all that it draws is grey
    unet = UNet2DConditionModel(
        sample_size=SIDE // 4,
        block_out_channels=(8, 16),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(CLIPTextConfig(**text)),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(torch.float16).save_pretrained(folder / "stable-diffusion")
    vision = {
        "image_size": SIDE,
        "patch_size": 16,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "projection_dim": 16,
    }
    torch.manual_seed(4)
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))
    clip.to(torch.float16).save_pretrained(folder / "clip")
    processor = CLIPImageProcessor(size={"height": SIDE, "width": SIDE}, do_center_crop=False)
    CLIPProcessor(processor, tokenizer).save_pretrained(folder / "clip")


def spelling_tokenizer() -> CLIPTokenizer:
    """Every byte is a token, alone and at the end of a word; nothing is merged."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, *(letter + "</w>" for letter in alphabet), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: index for index, token in enumerate(tokens)}, merges=[], model_max_length=77)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
