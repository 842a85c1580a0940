from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torchmetrics.image.kid import KernelInceptionDistance

from service.evaluation.features import StyleFeatures, style_features
from service.evaluation.metrics import kid, style_gain

SIZE = 64
PER_SET = 24
OVERSAMPLING = 4


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads that wait for one another inside this network's small layers cost minutes on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def network() -> StyleFeatures:
    return StyleFeatures()


@pytest.fixture(scope="module")
def sets(network: StyleFeatures) -> dict[str, NDArray[np.float32]]:
    """Features of sets of different drawings: two smooth ones, two pixelated."""
    styles: dict[str, Callable[[Image.Image], Image.Image]] = {
        "pixelated A": pixelated,
        "pixelated B": pixelated,
        "smooth B": lambda image: image,
        "smooth C": lambda image: image,
    }
    rng = np.random.default_rng(0)
    return {name: style_features([style(i) for i in drawings(rng)], network) for name, style in styles.items()}


def drawings(rng: np.random.Generator) -> Iterator[Image.Image]:
    """Antialiased circles and polygons in random colours on white."""
    side = SIZE * OVERSAMPLING
    for _ in range(PER_SET):
        image = Image.new("RGB", (side, side), "white")
        pencil = ImageDraw.Draw(image)
        for _ in range(rng.integers(3, 6)):
            colour = tuple(int(channel) for channel in rng.integers(0, 230, size=3))
            x, y, radius = (float(value) for value in rng.uniform((0.25, 0.25, 0.1), (0.75, 0.75, 0.28)) * side)
            if rng.random() < 0.5:
                pencil.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
            else:
                turn = int(rng.integers(360))
                pencil.regular_polygon((x, y, radius), int(rng.integers(3, 7)), rotation=turn, fill=colour)
        yield image.resize((SIZE, SIZE), Image.Resampling.BOX)


def pixelated(image: Image.Image) -> Image.Image:
    return image.resize((16, 16), Image.Resampling.BOX).resize((SIZE, SIZE), Image.Resampling.NEAREST)


def test_a_lora_that_pixelates_gains_style_for_certain(sets: dict[str, NDArray[np.float32]]) -> None:
    gain = style_gain(sets["pixelated A"], sets["smooth B"], sets["pixelated B"], groups=list(range(PER_SET)))
    assert gain.value > 0
    assert gain.low > 0


def test_a_lora_that_draws_as_smoothly_as_the_base_gains_no_style(sets: dict[str, NDArray[np.float32]]) -> None:
    gain = style_gain(sets["pixelated A"], sets["smooth B"], sets["smooth C"], groups=list(range(PER_SET)))
    assert gain.low <= 0


def test_other_drawings_of_one_style_are_nearer_than_the_same_drawings_would_be_in_another(
    sets: dict[str, NDArray[np.float32]],
) -> None:
    same, other = kid(sets["pixelated A"], sets["pixelated B"]), kid(sets["pixelated A"], sets["smooth B"])
    assert abs(same) < other / 3


def test_the_features_serve_torchmetrics_kid(network: StyleFeatures) -> None:
    with pytest.warns(UserWarning, match="save all extracted features"):
        metric = KernelInceptionDistance(feature=network, subsets=1, subset_size=3)
    noise = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    metric.update(noise[:3], real=True)
    metric.update(noise[3:], real=False)
    features = network(noise)
    assert float(metric.compute()[0]) == pytest.approx(kid(features[:3], features[3:]), abs=1e-4)


def test_the_network_is_frozen_and_silent(capfd: pytest.CaptureFixture[str]) -> None:
    network = StyleFeatures().train()
    images = torch.zeros((2, 3, 64, 64), dtype=torch.uint8)
    images[1] = 255
    together = network(images)
    assert together.shape == (2, 1280)
    assert together.dtype == torch.float32
    assert not together.requires_grad
    torch.testing.assert_close(together[:1], network(images[:1]))
    assert capfd.readouterr() == ("", "")


def test_the_weights_are_trained_ones(network: StyleFeatures) -> None:
    """Untrained weights of this shape leave next to nothing of an image; trained ones tell two images apart."""
    rng = np.random.default_rng(1)
    features = style_features(list(drawings(rng))[:2], network)
    assert np.linalg.norm(features[0] - features[1]) > 0.2 * np.linalg.norm(features[0])


@pytest.mark.parametrize("images", [torch.zeros(1, 3, 8, 8), torch.zeros((3, 8, 8), dtype=torch.uint8)])
def test_images_of_another_kind_are_refused(network: StyleFeatures, images: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="uint8"):
        network(images)
