"""`sdlora train`: a data set in, checkpoints and a LoRA out."""

import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from datetime import timedelta
from typing import Any

import structlog
import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs

from service import stopping
from service.artifacts.fetching import fetch
from service.artifacts.kinds.lora import of_run
from service.artifacts.notes import Complete, Config
from service.artifacts.runs import Run
from service.diffusion.families import family_of
from service.diffusion.family import Denoiser, Parts
from service.diffusion.images import read_split
from service.diffusion.lora import assert_alive
from service.exits import BadConfiguration, BadData
from service.logs import configure_logs
from service.outcome import add_facts, guarded
from service.settings.identity import identity
from service.settings.train import TrainSettings
from service.storage.interface import NotFound
from service.storage.opening import open_store
from service.storage.scratch import scratch_folder
from service.training.attempts import begin_attempt
from service.training.callbacks import Checkpoints, Costs, SamplePictures, Samples, StopOnRequest
from service.training.checkpoints import committer, newest_on_all
from service.training.costs import Capped, Meter, spent_before
from service.training.determinism import deterministic_kernels
from service.training.encoded.loading import encode_dataset
from service.training.pictures import sample_prompts
from service.training.processes.coordinator import Coordinator
from service.training.processes.launcher import (
    SharedFlags,
    exit_stopped,
    exit_with,
    gpu_count,
    is_worker,
    planned_workers,
    run_workers,
)
from service.training.processes.peers import reporting_lost_peers
from service.training.processes.watchdog import Watchdog
from service.training.result import Result, capped_now, is_complete
from service.training.status import StatusReporter
from service.training.trackers import end_tracking, start_tracking
from service.training.trainer import Callback, Trainer
from service.training.uploads import Uploads

log = structlog.get_logger(__name__)


def train(settings: TrainSettings) -> str:
    """Fine-tunes a LoRA on a published data set and publishes it. Returns the path of the LoRA below ARTIFACTS_URI."""
    run = Run(open_store(settings.artifacts_uri), settings.run_id)
    dataset_path = settings.dataset or run.dataset()
    recipe = identity(settings, dataset=dataset_path)
    if is_complete(run, recipe):
        log.info("already complete", lora=run.lora_path)
        return _reported(run, settings)
    limit = Meter(settings, spent_before(run)).limit_reached()
    if limit and (capped := capped_now(run, recipe)):
        log.info("already capped", lora=capped.path, limit=limit, step=capped.capped_at)
        return _reported(run, settings)
    workers = planned_workers(settings, os.environ, gpu_count())
    if workers.needed and not is_worker(os.environ):
        run_workers(worker_main, settings, workers)
    else:
        with reporting_lost_peers(), deterministic_kernels(settings.deterministic):
            _train_in_this_process(run, dataset_path, recipe, settings)
    return _reported(run, settings)


def _reported(run: Run, settings: TrainSettings) -> str:
    """The path of the LoRA, with what the training came to, and its cost, in its outcome."""
    lora = of_run(run.store, run.run_id)
    add_facts(**Meter(settings, spent_before(run)).facts(settings.max_steps))
    if lora.capped_at is not None:
        add_facts(
            capped=f"ended by a limit after step {lora.capped_at} of {settings.max_steps}; a higher limit goes on"
        )
    with suppress(NotFound, BadData):  # capped, or stopped between the LoRA and its note
        complete = Complete.read(run.store, run.run_id)
        add_facts(steps=complete.steps, held_out_ratio=complete.held_out_ratio)
    return lora.path


def worker_main(settings: TrainSettings, flags: SharedFlags) -> None:
    """What a worker process does: the same job, with a rank."""
    rank = int(os.environ["RANK"])
    level = "warning" if rank > 0 else settings.log_level
    configure_logs(settings.log_format, level=level, job="train", run_id=settings.run_id, rank=rank)
    stopping.listen_to(flags.stop_requested)
    stopping.listen(exit_stopped)
    flags.set_started()
    exit_with(guarded(lambda: train(settings)))


