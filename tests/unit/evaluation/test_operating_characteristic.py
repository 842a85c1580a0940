"""The benchmark of the gate, on made-up measurements of which the truth is known."""

from pathlib import Path

import numpy as np
import pytest

from service.artifacts.kinds.measurements import Measured, Measurements
from service.evaluation.gate import examine
from service.settings.evaluate import EvaluateSettings
from tests.benchmarks.operating_characteristic import Share, characteristic, plot, resampled, table

POOL = 200
VARIATIONS = 2
WIDTH = 64
QUICK = 250


def pool(style: float = 0.0, adherence: float = 0.0, live: float = 1.0, seed: int = 0) -> Measurements:
    """Of a LoRA that closes a share of the distance to the style, gains so many points of CLIPScore, and changes a share of
    the pictures."""
    rng = np.random.default_rng(seed)
    pictures = POOL * VARIATIONS

    def around(centre: float, count: int) -> np.ndarray:
        of_prompts = rng.normal(0, 0.5, (count // VARIATIONS, WIDTH)).repeat(VARIATIONS, axis=0)
        return centre + of_prompts + rng.normal(0, 0.3, (count, WIDTH))

    def of_length_1(features: np.ndarray) -> np.ndarray:
        return features / np.linalg.norm(features, axis=1, keepdims=True)

    held_out, base = rng.normal(0, 0.6, (POOL, WIDTH)), around(1.0, pictures)
    lora = base if style == 0 else around(1.0 - style, pictures)
    scores = rng.normal(30, 5, POOL).repeat(VARIATIONS)
    arrays = {
        "pixel_differences": np.where(np.arange(pictures) < live * pictures, 9.0, 0.0),
        "base_contrasts": np.full(pictures, 40.0),
        "lora_contrasts": np.full(pictures, 40.0),
        "held_out_features": held_out,
        "base_features": base,
        "lora_features": lora,
        "held_out_embeddings": of_length_1(held_out + 2),
        "base_embeddings": of_length_1(base + 2),
        "lora_embeddings": of_length_1(lora + 2),
        "base_clip_scores": scores + rng.normal(0, 1, pictures),
        "lora_clip_scores": scores + adherence + rng.normal(0, 1, pictures),
        "base_held_out_losses": np.full(POOL, 0.2) + rng.normal(0, 0.01, POOL),
        "lora_held_out_losses": np.full(POOL, 0.19) + rng.normal(0, 0.01, POOL),
    }
    prompts = [f"prompt {number}" for number in range(POOL) for _ in range(VARIATIONS)]
    names = [f"{number}.png" for number in range(POOL)]
    measured = Measured(images="runs/x/images/y", prompts=prompts, variations=VARIATIONS, held_out=names)
    return Measurements(measured, arrays)


def test_a_resample_keeps_together_what_belongs_to_a_prompt_and_makes_each_draw_a_prompt_of_its_own() -> None:
    whole = pool(style=0.5)
    drawn = resampled(whole, 500, np.random.default_rng(0))
    assert len(set(drawn.of.prompts)) == 500
    for row in (0, 1, 998, 999):
        number = int(drawn.of.prompts[row].split()[-1])
        picture = VARIATIONS * number + row % VARIATIONS
        for name in ("base_features", "lora_features", "lora_clip_scores"):
            np.testing.assert_array_equal(drawn.arrays[name][row], whole.arrays[name][picture])
        assert drawn.of.held_out[row // VARIATIONS] == f"{number}.png"
        np.testing.assert_array_equal(
            drawn.arrays["held_out_features"][row // VARIATIONS], whole.arrays["held_out_features"][number]
        )
        assert drawn.arrays["lora_held_out_losses"][row // VARIATIONS] == whole.arrays["lora_held_out_losses"][number]


def test_every_array_that_the_criteria_read_is_resampled_to_the_size_that_they_take() -> None:
    findings = examine(resampled(pool(style=0.5), 12, np.random.default_rng(1)), EvaluateSettings())
    assert {finding.name for finding in findings if finding.lora is None} == {"bleed", "memorisation", "copies"}


def test_a_good_lora_is_promoted_and_useless_and_harmful_ones_are_not() -> None:
    rows = characteristic(
        {
            "good": pool(style=0.6),
            "useless": pool(live=0.0),
            "harmful": pool(style=0.6, adherence=-4.0),
            "away": pool(style=-0.4),
        },
        sizes=[16],
        resamples=30,
    )
    promoted = {row.lora: row.said["promote"].value for row in rows}
    assert promoted["good"] > 0.9
    assert [promoted[name] for name in ("useless", "harmful", "away")] == [0, 0, 0]
    assert all(sum(share.value for share in row.said.values()) == pytest.approx(1) for row in rows)


def test_intervals_of_95_percent_cover_the_truth_of_the_pool_about_95_times_of_100() -> None:
    [row] = characteristic({"good": pool(style=0.3)}, sizes=[16], resamples=QUICK)
    for name in ("style", "adherence", "diversity"):
        assert 0.91 < row.covered[name].value < 0.985, (name, row.covered[name])
    # Prompts and held-out images are both drawn again, and what only a pair of them has in common is counted thrice then
    # (Owen 2007, "The pigeonhole bootstrap"): where that is most of the doubt, intervals are wider than they would have to be.
    for name in ("cmmd", "similarity"):
        assert row.covered[name].value > 0.93, (name, row.covered[name])


def test_the_table_and_the_plot_have_every_row(tmp_path: Path) -> None:
    rows = characteristic({"good": pool(style=0.6), "useless": pool(live=0.0)}, sizes=[4, 8], resamples=3)
    lines = table(rows).splitlines()
    assert len(lines) == 2 + 4
    assert lines[2].startswith("| good | 4 | ")
    plot(rows, tmp_path / "new" / "plot.svg")
    text = (tmp_path / "new" / "plot.svg").read_text()
    assert text.count("<!-- good -->") == text.count("<!-- useless -->") == 1


def test_a_share_has_the_exact_interval_of_its_count() -> None:
    share = Share.of(0, 1000)
    assert (share.value, share.low) == (0, 0)
    assert share.high == pytest.approx(0.00368, abs=1e-5), "the rule of three, nearly"
    assert str(Share.of(950, 1000)) == "95.0 (93.5–96.3)"
