"""The one training loop of the miniature family: seeded by step, checkpointed, resumable."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import structlog
import torch
from torch import Tensor, nn

log = structlog.get_logger(__name__)

Loss = Callable[[np.random.Generator], Tensor]
SECONDS_BETWEEN_CHECKPOINTS = 60


def fit(
    name: str,
    model: nn.Module,
    loss: Loss,
    work: Path,
    steps: int,
    learning_rate: float,
    averaging: float = 0.999,
    seed: int = 0,
) -> nn.Module:
    """Trains `model` with AdamW for `steps` steps and leaves the average of its weights (EMA) in it.

    `loss` draws its batch from a generator that depends on (seed, step) alone, so a killed run goes on as if it had not
    been. The checkpoint `<work>/<name>.pt` is replaced every minute and kept at the end: a second call returns at once.
    """
    checkpoint = work / f"{name}.pt"
    average = {key: value.detach().clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.99), weight_decay=1e-2)
    first = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average, first = state["average"], state["step"]
        log.info("resumed", model=name, step=first)
    running: list[float] = []
    saved = time.monotonic()
    for step in range(first, steps):
        torch.manual_seed(seed * 1_000_003 + step)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * schedule(step, steps)
        value = loss(np.random.default_rng((seed, step)))
        optimizer.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        update_average(average, model, decay=min(averaging, (step + 1) / (step + 10)))
        running.append(value.item())
        if step + 1 == steps or time.monotonic() - saved > SECONDS_BETWEEN_CHECKPOINTS:
            log.info("fitting", model=name, step=step + 1, steps=steps, loss=round(float(np.mean(running)), 5))
            running.clear()
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "average": average}
            replace_checkpoint(checkpoint, {**state, "step": step + 1})
            saved = time.monotonic()
    model.load_state_dict(average)
    return model.eval()


def replace_checkpoint(checkpoint: Path, state: dict[str, object]) -> None:
    """At once, so that a kill leaves the old one or the new one."""
    torch.save(state, checkpoint.with_suffix(".tmp"))
    os.replace(checkpoint.with_suffix(".tmp"), checkpoint)


def schedule(step: int, steps: int, warmup: int = 100, decay: float = 0.35) -> float:
    """Factor of the learning rate: warm-up, a plateau, then linearly to zero over the last `decay` of the run."""
    return min(1.0, (step + 1) / warmup, (steps - step) / (decay * steps))


@torch.no_grad()
def update_average(average: dict[str, Tensor], model: nn.Module, decay: float) -> None:
    for key, value in model.state_dict().items():
        if value.is_floating_point():
            average[key].lerp_(value, 1 - decay)
        else:
            average[key].copy_(value)
