"""The curves of a run as one picture."""

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from service.diffusion.held_out import TIMESTEPS
from service.training.progress import Progress, ratios


def draw_curves(progress: Progress, file: Path) -> None:
    """Training loss, held-out loss of each timestep as a multiple of step 0, and learning rate, over the steps."""
    figure = Figure(figsize=(12, 3.2), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    loss, held_out, rate = figure.subplots(1, 3)
    steps = [point.step for point in progress.points]
    loss.plot(steps, [point.loss for point in progress.points], color="#1f77b4", linewidth=1)
    loss.set_title("training loss")
    measured = progress.measurements
    for column, timestep in enumerate(TIMESTEPS):
        values = [m.losses[column] / measured[0].losses[column] for m in measured]
        held_out.plot([m.step for m in measured], values, linewidth=1, label=f"t = {timestep}")
    held_out.plot([m.step for m in measured], ratios(measured), color="black", linewidth=2, label="mean")
    held_out.axhline(1, color="grey", linewidth=0.5)
    held_out.legend(fontsize=8)
    held_out.set_title("held-out loss, base model = 1")
    rate.plot(steps, [point.learning_rate for point in progress.points], color="#2ca02c", linewidth=1)
    rate.set_title("learning rate")
    for axes in (loss, held_out, rate):
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
    # Without the library's version in it, the same curves are the same bytes.
    figure.savefig(file, metadata={"Software": None})
