"""`sdlora train`: a data set in, checkpoints and a LoRA out."""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog
import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs

from service.artifacts.publishing import exists, fetch, publish, read_manifest
from service.artifacts.runs import Run
from service.artifacts.scratch import scratch_folder
from service.artifacts.stores import open_store
from service.diffusion.components import load_components
from service.diffusion.denoiser import Denoiser
from service.diffusion.held_out import HeldOut
from service.diffusion.images import CaptionedImage, read_split
from service.diffusion.lora import add_lora, assert_alive, assert_effect
from service.diffusion.lora_files import save_lora
from service.logs import configure_logs, guarded
from service.settings.train import TrainSettings
from service.training.checkpoints import check_identity, commit, identity, newest_valid
from service.training.curves import draw_curves
from service.training.launcher import exit_with, gpu_count, is_worker, planned_workers, run_workers
from service.training.loading import Prompts, encode_dataset
from service.training.model_card import CARD_NAME, training_facts, write_card
from service.training.peers import lost_peers_told
from service.training.pictures import sample_grid, sample_prompts
from service.training.progress import Measurement, ratio_of
from service.training.trackers import publish_tracked, start_tracking
from service.training.trainer import Trainer

log = structlog.get_logger(__name__)

METRICS_NAME = "metrics.jsonl"
CURVES_NAME = "curves.png"
SAMPLES_NAME = "samples.png"


def train(settings: TrainSettings) -> str:
    """Fine-tunes a LoRA on a published data set and publishes it. Returns the path of the LoRA below ARTIFACTS_URI."""
    run = Run(open_store(settings.artifacts_uri), settings.run_id)
    dataset_path = settings.dataset or run.dataset()
    recipe = identity(settings, dataset_path)
    if is_complete(run, recipe):
        log.info("already complete", lora=run.path("lora"))
        return run.path("lora")
    workers = planned_workers(settings, os.environ, gpu_count())
    if workers.needed and not is_worker(os.environ):
        run_workers(work, settings, workers)
    else:
        with lost_peers_told():
            train_here(run, dataset_path, recipe, settings)
    return run.path("lora")


def work(settings: TrainSettings) -> None:
    """What a worker process does: the same job, with a rank."""
    rank = int(os.environ["RANK"])
    configure_logs(settings.log_format, quiet=rank > 0, job="train", run_id=settings.run_id, rank=rank)
    exit_with(guarded(lambda: train(settings)))


def train_here(run: Run, dataset_path: str, recipe: dict[str, Any], settings: TrainSettings) -> None:
    """The part of this process, which is all of it when there is one."""
    accelerator = new_accelerator(settings)
    dataset = fetch(run.store, dataset_path, settings.work_dir)
    images, validation = read_split(dataset, "train"), read_split(dataset, "validation")[: settings.validation_images]
    shown = sample_prompts(settings, [image.caption for image in validation])

    parts = load_components(settings)
    samples, held_out, prompts = encode_dataset(images, validation, shown, parts, run.store, accelerator, settings)
    unet, scheduler = parts.unet, parts.scheduler
    text_encoder = parts.text_encoder if settings.text_encoder else None
    del parts  # the autoencoder and the text encoder have said all they have to say

    # The start of the LoRA is random too: from the seed alone, whatever ran before in this process.
    torch.manual_seed(settings.seed)
    if accelerator.mixed_precision != "no":
        unet.to(dtype=precision(accelerator))
    add_lora(unet, settings, text_encoder)
    trainer = Trainer(accelerator, Denoiser(unet, text_encoder), scheduler, samples, held_out, settings)
    checkpoint = newest_valid(run, recipe, settings.work_dir)
    if checkpoint is not None:
        trainer.resume(checkpoint)

    start_tracking(accelerator, settings)
    with scratch_folder(settings.work_dir) as folder:
        on_the_way = OnTheWay(run, folder, recipe, trainer, prompts, shown)
        progress = trainer.fit(on_the_way)
        result = trainer.install_result()
        assert_alive(trainer.lora())
        if accelerator.is_main_process:
            with accelerator.autocast():
                assert_effect(unet, one_input(trainer.plain, held_out, accelerator.device))
            write_lora(folder / "lora", trainer, result, on_the_way, images)
            parents = [dataset_path]
            publish(run.store, folder / "lora", kind="lora", path=run.path("lora"), parents=parents, settings=recipe)
            ratio = round(ratio_of(result, progress.measurements[0]), 4)
            log.info(
                "LoRA published", lora=run.path("lora"), steps=progress.step, of_step=result.step, held_out_ratio=ratio
            )
    accelerator.wait_for_everyone()
    accelerator.end_training()
    if accelerator.is_main_process:
        publish_tracked(run, settings)


