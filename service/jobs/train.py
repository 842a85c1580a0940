"""`sdlora train`: a data set in, checkpoints and a LoRA out."""

import json
import os
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog
import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs

from service import stopping
from service.artifacts import layout
from service.artifacts.publishing import exists, fetch, publish, read_manifest
from service.artifacts.runs import Run
from service.diffusion.families import family_of
from service.diffusion.family import Denoiser, Parts
from service.diffusion.images import CaptionedImage, read_split
from service.diffusion.lora import assert_alive, assert_effect
from service.exits import BadConfiguration, Stopped
from service.logs import configure_logs, guarded
from service.settings.train import TrainSettings
from service.storage.opening import open_store
from service.storage.parallel import StopCheck
from service.storage.scratch import scratch_folder
from service.training.attempts import begin_attempt
from service.training.callbacks import OnTheWay, committing
from service.training.checkpoints import agreed_newest, check_identity, identity
from service.training.curves import draw_curves
from service.training.encoded.loading import encode_dataset
from service.training.model_card import CARD_NAME, training_facts, write_card
from service.training.pictures import sample_prompts
from service.training.processes.coordinator import Coordinator
from service.training.processes.launcher import (
    SharedFlags,
    exit_with,
    gpu_count,
    is_worker,
    planned_workers,
    run_workers,
)
from service.training.processes.peers import reporting_lost_peers
from service.training.processes.watchdog import Watchdog
from service.training.progress import Measurement, ratio_of
from service.training.status import Status
from service.training.trackers import publish_tracked, start_tracking
from service.training.trainer import Trainer
from service.training.uploads import Uploads

log = structlog.get_logger(__name__)

METRICS_NAME = "metrics.jsonl"
CURVES_NAME = "curves.png"


def train(settings: TrainSettings) -> str:
    """Fine-tunes a LoRA on a published data set and publishes it. Returns the path of the LoRA below ARTIFACTS_URI."""
    run = Run(open_store(settings.artifacts_uri), settings.run_id)
    dataset_path = settings.dataset or run.dataset()
    recipe = identity(settings, dataset_path)
    if is_complete(run, recipe):
        log.info("already complete", lora=run.lora_path)
        return run.lora_path
    workers = planned_workers(settings, os.environ, gpu_count())
    if workers.needed and not is_worker(os.environ):
        run_workers(worker_main, settings, workers)
    else:
        with reporting_lost_peers():
            train_here(run, dataset_path, recipe, settings)
    return run.lora_path


def worker_main(settings: TrainSettings, flags: SharedFlags) -> None:
    """What a worker process does: the same job, with a rank."""
    rank = int(os.environ["RANK"])
    configure_logs(settings.log_format, quiet=rank > 0, job="train", run_id=settings.run_id, rank=rank)
    stopping.listen_to(flags.stop_requested)
    stopping.listen()
    flags.set_started()
    exit_with(guarded(lambda: train(settings)))


def train_here(run: Run, dataset_path: str, recipe: dict[str, Any], settings: TrainSettings) -> None:
    """The part of this process, which is all of it when there is one."""
    accelerator = new_accelerator(settings)
    with ExitStack() as running:
        watchdog = running.enter_context(Watchdog(settings.stall_seconds))
        coordinator = Coordinator(accelerator, settings.peer_timeout, watchdog.heartbeat)
        checkpoint = agreed_newest(run, recipe, settings.work_dir, accelerator)
        status = Status(run, settings)
        if accelerator.is_main_process:
            step = checkpoint.step if checkpoint else 0
            status.attempt = begin_attempt(run, step, settings.fruitless_attempts).attempt
            run.note(layout.ConfigNote(run.run_id), settings.public())
            running.enter_context(status)

        with coordinator.independently() as stop_check:
            dataset = fetch(run.store, dataset_path, settings.work_dir, stop_check)
        images, validation = (
            read_split(dataset, "train"),
            read_split(dataset, "validation")[: settings.validation_images],
        )
        shown = sample_prompts(settings, [image.caption for image in validation])
        with coordinator.independently():
            parts = family_of(settings).load(settings)
        status.enter("encoding")
        samples, held_out, prompts = encode_dataset(images, validation, shown, parts, run.store, coordinator, settings)
        denoiser, noise_scheduler = with_lora(parts, accelerator, settings), parts.noise_scheduler
        del parts  # the frozen encoders have said all they have to say

        trainer = Trainer(accelerator, denoiser, noise_scheduler, samples, held_out, settings)
        status.progress = trainer.progress
        if checkpoint is not None:
            trainer.resume(checkpoint.folder)
            status.committed(checkpoint.step, checkpoint.path)
        start_tracking(accelerator, settings)
        folder = running.enter_context(scratch_folder(settings.work_dir))
        uploads = running.enter_context(
            Uploads(committing(run, recipe, trainer, status, settings), settings.failed_uploads)
        )
        on_the_way = OnTheWay(run, folder, recipe, trainer, prompts, shown, coordinator, uploads, status)
        fit(trainer, on_the_way)
        status.enter("publishing")
        publish_lora(on_the_way, dataset_path, images)
    accelerator.wait_for_everyone()
    accelerator.end_training()
    if accelerator.is_main_process:
        publish_tracked(run, settings)


