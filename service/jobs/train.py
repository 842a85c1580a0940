"""`sdlora train`: a data set in, checkpoints and a LoRA out."""

import json
from pathlib import Path
from typing import Any

import structlog
import torch
from accelerate import Accelerator

from service.artifacts.publishing import exists, fetch, publish, read_manifest
from service.artifacts.runs import Run
from service.artifacts.scratch import scratch_folder
from service.artifacts.stores import open_store
from service.diffusion.components import load_components
from service.diffusion.held_out import encode_held_out
from service.diffusion.images import read_split
from service.diffusion.lora import add_lora, assert_alive, save_lora
from service.settings.train import TrainSettings
from service.training.cache import encode_dataset
from service.training.checkpoints import check_identity, commit, identity, newest_valid
from service.training.trainer import Progress, Trainer

log = structlog.get_logger(__name__)

CURVES_NAME = "training.json"


def train(settings: TrainSettings) -> str:
    """Fine-tunes a LoRA on a published data set and publishes it. Returns the path of the LoRA below ARTIFACTS_URI."""
    run = Run(open_store(settings.artifacts_uri), settings.run_id)
    dataset_path = settings.dataset or run.dataset()
    recipe = identity(settings, dataset_path)
    if is_complete(run, recipe):
        log.info("already complete", lora=run.path("lora"))
        return run.path("lora")
    dataset = fetch(run.store, dataset_path, settings.work_dir)

    parts = load_components(settings)
    accelerator = new_accelerator(settings)
    for model in (parts.vae, parts.text_encoder):
        model.to(accelerator.device)
    samples = encode_dataset(read_split(dataset, "train"), parts, settings.resolution)
    held_out = encode_held_out(
        read_split(dataset, "validation"), parts.vae, parts.tokenizer, parts.text_encoder, settings.resolution
    )
    unet, scheduler = parts.unet, parts.scheduler
    del parts  # the autoencoder and the text encoder have said all they have to say

    # The start of the LoRA is random too: from the seed alone, whatever ran before in this process.
    torch.manual_seed(settings.seed)
    unet.to(dtype=precision(accelerator))
    add_lora(unet, settings)
    trainer = Trainer(accelerator, unet, scheduler, samples, held_out, settings)
    checkpoint = newest_valid(run, recipe, settings.work_dir)
    if checkpoint is not None:
        trainer.resume(checkpoint)

    with scratch_folder(settings.work_dir) as folder:

        def save_and_commit(step: int) -> None:
            trainer.save(folder / f"step-{step}")
            if accelerator.is_main_process:
                commit(run, folder / f"step-{step}", step, recipe)

        curves = trainer.fit(save_and_commit)
        trained = accelerator.unwrap_model(trainer.unet)
        assert_alive(trained)
        if accelerator.is_main_process:
            save_lora(trained, folder / "lora")
            write_curves(folder / "lora", curves)
            publish(
                run.store, folder / "lora", kind="lora", path=run.path("lora"), parents=[dataset_path], settings=recipe
            )
            log.info("LoRA published", lora=run.path("lora"), steps=curves.step, loss=curves.loss[-1][1])
    accelerator.end_training()
    return run.path("lora")


def is_complete(run: Run, recipe: dict[str, Any]) -> bool:
    """True when the run's LoRA exists. Raises BadConfiguration when it was made by another recipe."""
    if not exists(run.store, run.path("lora")):
        return False
    check_identity(read_manifest(run.store, run.path("lora")).settings, recipe, run.path("lora"))
    return True


def new_accelerator(settings: TrainSettings) -> Accelerator:
    on_gpu = torch.cuda.is_available()
    chosen = settings.mixed_precision
    if chosen == "auto":
        chosen = "bf16" if on_gpu and torch.cuda.is_bf16_supported() else "no"
    return Accelerator(mixed_precision=chosen, cpu=not on_gpu)


def precision(accelerator: Accelerator) -> torch.dtype:
    """Precision of the frozen U-Net."""
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(accelerator.mixed_precision, torch.float32)


def write_curves(folder: Path, curves: Progress) -> None:
    (folder / CURVES_NAME).write_text(json.dumps(curves.state_dict(), indent=2) + "\n")
