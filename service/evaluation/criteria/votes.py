"""Do people who do not know which is which prefer the LoRA? Asked only where EVALUATE_VOTES names votes."""

from collections import defaultdict

from scipy.stats import binomtest

from service.artifacts.kinds.evaluation import Interval, Missing
from service.artifacts.kinds.measurements import Measurements
from service.evaluation.blind import VOTES
from service.evaluation.criteria.criterion import ABOVE, Criterion, Figures
from service.settings.evaluate import EvaluateSettings


def advantage(wins: int, losses: int, confidence: float) -> Interval:
    """Share of wins less share of losses, −1 to 1, with the exact interval: that of Clopper and Pearson (1934) of the share.

    This is the sign test turned into an interval (Conover, Practical Nonparametric Statistics, 3.4): ties are left out, and the
    interval lies above 0 exactly when the two-sided test refuses equal chances. Raises ValueError for no win and no loss.
    """
    test = binomtest(wins, wins + losses)
    share = test.proportion_ci(confidence, method="exact")
    return Interval(*(float(2 * end - 1) for end in (test.statistic, share.low, share.high)))


def won_and_lost(measurements: Measurements) -> tuple[int, int]:
    """How many prompts the LoRA won and lost, each by the majority of all votes on its pictures.

    The prompt is the unit, for votes on two seeds of a prompt, or of two people on a pair, are not independent: to count them
    one by one would make the interval narrower than it is (Hurlbert 1984, "Pseudoreplication").
    """
    of_prompt: defaultdict[str, int] = defaultdict(int)
    for picture, preference in measurements.arrays[VOTES]:
        of_prompt[measurements.of.prompts[picture]] += int(preference)
    sums = of_prompt.values()
    return sum(each > 0 for each in sums), sum(each < 0 for each in sums)


def more_prompts(wins: int, losses: int, threshold: float, confidence: float) -> Missing:
    """How many more prompts with votes would draw the interval to one side of `threshold`, if the share stays what it is.

    None where 64 times as many would not.
    """
    count = wins + losses
    share = wins / count

    def decides(needed: int) -> bool:
        won = round(share * needed)
        found = advantage(won, needed - won, confidence)
        return found.low > threshold or found.high <= threshold

    # Whether a number decides wavers by a vote or two where the share is rounded; "about" says so.
    enough = next((count * 2**times for times in range(1, 7) if decides(count * 2**times)), None)
    if enough is None:
        return Missing(None, None, None)
    short = max(enough // 2, count)
    while enough - short > 1:
        middle = (short + enough) // 2
        short, enough = (short, middle) if decides(middle) else (middle, enough)
    return Missing(None, None, None, voted_prompts=enough - count)


def _threshold(settings: EvaluateSettings) -> float:
    return 2 * settings.votes_share - 1


def _figures(measurements: Measurements, settings: EvaluateSettings) -> Figures | None:
    wins, losses = won_and_lost(measurements)
    count = wins + losses
    if not count:
        return None
    gain, threshold = advantage(wins, losses, settings.confidence), _threshold(settings)
    straddles = gain.low <= threshold < gain.high
    missing = more_prompts(wins, losses, threshold, settings.confidence) if straddles else None
    return Figures(losses / count, wins / count, gain, missing=missing)


BLIND_VOTES = Criterion(
    name="votes",
    title="Blind votes",
    explanation="Share of the prompts that a majority of blind votes gives to either side, ties left out; the gain is their "
    "difference, with its exact interval.",
    measure=lambda _: {},
    figures=_figures,
    threshold=_threshold,
    rule=ABOVE,
    clauses={
        "promote": "blind votes prefer the LoRA on {lora:.1%} of the prompts, gain {gain}",
        "hold": "blind votes prefer the LoRA on {lora:.1%} of the prompts, which is not yet certain, gain {gain}",
        "reject": "blind votes prefer the LoRA on only {lora:.1%} of the prompts, gain {gain}",
        "not finite": "the blind votes give no finite gain, {gain}",
        "not measured": "the blind votes decide on no prompt",
    },
    unit="share",
)
