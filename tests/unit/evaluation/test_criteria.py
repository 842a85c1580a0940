"""Each measurement finds what is known to be in pictures that were made for it, and nothing where there is nothing."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from pydantic import ValidationError

from service.evaluation.criteria.bleed import BLEED
from service.evaluation.criteria.broken import BROKEN
from service.evaluation.criteria.champion import CHAMPION_ADHERENCE, CHAMPION_STYLE
from service.evaluation.criteria.cmmd import CMMD
from service.evaluation.criteria.criterion import Criterion
from service.evaluation.criteria.diversity import DIVERSITY
from service.evaluation.criteria.memorisation import COPIES, COSINES, MEMORISATION, NEAREST
from service.evaluation.criteria.similarity import SIMILARITY
from service.evaluation.sample import Sides
from service.settings.evaluate import EvaluateSettings
from tests.unit.evaluation.samples import SIDE, Colours, Pictures, finding, patterns, sample

BLUE, RED = (0, 40), (215, 256)


def flat(colour: tuple[int, int, int]) -> Image.Image:
    return Image.new("RGB", (SIDE, SIDE), colour)


def grained(colour: int) -> Image.Image:
    """One colour with as much noise as an autoencoder leaves in it."""
    noise = np.random.default_rng(0).integers(-1, 2, (SIDE, SIDE, 3))
    return Image.fromarray((colour + noise).astype(np.uint8))


def test_black_and_flat_pictures_are_counted_and_a_single_one_rejects(tmp_path: Path) -> None:
    good = patterns(0, 8)
    broken = [flat((0, 0, 0)), flat((255, 255, 255)), flat((10, 200, 30)), grained(128), *good[4:]]
    found = finding(BROKEN, sample(tmp_path, good, broken))
    assert (found.base, found.lora, found.outcome) == (0, 4, "reject")
    assert found.clause == "4 pictures are black or of one colour where 0 are allowed"
    assert finding(BROKEN, sample(tmp_path, good, broken), broken_pictures=4).outcome == "promote"


def test_a_dark_picture_with_something_in_it_is_not_broken(tmp_path: Path) -> None:
    dim = [Image.fromarray(np.asarray(picture) // 24) for picture in patterns(0, 6)]
    assert finding(BROKEN, sample(tmp_path, patterns(1, 6), dim)).lora == 0


@pytest.mark.parametrize(("criterion", "threshold"), [(CMMD, "cmmd_gain"), (SIMILARITY, "similarity_gain")])
def test_a_lora_that_comes_nearer_to_the_held_out_images_gains_and_one_that_leaves_them_loses(
    criterion: Criterion, threshold: str, tmp_path: Path
) -> None:
    blue, red = patterns(0, 24, BLUE), patterns(1, 24, RED)
    held_out = patterns(2, 24, RED)
    nearer = finding(criterion, sample(tmp_path, blue, red, held_out=held_out), **{threshold: 0.0})
    farther = finding(criterion, sample(tmp_path, red, blue, held_out=held_out), **{threshold: 0.0})
    same = finding(criterion, sample(tmp_path, blue, blue, held_out=held_out), **{threshold: 0.0})
    assert [one.outcome for one in (nearer, farther, same)] == ["promote", "reject", "reject"]
    assert nearer.gain is not None
    assert same.gain is not None
    assert nearer.gain.low > 0
    assert same.gain.value == 0


def test_pictures_of_one_prompt_that_differ_half_as_much_are_half_as_diverse(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    base, lora = pairs(rng, 0.2), pairs(rng, 0.2 * np.sqrt(0.5))
    found = finding(DIVERSITY, sample(tmp_path, base, lora, variations=2), diversity_margin=0.2)
    assert found.gain is not None
    assert found.gain.value == pytest.approx(-0.5, abs=0.12)
    assert found.outcome == "reject"


def test_a_lora_that_draws_one_picture_whatever_the_seed_has_lost_all_diversity(tmp_path: Path) -> None:
    one_each = [picture for picture in patterns(4, 8) for _ in range(3)]
    found = finding(DIVERSITY, sample(tmp_path, patterns(5, 24), one_each, variations=3))
    assert found.lora == pytest.approx(0, abs=1e-6)
    assert found.gain is not None
    assert (found.gain.low, found.gain.high) == pytest.approx((-1, -1), abs=1e-5)
    assert found.outcome is None, "without a threshold it is told"


def test_other_prompts_are_not_taken_for_diversity(tmp_path: Path) -> None:
    """Prompts that lie close together, and seeds that do not: only the latter count."""
    base = patterns(6, 12)
    assert finding(DIVERSITY, sample(tmp_path, base, base, variations=2)).gain.value == 0  # type: ignore[union-attr]
    assert finding(DIVERSITY, sample(tmp_path, base, patterns(8, 12), variations=1)).gain is None


def pairs(rng: np.random.Generator, apart: float) -> Pictures:
    """24 prompts of two pictures each, whose colours differ by `apart` on average; the cosine goes with its square."""
    found = []
    for _ in range(24):
        colours = rng.uniform(0.4, 0.6, (2, 2, 3))
        step = rng.normal(0, apart / 2, (2, 2, 3))
        for side in (colours - step, colours + step):
            pixels = Image.fromarray((255 * side.clip(0, 1)).round().astype(np.uint8))
            found.append(pixels.resize((SIDE, SIDE), Image.Resampling.NEAREST))
    return found


def test_training_images_drawn_again_are_found_named_and_counted(tmp_path: Path) -> None:
    training, held_out = patterns(10, 30), patterns(11, 200)
    lora = [training[21], *patterns(12, 9), training[4], ImageOps.mirror(training[17])]
    of = sample(tmp_path, patterns(13, 12), lora, training=training, held_out=held_out)
    memorised, copies = finding(MEMORISATION, of, memorised_share=0.01), finding(COPIES, of, copies=0)
    assert memorised.base is not None
    assert memorised.lora is not None
    assert memorised.base <= 1 / 12
    assert memorised.lora >= 2 / 12
    assert memorised.outcome in ("hold", "reject")
    assert (copies.base, copies.lora, copies.outcome) == (0, 3, "reject")
    measured = MEMORISATION.measure(of)
    assert (measured[NEAREST][0], measured[NEAREST][10]) == (21, 4)  # type: ignore[index]
    assert measured[COSINES][0] == pytest.approx(1, abs=1e-5)  # type: ignore[index]


def test_pictures_as_near_to_training_images_as_held_out_ones_are_no_copies(tmp_path: Path) -> None:
    """All of one narrow style, at cosines that a fixed threshold would call copies."""
    of = sample(
        tmp_path,
        patterns(14, 40, (100, 120)),
        patterns(15, 40, (100, 120)),
        training=patterns(16, 200, (100, 120)),
        held_out=patterns(17, 60, (100, 120)),
    )
    found = finding(MEMORISATION, of, memorised_share=0.1)
    assert np.mean(MEMORISATION.measure(of)[COSINES]) > 0.95  # type: ignore[arg-type]
    assert found.lora <= 0.1  # type: ignore[operator]
    assert found.outcome in ("promote", "hold")


def test_a_copy_in_another_colour_is_another_picture(tmp_path: Path) -> None:
    training = patterns(18, 8)
    recoloured = [Image.merge("RGB", [b, r, g]) for r, g, b in (picture.split() for picture in patterns(18, 8, RED))]
    assert finding(COPIES, sample(tmp_path, training, training, training=training)).lora == 8
    assert finding(COPIES, sample(tmp_path, training, recoloured, training=training)).lora == 0


@pytest.mark.parametrize("criterion", [MEMORISATION, COPIES])
def test_without_training_images_nothing_is_said_of_copies(criterion: Criterion, tmp_path: Path) -> None:
    found = finding(criterion, sample(tmp_path, patterns(0, 6), patterns(1, 6), training=[]))
    assert (found.base, found.lora, found.gain, found.outcome) == (None, None, None, None)


def test_bleed_is_the_style_in_pictures_that_nobody_asked_it_for(tmp_path: Path) -> None:
    red, blue = patterns(20, 24, RED), patterns(21, 24, BLUE)
    held_out = patterns(22, 24, RED)
    leaks = sample(tmp_path, blue, red, held_out=held_out, without_style=Sides(blue, patterns(23, 24, RED)))
    keeps = sample(tmp_path, blue, red, held_out=held_out, without_style=Sides(blue, patterns(24, 24, BLUE)))
    leaking, keeping = (finding(BLEED, of, bleed_margin=0.1) for of in (leaks, keeps))
    assert leaking.gain is not None
    assert keeping.gain is not None
    assert leaking.gain.high < -0.1
    assert keeping.gain.low <= 0 <= keeping.gain.high
    assert [leaking.outcome, keeping.outcome] == ["reject", "promote"]
    assert leaking.gain.low <= leaking.gain.value <= leaking.gain.high
    assert finding(BLEED, leaks).outcome is None


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"bleed_prompts": 1}, "EVALUATE_BLEED_PROMPTS"),
        ({"bleed_prompts": 0, "bleed_margin": 0.1}, "EVALUATE_BLEED_MARGIN"),
        ({"variations": 1, "diversity_margin": 0.2}, "EVALUATE_DIVERSITY_MARGIN"),
    ],
)
def test_a_threshold_of_what_will_not_be_measured_is_refused(settings: dict[str, float], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        EvaluateSettings(**settings)


def test_a_lora_may_be_as_near_to_the_style_as_the_champion_or_nearer_and_not_farther(tmp_path: Path) -> None:
    held_out = patterns(2, 24, RED)
    blue, red = patterns(0, 24, BLUE), patterns(1, 24, RED)

    def outcome(lora: Pictures, champion: Pictures, **margin: float) -> str | None:
        of = sample(tmp_path, blue, lora, held_out=held_out, champion=champion)
        found = finding(CHAMPION_STYLE, of, **margin)
        assert found.against == "champion"
        return found.outcome

    assert outcome(red, blue) == "promote"
    assert outcome(red, red) == "promote"
    assert outcome(blue, red) == "reject"
    assert outcome(blue, red, champion_style_margin=9.0) == "promote"


def test_a_lora_that_follows_prompts_less_than_the_champion_is_rejected(tmp_path: Path) -> None:
    blue, red = patterns(0, 24, BLUE), patterns(1, 24, RED)

    class Reddest(Colours):
        def clip_scores(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
            return [float(np.asarray(image)[..., 0].mean()) for image, _ in zip(images, prompts, strict=True)]

    def outcome(lora: Pictures, champion: Pictures) -> str | None:
        of = replace(sample(tmp_path, blue, lora, champion=champion), judges=Reddest())
        return finding(CHAMPION_ADHERENCE, of).outcome

    assert [outcome(red, blue), outcome(red, red), outcome(blue, red)] == ["promote", "promote", "reject"]


def test_what_asks_for_a_champion_s_pictures_without_one_says_so(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="the sample has none"):
        CHAMPION_STYLE.measure(sample(tmp_path, patterns(0, 4), patterns(1, 4)))
