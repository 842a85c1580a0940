"""How the miniature's models begin, and what is drawn to judge them."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from service.miniature import corpus, denoiser
from service.miniature.autoencoder import latents_of, new_autoencoder, whiten
from service.miniature.clip import new_clip, text_encoder_of
from service.miniature.corpus import Emoji
from service.miniature.denoiser import BATCH, draw_timesteps, new_scheduler, new_unet, train_denoiser
from service.miniature.drawing import SUBJECTS_AT_ONCE, draw
from service.miniature.vocabulary import clip_tokenizer


def test_a_unet_that_is_given_learns_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    words = clip_tokenizer(["ghost", "red apple"])
    torch.manual_seed(0)
    clip, autoencoder = new_clip(words).eval(), new_autoencoder().eval()
    pixels = np.full((64, 64, 3), 200, np.uint8)
    emoji = [Emoji("ghost", "ghost", True, False, False, pixels)]
    monkeypatch.setattr(denoiser, "BATCH", 2)
    given = new_unet()
    before = given.conv_in.weight.detach().clone()
    trained = train_denoiser(emoji, autoencoder, clip, words, tmp_path, steps=2, unet=given)
    change = (trained["unet"].conv_in.weight - before).abs().max()
    assert 0 < change < 0.01


def test_the_noise_is_that_of_stable_diffusion_1_and_the_target_the_velocity() -> None:
    config = new_scheduler().config
    assert (config["prediction_type"], config["beta_schedule"]) == ("v_prediction", "scaled_linear")
    assert (config["beta_start"], config["beta_end"], config["num_train_timesteps"]) == (0.00085, 0.012, 1000)


@torch.no_grad()
def test_whitening_evens_the_latents_and_changes_no_picture() -> None:
    torch.manual_seed(0)
    model = new_autoencoder()
    model.quant_conv.weight.data[:4] *= torch.tensor([8.0, 1, 2, 4])[:, None, None, None]
    pictures = list(np.random.default_rng(0).integers(256, size=(8, 64, 64, 3), dtype=np.uint8))
    batch = corpus.to_tensor(pictures)
    before = model.decode(model.encode(batch).latent_dist.mean).sample
    noise = (model.decode(model.encode(batch).latent_dist.sample()).sample - before).abs().mean()
    whiten(model, pictures)
    after = model.decode(model.encode(batch).latent_dist.mean).sample
    assert torch.allclose(before, after, atol=1e-4)
    latents = latents_of(model, pictures).transpose(0, 1).flatten(1)
    assert latents.mean(dim=1).abs().max() < 1e-3
    assert latents.std(dim=1).max() <= 1.001
    correlated = torch.corrcoef(latents) - torch.eye(4)
    assert correlated.abs().max() < 0.5
    # Drawn from the posterior, no picture is noisier than before.
    assert (model.decode(model.encode(batch).latent_dist.sample()).sample - after).abs().mean() <= noise


@torch.no_grad()
def test_the_text_encoder_begins_as_the_clips() -> None:
    torch.manual_seed(0)
    words = clip_tokenizer(["ghost", "red apple"])
    clip = new_clip(words).eval()
    tokens = words(["a red apple"], padding="max_length", return_tensors="pt").input_ids
    assert torch.equal(text_encoder_of(clip).eval()(tokens)[0], clip.text_model(tokens)[0])


def test_every_level_of_noise_is_drawn_and_the_noisiest_more_often() -> None:
    rng = np.random.default_rng(0)
    timesteps = torch.cat([draw_timesteps(rng, 1000) for _ in range(400)])
    assert len(timesteps) == 400 * BATCH
    assert (timesteps.min(), timesteps.max()) == (0, 999)
    assert (timesteps >= 600).float().mean().item() == pytest.approx(0.7, abs=0.02)


class CountingPipeline:
    """Draws black pictures and counts them."""

    def __init__(self) -> None:
        self.unet, self.text_encoder, self.vae = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)
        self.drawn = 0

    def __call__(self, prompts: list[str], **_: object) -> SimpleNamespace:
        self.drawn += len(prompts)
        return SimpleNamespace(images=np.zeros((len(prompts), 64, 64, 3)))


def test_a_measurement_draws_no_picture_twice_unless_the_models_change(tmp_path: Path) -> None:
    subjects = [
        Emoji(f"emoji-{n}", f"thing {n}", True, False, False, np.zeros((64, 64, 3), np.uint8))
        for n in range(SUBJECTS_AT_ONCE + 1)
    ]
    pipeline = CountingPipeline()
    for _ in range(2):
        pictures = draw(pipeline, subjects, "a {}", tmp_path, seeds=2)  # type: ignore[arg-type]
        assert (pictures.shape, pipeline.drawn) == ((2 * len(subjects), 64, 64, 3), 2 * len(subjects))
    draw(pipeline, subjects, "my {}", tmp_path, seeds=2)  # type: ignore[arg-type]
    assert pipeline.drawn == 4 * len(subjects)
    nn.init.zeros_(pipeline.unet.weight)
    draw(pipeline, subjects, "a {}", tmp_path, seeds=2)  # type: ignore[arg-type]
    assert pipeline.drawn == 6 * len(subjects)