def _train_in_this_process(run: Run, dataset_path: str, recipe: dict[str, Any], settings: TrainSettings) -> None:
    """The part of this process, which is all of it when there is one."""
    with stopping.nothing_to_save():  # it waits for the other processes
        accelerator = _new_accelerator(settings)
    with ExitStack() as running:
        watchdog = running.enter_context(Watchdog(settings.stall_seconds))
        coordinator = Coordinator(accelerator, settings.peer_timeout, watchdog.heartbeat)
        checkpoint = newest_on_all(run, recipe, settings.work_dir, accelerator)
        status = StatusReporter(run, settings)
        if accelerator.is_main_process:
            _begin(run, checkpoint.step if checkpoint else 0, status, settings)
            running.enter_context(status)

        with coordinator.independently() as stop_check:
            dataset = fetch(run.store, dataset_path, settings.work_dir, stop_check)
        images = read_split(dataset, "train")
        validation = read_split(dataset, "validation")[: settings.validation_images]
        shown = sample_prompts(settings, [image.caption for image in validation])
        with coordinator.independently():
            parts = family_of(settings).load(settings)
        status.enter("encoding")
        samples, held_out, prompts = encode_dataset(
            parts, images, validation, also=shown, store=run.store, coordinator=coordinator, settings=settings
        )
        denoiser, noise_scheduler = _with_lora(parts, accelerator, settings), parts.noise_scheduler
        del parts  # the frozen encoders have said all they have to say

        trainer = Trainer(accelerator, denoiser, noise_scheduler, samples, held_out, settings)
        status.progress = trainer.progress
        if checkpoint is not None:
            trainer.resume(checkpoint.folder)
            status.committed(checkpoint.step, checkpoint.path)
        start_tracking(accelerator, settings)
        folder = running.enter_context(scratch_folder(settings.work_dir))
        commit = committer(run, recipe, progress=trainer.progress, settings=settings, on_commit=status.committed)
        uploads = running.enter_context(Uploads(commit, settings.failed_uploads))
        pictures = SamplePictures(shown, prompts)

        status.enter("training")
        saving = Checkpoints(folder, uploads, coordinator, status, settings)
        drawing = Samples(pictures, run=run, recipe=recipe, folder=folder, coordinator=coordinator, status=status)
        callbacks = [saving, drawing, Costs(status.meter, coordinator, settings), StopOnRequest(coordinator)]
        limit = _fit(trainer, callbacks)
        status.enter("publishing")
        measured = trainer.install_best_so_far(callbacks) if limit else trainer.install_result()
        result = Result(run, recipe, dataset_path, images, trainer, measured, limit)
        assert_alive(trainer.lora())
        coordinator.run_on_main(lambda stop_check: result.publish(folder / "lora", pictures, stop_check))
        status.last_phase = "capped" if limit else "complete"
    end_tracking(accelerator, run, settings)


def _begin(run: Run, step: int, status: StatusReporter, settings: TrainSettings) -> None:
    """Notes that an attempt begins at this step, and with which settings; its time and that of those before counts from now."""
    status.meter = Meter(settings, spent_before(run))
    status.attempt = begin_attempt(run, step, settings.fruitless_attempts)
    Config.of(settings.public()).write(run.store, run.run_id)


def _fit(trainer: Trainer, callbacks: Sequence[Callback]) -> str | None:
    """Trains; returns the limit that ended it early. Raises BadConfiguration for one that leaves no time for a step."""
    try:
        trainer.fit(callbacks)
    except Capped as end:
        if trainer.progress.step == 0:
            raise BadConfiguration(
                f"{end} is reached before the first step is done: raise it, or choose another RUN_ID"
            ) from end
        return str(end)
    return None


def _with_lora(parts: Parts, accelerator: Accelerator, settings: TrainSettings) -> Denoiser:
    """What is trained: the frozen denoiser in its precision, and the LoRA at its start."""
    # The start of the LoRA is random too: from the seed alone, whatever ran before in this process.
    torch.manual_seed(settings.seed)
    return parts.trainable(settings, _precision(accelerator))


def _new_accelerator(settings: TrainSettings) -> Accelerator:
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


def _precision(accelerator: Accelerator) -> torch.dtype:
    """Precision of the frozen denoiser."""
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(accelerator.mixed_precision, torch.float32)
