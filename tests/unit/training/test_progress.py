"""What a run concludes from its measurements."""

from hypothesis import given
from hypothesis import strategies as st

from service.training.progress import Measurement, Point, Progress, best, out_of_patience, ratio_of, ratios

losses = st.lists(st.floats(0.01, 2), min_size=1, max_size=30)


def measured(values: list[float]) -> list[Measurement]:
    return [Measurement(10 * number, (value, 2 * value)) for number, value in enumerate(values)]


def test_timesteps_count_alike_however_large_their_losses_are() -> None:
    first, later = Measurement(0, (0.01, 1.0)), Measurement(5, (0.02, 0.5))
    assert ratio_of(later, first) == (2.0 + 0.5) / 2
    assert ratio_of(first, first) == 1


@given(losses)
def test_the_best_is_the_lowest_and_the_first_of_equals(values: list[float]) -> None:
    found = best(measured(values))
    assert ratios(measured(values))[found.step // 10] == min(ratios(measured(values)))
    assert found.step // 10 == ratios(measured(values)).index(min(ratios(measured(values))))


@given(losses, st.integers(1, 6))
def test_patience_ends_when_so_many_in_a_row_were_no_better(values: list[float], patience: int) -> None:
    since = len(values) - 1 - best(measured(values)).step // 10
    assert out_of_patience(measured(values), patience) == (since >= patience)


@given(losses)
def test_without_patience_nothing_stops_early(values: list[float]) -> None:
    assert not out_of_patience(measured(values), 0)


def test_nothing_measured_is_no_reason_to_stop() -> None:
    assert not out_of_patience([], 3)


def test_progress_survives_a_checkpoint() -> None:
    progress = Progress(20, [Point(10, 0.5, 1.0, 1e-4)], [Measurement(0, (0.1, 0.2, 0.3, 0.4))])
    again = Progress()
    again.load_state_dict(progress.state_dict())
    assert again == progress
    assert again.lines() == progress.lines()


def test_the_lines_hold_every_figure_by_step() -> None:
    progress = Progress(20, [Point(10, 0.5, 1.0, 1e-4)], [Measurement(20, (0.1, 0.2, 0.3, 0.4))])
    training, held_out = progress.lines()
    assert training == {"step": 10, "loss": 0.5, "gradient_norm": 1.0, "learning_rate": 1e-4}
    assert held_out["held_out_loss"] == 0.25
    assert held_out["held_out_ratio"] == 1.0
    assert held_out["held_out_loss_300"] == 0.2