def with_lora(parts: Parts, accelerator: Accelerator, settings: TrainSettings) -> Denoiser:
    """What is trained: the frozen denoiser in its precision, and the LoRA at its start."""
    # The start of the LoRA is random too: from the seed alone, whatever ran before in this process.
    torch.manual_seed(settings.seed)
    return parts.trainable(settings, precision(accelerator))


def fit(trainer: Trainer, on_the_way: OnTheWay) -> None:
    """All the steps, and the last checkpoint committed, whether it is of the last step or of the one where we stop."""
    on_the_way.status.enter("training")
    try:
        trainer.fit(on_the_way)
    except Stopped:
        on_the_way.wait_for_uploads()
        raise
    on_the_way.wait_for_uploads()


def publish_lora(on_the_way: OnTheWay, dataset_path: str, images: Sequence[CaptionedImage]) -> None:
    """Puts the result into the model, makes sure that it is one, and publishes it."""
    run, trainer, recipe = on_the_way.run, on_the_way.trainer, on_the_way.recipe
    accelerator, progress = trainer.accelerator, trainer.progress
    result = trainer.install_result()
    assert_alive(trainer.lora())

    def publish_it(stop_check: StopCheck) -> None:
        with accelerator.autocast():
            noisy, condition = trainer.held_out.repeated(0, 1, accelerator.device)
            assert_effect(trainer.unwrapped, noisy, torch.tensor([500], device=accelerator.device), condition)
        folder = on_the_way.folder / "lora"
        write_lora(folder, result, on_the_way, images, stop_check)
        try:
            artifact = publish(
                run.store, folder, kind="lora", path=run.lora_path, parents=[dataset_path], settings=recipe
            )
        except BadConfiguration:
            # Another attempt may have been faster; it was disturbed elsewhere, so its curves have other points.
            if not is_complete(run, recipe):
                raise
            log.info("already complete", lora=run.lora_path)
            return
        ratio = round(ratio_of(result, progress.measurements[0]), 4)
        facts = {"lora": artifact.path, "steps": progress.step, "of_step": result.step, "held_out_ratio": ratio}
        run.note(layout.CompleteNote(run.run_id), {**facts, "version": artifact.manifest.version})
        log.info("LoRA published", **facts)

    on_the_way.coordinator.run_on_main(publish_it)


def write_lora(
    folder: Path, result: Measurement, on_the_way: OnTheWay, images: Sequence[CaptionedImage], stop_check: StopCheck
) -> None:
    """The folder that is published: weights in two forms, model card, curves, pictures."""
    folder.mkdir()
    trainer, recipe = on_the_way.trainer, on_the_way.recipe
    progress = trainer.progress
    facts = training_facts(recipe, len(images), result.step, trainer.noise_scheduler.config["prediction_type"])
    files = trainer.unwrapped.export(folder, facts)
    with (folder / METRICS_NAME).open("w") as lines:
        lines.writelines(json.dumps(line) + "\n" for line in progress.lines())
    draw_curves(progress, folder / CURVES_NAME)
    if on_the_way.shown:
        on_the_way.draw(folder, stop_check)
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
        files=files,
    )


def is_complete(run: Run, recipe: dict[str, Any]) -> bool:
    """True when the run's LoRA exists. Raises BadConfiguration when it was made by another recipe."""
    if not exists(run.store, run.lora_path):
        return False
    check_identity(read_manifest(run.store, run.lora_path).settings, recipe, run.lora_path)
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
    """Precision of the frozen denoiser."""
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(accelerator.mixed_precision, torch.float32)
