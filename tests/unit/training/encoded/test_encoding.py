"""The data set through the frozen models: once, keyed by content, and the same whoever computes it."""

import gc
import shutil
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image

from service.diffusion.images import CaptionedImage, load_pixels
from service.diffusion.sd15.components import Components, load_components
from service.diffusion.sd15.prompts import STATES, encode_prompt, tokenize_prompt
from service.exits import BadData
from service.settings.train import TrainSettings
from service.storage.opening import open_store
from service.training.encoded import encoding
from service.training.encoded.encoding import fingerprint, views_of
from service.training.encoded.loading import encode_dataset
from service.training.encoded.samples import EncodedDataset
from service.training.processes.coordinator import Coordinator
from service.training.randomness import draw


def settings_for(folder: Path, **options: object) -> TrainSettings:
    return TrainSettings(profile="miniature", model_base="miniature", work_dir=folder / "work", **options)


@pytest.fixture(scope="module")
def parts() -> Components:
    return load_components(TrainSettings(model_base="miniature"))


@pytest.fixture
def images(tmp_path: Path) -> list[CaptionedImage]:
    """Six noisy pictures, of two sizes, two captions."""
    found = []
    for number in range(6):
        noise = np.random.default_rng(number).integers(0, 256, (64, 64 if number < 4 else 160, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{number}.png")
        found.append(CaptionedImage(tmp_path / f"{number}.png", "a cat" if number % 2 else "a dog"))
    return found


Encode = Callable[..., EncodedDataset]


@pytest.fixture
def encode(parts: Components, images: list[CaptionedImage], tmp_path: Path) -> Encode:
    def run(train: list[CaptionedImage] = images, **options: object) -> EncodedDataset:
        store, settings = open_store(str(tmp_path / "artifacts")), settings_for(tmp_path, **options)
        return encode_dataset(
            parts,
            train,
            images[:1],
            also=[],
            store=store,
            coordinator=Coordinator(Accelerator(cpu=True)),
            settings=settings,
        )[0]

    return run


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was put through a model, in order."""
    asked: list[str] = []
    images, prompts = Components.encode_images, Components.encode_prompts
    monkeypatch.setattr(Components, "encode_images", lambda s, p, n: (asked.extend(n), images(s, p, n))[1])
    monkeypatch.setattr(Components, "encode_prompts", lambda s, p: (asked.extend("text" for _ in p), prompts(s, p))[1])
    return asked


def draws(count: int, flip: float, crops: int = 1) -> list[object]:
    return [
        draw(0, 5, position, shape=(4, 16, 16), timesteps=1000, flip=flip, drop_caption=0.3, crops=crops)
        for position in range(count)
    ]


def test_cached_samples_are_those_of_the_models_themselves(
    encode: Encode, parts: Components, images: list[CaptionedImage]
) -> None:
    samples, some = encode(), draws(6, 0.5)
    indices = list(range(6))
    latents = samples.latents(indices, some, torch.device("cpu"))
    states = samples.conditions(indices, some, torch.device("cpu"))[STATES]
    for index, d in enumerate(some):
        view = views_of((64, 64), "0" * 64, settings_for(Path()))[int(d.flip)]
        pixels = load_pixels(images[index], view.framing)
        with torch.no_grad():
            posterior = parts.vae.encode((pixels.flip(-1) if d.flip else pixels)[None]).latent_dist
        online = (posterior.mean + posterior.std * d.posterior_noise) * parts.vae.config["scaling_factor"]
        assert (latents[index] - online[0]).norm() <= 1e-6 * online.norm()
        caption = "" if d.drop_caption else images[index].caption
        state = encode_prompt(parts.text_encoder, tokenize_prompt(parts.tokenizer, [caption]))[0]
        assert (states[index] - state).norm() <= 1e-6 * state.norm()


def test_the_second_run_encodes_nothing(encode: Encode, encoded: list[str]) -> None:
    encode()
    assert len(encoded) == 6 * 2 + 3  # both orientations; two captions and the empty one
    encoded.clear()
    encode()
    assert encoded == []


def test_a_changed_caption_is_all_that_is_encoded_again(
    encode: Encode, encoded: list[str], images: list[CaptionedImage]
) -> None:
    encode()
    encoded.clear()
    encode([replace(images[0], caption="a red apple"), *images[1:]])
    assert encoded == ["text"]


def test_an_image_under_another_name_is_not_encoded_again(
    encode: Encode, encoded: list[str], images: list[CaptionedImage], tmp_path: Path
) -> None:
    encode()
    encoded.clear()
    shutil.copy(images[3].path, tmp_path / "other.png")
    encode([CaptionedImage(tmp_path / "other.png", "a cat")])
    assert encoded == []


def test_another_resolution_is_encoded_for_itself(encode: Encode, encoded: list[str]) -> None:
    encode()
    encoded.clear()
    encode(resolution=32)
    assert encoded.count("text") == 0
    assert len(encoded) == 6 * 2  # the held-out image is one of them


def test_an_orientation_that_never_occurs_is_not_encoded(encode: Encode, encoded: list[str]) -> None:
    assert encode(random_flip=0.0).posteriors.mirrored == [False]
    assert len([name for name in encoded if name != "text"]) == 6
    encoded.clear()
    assert encode(random_flip=1.0).posteriors.mirrored == [True]
    assert len([name for name in encoded if name != "text"]) == 6


def test_buckets_keep_the_aspect_ratio_and_never_mix(encode: Encode) -> None:
    samples = encode(buckets=True, bucket_step=8)
    assert [list(bucket) for bucket in samples.buckets] == [[0, 1, 2, 3], [4, 5]]
    assert samples.shapes[0] == (4, 16, 16)
    assert samples.shapes[4][2] > samples.shapes[4][1]


def test_random_crops_are_places_of_their_own_which_a_draw_chooses(encode: Encode) -> None:
    samples = encode(crops=3)
    assert len({key for keys in samples.posteriors.keys for key in keys}) == 6 * 3 * 2
    some = draws(40, 0.5, crops=3)
    wide = [samples.posteriors.key_of(4, d) for d in some]
    assert set(wide) == set(samples.posteriors.keys[4])


def test_on_the_device_or_in_the_file_the_samples_are_the_same(encode: Encode) -> None:
    resident, mapped = encode(cache_on_device="always"), encode(cache_on_device="never")
    assert isinstance(resident.posteriors.rows, dict)
    assert not isinstance(mapped.posteriors.rows, dict)
    some, indices, device = draws(6, 0.5), list(range(6)), torch.device("cpu")
    assert torch.equal(resident.latents(indices, some, device), mapped.latents(indices, some, device))
    conditions = resident.conditions(indices, some, device), mapped.conditions(indices, some, device)
    assert torch.equal(conditions[0][STATES], conditions[1][STATES])


def test_a_model_is_known_by_its_weights_and_not_by_its_name(parts: Components) -> None:
    again = load_components(TrainSettings(model_base="miniature"))
    assert fingerprint([again.vae]) == fingerprint([parts.vae])
    next(again.vae.parameters()).data[0] += 1e-6
    assert fingerprint([again.vae]) != fingerprint([parts.vae])


def test_latents_that_are_not_finite_name_their_image(encode: Encode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "pixels_of", lambda _: torch.full((3, 64, 64), float("nan")))
    with pytest.raises(BadData, match=r"0\.png into latents that are not finite"):
        encode()


def test_an_image_that_cannot_be_read_is_named(encode: Encode, images: list[CaptionedImage]) -> None:
    images[2].path.write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(BadData, match=r"2\.png of the data set cannot be read"):
        encode()


def test_once_the_cache_is_filled_the_frozen_models_can_leave_the_memory(
    images: list[CaptionedImage], tmp_path: Path
) -> None:
    own = load_components(TrainSettings(model_base="miniature"))
    gone = [weakref.ref(own.vae), weakref.ref(own.text_encoder)]
    store, settings = open_store(str(tmp_path / "artifacts")), settings_for(tmp_path)
    kept = encode_dataset(
        own,
        images,
        images[:1],
        also=["a cat"],
        store=store,
        coordinator=Coordinator(Accelerator(cpu=True)),
        settings=settings,
    )
    unet = own.unet
    del own
    gc.collect()
    assert [reference() for reference in gone] == [None, None]
    assert kept[2]["a cat"][STATES].shape == (1, 77, unet.config["cross_attention_dim"])
