"""The curves in TensorBoard, Weights & Biases or MLflow, through Accelerate."""

from accelerate import Accelerator

from service.artifacts.kinds import tensorboard
from service.artifacts.runs import Run
from service.exits import BadConfiguration
from service.settings.train import TrainSettings, not_installed


def start_tracking(accelerator: Accelerator, settings: TrainSettings) -> None:
    """Opens the tracker of the settings, if any. Raises BadConfiguration when it is not installed or not reachable."""
    if settings.tracker == "none":
        return
    if not accelerator.log_with:
        raise BadConfiguration(not_installed("TRAIN_TRACKER", settings.tracker))
    facts = {name: value if isinstance(value, int | float) else str(value) for name, value in settings.public().items()}
    accelerator.init_trackers("sdlora", config=facts)


def end_tracking(accelerator: Accelerator, run: Run, settings: TrainSettings) -> None:
    """Closes the tracker once all processes are done; what TensorBoard wrote into the scratch folder is kept beside the run."""
    accelerator.wait_for_everyone()
    accelerator.end_training()
    folder = settings.work_dir / "trackers" / settings.run_id
    if accelerator.is_main_process and settings.tracker == "tensorboard" and folder.is_dir():
        tensorboard.write(run.store, folder, run_id=run.run_id)
