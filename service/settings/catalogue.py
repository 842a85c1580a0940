"""The jobs, one record each. Nothing is imported before it is needed, so that `sdlora --help` answers at once."""

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from service.settings.common import CommonSettings


class Job(NamedTuple):
    """What there is to know of a job before it runs. Its function has its name, in a module of that name in service.jobs.

    `settings`: its class and the module of it below service.settings; none for a job that looks at those of all others.
    `in_chain`: one of the jobs that make a LoRA of images, which `demo` runs and `doctor` looks at. `reads_flags`: it is
    given its flags as they are, because it looks for faults in the settings and must not fall over the first. `answers`: it
    tells somebody who waits for it what there is; nobody else needs to be told how it ended. `reads_store`: a function of its
    name in service.checks.inputs looks whether what it reads is there, before its libraries are loaded.
    """

    name: str
    help: str
    settings: str = ""
    in_chain: bool = False
    reads_flags: bool = False
    answers: bool = False
    reads_store: bool = False

    @property
    def input_check(self) -> Any:
        """What is called with the settings first; None for a job without."""
        return getattr(import_module("service.checks.inputs"), self.name) if self.reads_store else None

    @property
    def function(self) -> Any:
        name = self.name.replace("-", "_")
        return getattr(import_module(f"service.jobs.{name}"), name)

    @property
    def settings_class(self) -> "type[CommonSettings]":
        module, _, name = self.settings.partition(".")
        found: type[CommonSettings] = getattr(import_module(f"service.settings.{module}"), name)
        return found


JOBS = {
    job.name: job
    for job in (
        Job("data-prep", "images in, a captioned and published data set out", "data_prep.DataPrepSettings", True),
        Job("train", "a data set in, checkpoints and a LoRA out", "train.TrainSettings", True, reads_store=True),
        Job("infer", "prompts in, images of the base model and of the LoRA out", "infer.InferSettings", True, reads_store=True),
        Job("evaluate", "LoRA against base on held-out images: promote, hold or reject", "evaluate.EvaluateSettings", True,
            reads_store=True),
        Job("promote", "an evaluation that says so in, the next champion of a model out", "promote.PromoteSettings"),
        Job("rollback", "a champion of before reigns again", "promote.RollbackSettings"),
        Job("retire", "LoRAs withdrawn for ever; the next best champion in their place", "promote.RetireSettings"),
        Job("champion", "who is the champion, who was it when, and why", "promote.ChampionSettings", answers=True),
        Job("retrain", "data-prep, train, evaluate and promote as one run that is done once", "retrain.RetrainSettings"),
        Job("demo", "the first four on the miniature, on a CPU, with no network", "demo.DemoSettings"),
        Job("doctor", "what would fail, before a GPU hour is spent on it", "doctor.DoctorSettings", reads_flags=True),
        Job("prefetch", "models of the hub mirrored into the store, where the jobs take them", "prefetch.PrefetchSettings"),
        Job("prune", "old checkpoints and leftovers out; lists first what it would delete", "prune.PruneSettings"),
        Job("diff", "two data sets → what changed: images, captions, hosts, licences", "diff.DiffSettings", answers=True),
        Job("trace", "an image → the data sets, LoRAs, champions and pictures that descend from it", "trace.TraceSettings",
            answers=True),
        Job("reproduce", "an evaluation → the same once more, from its manifests: same hashes?", "reproduce.ReproduceSettings"),
        Job("config", "the effective settings; --check fails on an unknown or bad one", reads_flags=True, answers=True),
    )
}  # fmt: skip
CHAIN = [job.name for job in JOBS.values() if job.in_chain]


@cache
def all_settings() -> "dict[str, type[CommonSettings]]":
    """Each job's class of settings, by the name of the job."""
    return {job.name: job.settings_class for job in JOBS.values() if job.settings}
