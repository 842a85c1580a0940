"""What a checkpoint every 50 steps costs the training: ten steps on the miniature that begin with one, then ten without.

`python -m tests.benchmarks.checkpoints [PAIRS]`: the trainer, the upload in the background and the retention are the job's
own; the store is rclone's S3 server on loopback, which has to share the cores with the training. Such short stretches beside
each other are alike also on a machine that slows down and recovers; two of 50 steps differ by more than a checkpoint costs.
"""

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from accelerate import Accelerator

from service.artifacts.runs import Run
from service.diffusion.held_out import HeldOut
from service.diffusion.sd15.components import load_components
from service.diffusion.sd15.prompts import STATES
from service.logs import configure_logs
from service.settings.identity import identity
from service.settings.train import TrainSettings
from service.storage.opening import open_store
from service.training.callbacks import Checkpoints, StopOnRequest
from service.training.checkpoints import committer
from service.training.processes.coordinator import Coordinator
from service.training.progress import Measurement
from service.training.status import StatusReporter
from service.training.trainer import Trainer
from service.training.uploads import Uploads
from tests.noise import random_dataset
from tests.servers import rclone_server

EVERY = 50
STRETCH = 10
"""Steps, in which the upload of a checkpoint is long over."""
PAIRS = 40
IMAGES = 64


def new_trainer(settings: TrainSettings) -> Trainer:
    parts = load_components(settings)
    side = settings.resolution // 2 ** (len(parts.vae.config["block_out_channels"]) - 1)
    shape = (parts.unet.config["in_channels"], side, side)
    condition = (parts.tokenizer.model_max_length, parts.unet.config["cross_attention_dim"])
    held_out = HeldOut(torch.randn(1, *shape), {STATES: torch.randn(1, *condition)})
    accelerator = Accelerator(cpu=True)
    data = random_dataset(IMAGES, shape, condition, accelerator.device)
    trainer = Trainer(
        accelerator, parts.trainable(settings, torch.float32), parts.noise_scheduler, data, held_out, settings
    )
    trainer.progress.measurements.append(Measurement(0, (1.0,) * 4))
    trainer.best_state = {name: tensor.clone() for name, tensor in trainer.lora().items()}
    return trainer


def stretch(trainer: Trainer, checkpoints: Checkpoints, uploads: Uploads, *, save: bool) -> float:
    """Seconds of some steps; of those that begin with a checkpoint until that is stored, too."""
    stop = StopOnRequest(Coordinator(trainer.accelerator))
    begin = time.perf_counter()
    if save:
        checkpoints.save(trainer)
    for _ in range(STRETCH):
        trainer.take_step(trainer.progress.step)
        trainer.progress.step += 1
        uploads.check()
        stop.on_step_end(trainer)
    uploads.finish(lambda: None)
    return time.perf_counter() - begin


def main(pairs: int) -> None:
    configure_logs("json", level="warning")
    with tempfile.TemporaryDirectory() as name, rclone_server(Path(name) / "buckets") as server:
        os.environ.update(server.environment)
        settings = TrainSettings(
            profile="miniature", model_base="miniature", max_steps=10_000_000, work_dir=Path(name), run_id="r"
        )
        run = Run(open_store(f"s3://{server.new_bucket()}/team"), "r")
        trainer = new_trainer(settings)
        status = StatusReporter(run, settings)
        recipe = identity(settings, dataset="datasets/none/0")
        commit = committer(run, recipe, progress=trainer.progress, settings=settings, on_commit=status.committed)
        plain, extra = [], []
        with Uploads(commit, settings.failed_uploads) as uploads:
            coordinator = Coordinator(trainer.accelerator)
            checkpoints = Checkpoints(Path(name), uploads, coordinator, status, settings)
            stretch(trainer, checkpoints, uploads, save=True)  # the first also loads libraries and opens connections
            for _ in range(pairs):
                with_one, without = (stretch(trainer, checkpoints, uploads, save=save) for save in (True, False))
                plain.append(without / STRETCH)
                extra.append(with_one - without)
    step, checkpoint = statistics.median(plain), statistics.median(extra)
    error = 1.25 * statistics.stdev(extra) / len(extra) ** 0.5  # of the median, were they normal
    sys.stdout.write(
        f"a step takes {1000 * step:.0f} ms, a checkpoint {1000 * checkpoint:.0f} ms more (± {1000 * error:.0f}, {pairs} "
        f"pairs); one every {EVERY} steps: {1 + checkpoint / (EVERY * step):.4f} of the time without\n"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else PAIRS)