@dataclass(frozen=True)
class OnTheWay:
    """What happens between the first step and the last: checkpoints, and pictures."""

    run: Run
    folder: Path
    recipe: dict[str, Any]
    trainer: Trainer
    prompts: Prompts
    shown: Sequence[str]

    def checkpoint(self, step: int) -> None:
        local = self.folder / f"step-{step}"
        self.trainer.save(local)
        if self.trainer.accelerator.is_main_process:
            commit(self.run, local, step, self.recipe)
        shutil.rmtree(local, ignore_errors=True)

    def sample(self, step: int) -> None:
        path = self.run.path(f"samples/step-{step:08d}")
        # Another attempt may have drawn them; on a GPU ours would differ in a pixel, and what is published stays.
        if self.trainer.accelerator.is_main_process and self.shown and not exists(self.run.store, path):
            local = self.folder / f"samples-{step}"
            self.draw(local)
            publish(self.run.store, local, kind="samples", path=path, settings=self.recipe)
            shutil.rmtree(local)

    def draw(self, folder: Path) -> None:
        """Pictures of the base and of the LoRA as the model has it now."""
        folder.mkdir(parents=True, exist_ok=True)
        trainer = self.trainer
        with trainer.accelerator.autocast():
            grid = sample_grid(trainer.plain, trainer.noise, self.prompts, self.shown, trainer.settings)
        grid.save(folder / SAMPLES_NAME)


def write_lora(
    folder: Path, trainer: Trainer, result: Measurement, on_the_way: OnTheWay, images: Sequence[CaptionedImage]
) -> None:
    """The folder that is published: weights in two forms, model card, curves, pictures."""
    folder.mkdir()
    plain, progress, recipe = trainer.plain, trainer.progress, on_the_way.recipe
    facts = training_facts(recipe, len(images), result.step, trainer.noise.config["prediction_type"])
    save_lora(folder, plain.unet, plain.text_encoder, facts)
    with (folder / METRICS_NAME).open("w") as lines:
        lines.writelines(json.dumps(line) + "\n" for line in progress.lines())
    draw_curves(progress, folder / CURVES_NAME)
    if on_the_way.shown:
        on_the_way.draw(folder)
    write_card(
        folder / CARD_NAME,
        name=on_the_way.run.run_id,
        recipe=recipe,
        images=len(images),
        modules=sum("lora_A" in name for name in trainer.lora()),
        steps=progress.step,
        of_step=result.step,
        ratio=ratio_of(result, progress.measurements[0]),
        samples=on_the_way.shown,
        prompt=images[0].caption,
    )


def one_input(denoiser: Denoiser, held_out: HeldOut, device: torch.device) -> tuple[torch.Tensor, ...]:
    """Something for the U-Net to predict: the first held-out image."""
    condition = held_out.conditions[:1].to(device)
    states = condition if denoiser.text_encoder is None else denoiser.text_encoder(condition)[0]
    return held_out.latents[:1].to(device), torch.tensor([500], device=device), states


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
    # Finite, so that a process whose peer is gone ends too.
    waiting = InitProcessGroupKwargs(timeout=timedelta(seconds=settings.peer_timeout))
    tracker = None if settings.tracker == "none" else settings.tracker
    return Accelerator(
        mixed_precision=chosen,
        cpu=not on_gpu,
        log_with=tracker,
        project_dir=settings.work_dir / "trackers" / settings.run_id,
        kwargs_handlers=[waiting],
    )


def precision(accelerator: Accelerator) -> torch.dtype:
    """Precision of the frozen U-Net."""
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(accelerator.mixed_precision, torch.float32)
