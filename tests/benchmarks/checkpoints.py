"""What a checkpoint every 50 steps costs the training: blocks of 50 steps on the miniature, with one and without, in turns.

`python -m tests.benchmarks.checkpoints [ROUNDS]`: the trainer, the upload in the background and the retention are the
job's own; the store is rclone's S3 server on loopback, which has to share the cores with the training.
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
from service.artifacts.stores import open_store
from service.diffusion.components import load_components
from service.diffusion.denoiser import Denoiser
from service.diffusion.held_out import HeldOut
from service.diffusion.lora import add_lora
from service.logs import configure_logs
from service.settings.train import TrainSettings
from service.training.agreement import Agreement
from service.training.checkpoints import identity
from service.training.loading import Prompts
from service.training.on_the_way import OnTheWay, committing
from service.training.progress import Measurement
from service.training.samples import EncodedDataset
from service.training.status import Status
from service.training.trainer import Trainer
from service.training.uploads import Uploads
from tests.servers import rclone_server

BLOCK = 50
ROUNDS = 8
IMAGES = 64


def random_dataset(shape: tuple[int, ...], condition: tuple[int, ...]) -> EncodedDataset:
    keys = [[f"{number}", f"{number} mirrored"] for number in range(IMAGES)]
    return EncodedDataset(
        names=[str(number) for number in range(IMAGES)],
        latents_of={
            key: {"mean": torch.randn(shape), "deviation": torch.rand(shape)} for of_image in keys for key in of_image
        },
        latent_keys=keys,
        mirrored=[False, True],
        buckets=[range(IMAGES)],
        shapes=[shape] * IMAGES,
        conditions_of={str(n): {"condition": torch.randn(condition)} for n in range(IMAGES + 1)},
        condition_keys=[str(number) for number in range(IMAGES + 1)],
    )


def new_trainer(settings: TrainSettings) -> Trainer:
    parts = load_components(settings)
    side = settings.resolution // 2 ** (len(parts.vae.config["block_out_channels"]) - 1)
    shape = (parts.unet.config["in_channels"], side, side)
    condition = (parts.tokenizer.model_max_length, parts.unet.config["cross_attention_dim"])
    add_lora(parts.unet, settings)
    held_out = HeldOut(torch.randn(1, *shape), torch.randn(1, *condition))
    data = random_dataset(shape, condition)
    trainer = Trainer(Accelerator(cpu=True), Denoiser(parts.unet, None), parts.scheduler, data, held_out, settings)
    trainer.progress.measurements.append(Measurement(0, (1.0,) * 4))
    trainer.best_state = {name: tensor.clone() for name, tensor in trainer.lora().items()}
    return trainer


def block(trainer: Trainer, occasions: OnTheWay, save: bool) -> float:
    """Seconds of 50 steps, which begin with the checkpoint of the 50 before, if one is due."""
    begin = time.perf_counter()
    if save:
        occasions.checkpoint(trainer.progress.step)
    for _ in range(BLOCK):
        trainer.take_step(trainer.progress.step)
        trainer.progress.step += 1
        occasions.between()
    return time.perf_counter() - begin


def main(rounds: int) -> None:
    configure_logs("json", quiet=True)
    with tempfile.TemporaryDirectory() as name, rclone_server(Path(name) / "buckets") as server:
        os.environ.update(server.environment)
        settings = TrainSettings(
            profile="miniature", model_base="miniature", max_steps=10_000_000, work_dir=Path(name), run_id="r"
        )
        run = Run(open_store(f"s3://{server.new_bucket()}/team"), "r")
        trainer = new_trainer(settings)
        status = Status(run, settings)
        recipe = identity(settings, "datasets/none/0")
        seconds: dict[bool, list[float]] = {True: [], False: []}
        with Uploads(committing(run, recipe, trainer, status, settings), settings.failed_uploads) as uploads:
            occasions = OnTheWay(
                run, Path(name), recipe, trainer, Prompts({}), [], Agreement(trainer.accelerator), uploads, status
            )
            block(trainer, occasions, save=True)  # the first of each also loads libraries and opens connections
            for number in range(rounds):
                # By turns the one and the other first: the machine may slow down meanwhile.
                for save in (True, False) if number % 2 else (False, True):
                    uploads.finish(lambda: None)
                    seconds[save].append(block(trainer, occasions, save))
                sys.stdout.write(f"{seconds[False][-1]:.2f} s without, {seconds[True][-1]:.2f} s with\n")
                sys.stdout.flush()
        ratios = [with_one / without for with_one, without in zip(seconds[True], seconds[False], strict=True)]
        sys.stdout.write(
            f"{BLOCK} steps: {statistics.median(seconds[False]):.2f} s without a checkpoint, "
            f"{statistics.median(seconds[True]):.2f} s with one; ratio {statistics.median(ratios):.4f} "
            f"(median of {rounds} pairs; {min(ratios):.4f} to {max(ratios):.4f})\n"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)
