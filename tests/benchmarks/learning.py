"""Does `recommended` teach better than `report`? Both scaled to the miniature by the same factors, on three seeds.

Steps are a tenth, learning rates twenty times what the profiles say: a model of a few million parameters needs larger
steps, and fewer. All else is the profiles' own. Prints the table of service/training/README.md. Runs in some 20 minutes on
two cores; what is finished in the folder given as argument is not done again.
"""

import sys
from pathlib import Path
from statistics import fmean

from service.artifacts.fetching import fetch
from service.artifacts.kinds.evaluation import read_json
from service.artifacts.runs import Run
from service.jobs.data_prep import data_prep
from service.jobs.evaluate import evaluate
from service.jobs.train import train
from service.logs import configure_logs
from service.settings.data_prep import DataPrepSettings
from service.settings.evaluate import EvaluateSettings
from service.settings.train import PROFILES, TrainSettings
from service.storage.opening import open_store

SEEDS = (0, 1, 2)
FASTER = 10
LEARNING_RATE = 20
COMMON = {"model_base": "miniature"}


def scaled(profile: str) -> dict[str, object]:
    """The profile at the size of the miniature."""
    own = PROFILES[profile]
    keep = 1 - (1 - own["ema_decay"]) * FASTER if own["ema_decay"] else 0.0
    return {
        **own,
        "learning_rate": own["learning_rate"] * LEARNING_RATE,
        "lr_warmup_steps": own["lr_warmup_steps"] // FASTER,
        "max_steps": own["max_steps"] // FASTER,
        "validate_every": own["validate_every"] // FASTER,
        "checkpoint_every": own["checkpoint_every"] // FASTER,
        "ema_decay": keep,
        "resolution": 64,
        "bucket_step": 8,
    }


def main(folder: Path) -> None:
    configure_logs("json")
    places = {"artifacts_uri": str(folder / "artifacts"), "work_dir": folder / "work", **COMMON}
    prepared = DataPrepSettings(source="folder", folder="miniature", validation_share=0.2, run_id="dataset", **places)
    data_prep(prepared)
    store = open_store(str(folder / "artifacts"))
    dataset = Run(store, "dataset").dataset()
    found: dict[str, list[dict[str, float]]] = {"report": [], "recommended": []}
    base: list[dict[str, float]] = []
    for seed in SEEDS:
        for profile, rows in found.items():
            run = {"run_id": f"{profile}-{seed}", **places}
            train(TrainSettings(profile=profile, dataset=dataset, seed=seed, samples=0, **scaled(profile), **run))
            path = evaluate(
                EvaluateSettings(
                    steps=20, guidance=4, variations=2, max_prompts=24, batch_size=24, seed=1000 + seed, **run
                )
            )
            result = read_json(fetch(store, path, folder / "work"))
            named = {"held-out loss": "held_out", "style distance": "style", "CLIPScore": "adherence"}
            rows.append({name: result.finding(key).lora for name, key in named.items()})
            if profile == "report":
                base.append({name: result.finding(key).base for name, key in named.items()})
            sys.stdout.write(f"{profile} {seed} {rows[-1]} {result.decision}\n")
    print_table({"base model": base, **found})


def print_table(found: dict[str, list[dict[str, float]]]) -> None:
    names = list(found["report"][0])
    lines = [
        f"| | {' | '.join(f'{name}, seeds {SEEDS[0]}–{SEEDS[-1]}' for name in names)} |",
        "|---|" + "---|" * len(names),
    ]
    for who, rows in found.items():
        cells = [
            " · ".join(f"{row[name]:.4g}" for row in rows) + f" (mean {fmean(row[name] for row in rows):.4g})"
            for name in names
        ]
        lines.append(f"| {who} | {' | '.join(cells)} |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else ".cache/benchmarks/learning"))
