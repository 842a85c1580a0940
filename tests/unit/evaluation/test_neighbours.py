"""The nearest training images, as they are shown."""

from pathlib import Path

import numpy as np

from service.artifacts.kinds.measurements import Measured, Measurements
from service.evaluation.criteria.memorisation import COSINES, NEAREST
from service.evaluation.neighbours import neighbours, neighbours_grid
from tests.unit.evaluation.samples import DataSet, patterns


def measurements(cosines: list[float], which: list[int], variations: int = 2) -> Measurements:
    prompts = [f"prompt {number // variations}" for number in range(len(cosines))]
    measured = Measured(images="runs/x/images/y", prompts=prompts, variations=variations, held_out=["a"])
    return Measurements(measured, {COSINES: np.array(cosines, np.float32), NEAREST: np.array(which)})


def test_of_each_prompt_the_nearest_picture_is_named_with_its_training_image_the_nearest_first(tmp_path: Path) -> None:
    training = DataSet(tmp_path).images("train", patterns(0, 3))
    found = neighbours(measurements([0.5, 0.7, 0.9, 0.8, 0.1, 0.2], [0, 1, 2, 2, 0, 1]), training)
    assert [(one.picture, one.prompt, one.training) for one in found] == [
        (2, "prompt 1", "train-002.png"),
        (1, "prompt 0", "train-001.png"),
        (5, "prompt 2", "train-001.png"),
    ]
    assert [round(one.cosine, 3) for one in found] == [0.9, 0.7, 0.2]


def test_no_more_are_shown_than_a_row_of_the_grid_has(tmp_path: Path) -> None:
    training = DataSet(tmp_path).images("train", patterns(0, 1))
    assert len(neighbours(measurements([0.5] * 40, [0] * 40, variations=1), training)) == 12


def test_without_the_measurement_there_is_nothing_to_show() -> None:
    measured = Measured(images="runs/x/images/y", prompts=["a"], variations=1, held_out=["a"])
    assert neighbours(Measurements(measured, {}), []) == []
    assert neighbours_grid([], [], []) is None


def test_the_drawn_picture_stands_above_the_training_image_of_its_name(tmp_path: Path) -> None:
    drawn, learned = patterns(1, 2), patterns(2, 2)
    training = DataSet(tmp_path).images("train", learned)
    found = neighbours(measurements([0.4, 0.9], [0, 1], variations=1), training)
    grid = neighbours_grid(found, drawn, training)
    assert grid is not None
    pixels = np.asarray(grid)
    (above, below) = (first_row_of(pixels, picture) for picture in (drawn[1], learned[1]))
    assert 0 < above < below


def first_row_of(pixels: np.ndarray, picture: object) -> int:
    """In which line of the grid the picture, enlarged by a whole factor, begins; -1 where it is not."""
    line = np.asarray(picture)[0].repeat(6, axis=0)
    for top, row in enumerate(pixels):
        starts = np.nonzero((row == line[0]).all(axis=-1))[0]
        if any(np.array_equal(row[start : start + len(line)], line) for start in starts):
            return top
    return -1
