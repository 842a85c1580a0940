"""The miniature family is what it says: it loads unchanged, it is small, and it draws, captions and judges."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from service import miniature
from service.miniature import corpus
from service.miniature.export import CARD, load_family
from service.miniature.fitting import schedule
from service.miniature.judging import block_edges, candidates, ranked_first
from service.miniature.measure import captions_of, most_frequent_mistake, named

LIMIT = 25 * 1024 * 1024


def test_the_family_and_its_samples_take_at_most_25_megabytes() -> None:
    files = [path for path in Path(miniature.__file__).parent.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= LIMIT


def test_the_revisions_are_those_of_the_files() -> None:
    folders = (miniature.STABLE_DIFFUSION, miniature.CAPTIONER, miniature.CLIP)
    assert miniature.revisions() == {folder.name: miniature.content_revision(folder) for folder in folders}


def test_a_changed_file_or_name_is_another_revision(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one")
    revisions = {miniature.content_revision(tmp_path)}
    (tmp_path / "a").write_bytes(b"two")
    revisions.add(miniature.content_revision(tmp_path))
    (tmp_path / "a").rename(tmp_path / "b")
    revisions.add(miniature.content_revision(tmp_path))
    assert len(revisions) == 3
    assert all(re.fullmatch("[0-9a-f]{40}", revision) for revision in revisions)


def test_every_weight_is_a_half_precision_safetensor() -> None:
    from safetensors import safe_open

    weights = list((Path(miniature.__file__).parent / "models").rglob("*.safetensors"))
    assert len(weights) == 5
    for path in weights:
        with safe_open(path, "pt") as file:
            kinds = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 - not a mapping
        assert kinds <= {"F16", "I64"}, path


def test_the_captioner_names_the_samples_although_they_are_pixelated() -> None:
    names = corpus.read_subjects()
    samples = sorted(miniature.SAMPLES.glob("*.png"))
    pictures = [np.asarray(Image.open(path).convert("RGB")) for path in samples]
    _, (captioner, processor), _ = load_family()
    captions = captions_of(captioner, processor, pictures)
    subjects = [
        corpus.Emoji(p.stem, names[p.stem], True, True, False, x) for p, x in zip(samples, pictures, strict=True)
    ]
    assert named(captions, subjects) >= 0.6


@torch.no_grad()
def test_the_autoencoder_gives_pixelated_pictures_back() -> None:
    from service.miniature.measure import reconstruction_psnr

    pipeline, _, _ = load_family()
    pictures = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(miniature.SAMPLES.glob("*.png"))[:32]]
    assert reconstruction_psnr(pipeline.vae, pictures) >= 24


def test_the_samples_are_in_8_bit_style() -> None:
    samples = sorted(miniature.SAMPLES.glob("*.png"))
    assert len(samples) == 120
    for path in samples:
        picture = Image.open(path).convert("RGB")
        assert picture.size == (corpus.SIZE, corpus.SIZE)
        blocks = np.asarray(picture).reshape(16, 4, 16, 4, 3)
        assert (blocks == blocks[:, :1, :, :1]).all()
        assert len(picture.getcolors(256) or range(257)) <= 16


def test_the_model_card_has_a_figure_for_every_claim() -> None:
    card = CARD.read_text()
    table = card.partition("<!-- figures -->")[2].partition("<!-- end of figures -->")[0]
    assert len(re.findall(r"\| [\d.]+ ?(dB|%) \|", table)) == 6
    assert (CARD.parent / "sheet.png").exists()


def test_held_out_emoji_are_no_subjects_and_one_in_eight_of_the_rest() -> None:
    subjects = corpus.read_subjects()
    assert not any(corpus.is_held_out(key, subjects) for key in subjects)
    others = [f"emoji-{number}" for number in range(4000)]
    assert sum(corpus.is_held_out(key, subjects) for key in others) / 4000 == pytest.approx(1 / 8, abs=0.02)


def test_candidates_are_ten_different_subjects_with_the_right_one_first() -> None:
    for right in (0, 17, 99):
        drawn = candidates(right, 100)
        assert (len(drawn), len(set(drawn)), drawn[0]) == (10, 10, right)


def test_a_picture_counts_only_when_its_own_subject_is_first() -> None:
    assert ranked_first(torch.eye(12), list(range(12))).all()
    assert not ranked_first(-torch.eye(12), list(range(12))).any()


def test_the_most_frequent_mistake_is_counted_among_the_wrong_pictures_only() -> None:
    similarity = torch.eye(5)[[0, 3, 3, 4, 3]]
    wrong = np.array([False, True, True, True, False])
    assert most_frequent_mistake(similarity, wrong, [0, 1, 2, 0, 3]) == (3, pytest.approx(2 / 3))
    assert most_frequent_mistake(similarity, np.zeros(5, bool), [0, 1, 2, 3, 4]) == (-1, 0.0)


def test_block_edges_tell_a_raster_from_a_smooth_picture() -> None:
    slope = np.broadcast_to(np.arange(64, dtype=np.uint8)[:, None, None] * 3, (64, 64, 3))
    smooth = slope + slope.swapaxes(0, 1) // 3
    assert block_edges(smooth[None]) == pytest.approx(1, abs=0.1)
    assert block_edges(np.stack([smooth // 2 + corpus.pixelate(smooth) // 2])) > 2


def test_the_learning_rate_warms_up_stays_and_falls_to_nothing() -> None:
    factors = [schedule(step, 1000) for step in range(1000)]
    assert factors[0] < 0.02
    assert factors[99] == factors[600] == 1.0
    assert 0 < factors[-1] < 0.01
