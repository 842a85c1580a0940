"""The captioned images that the miniature family learns from: Noto emoji out of one npm package."""

import csv
import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

SIZE = 64
STYLE_GRID = 16
# Clock faces and zodiac signs are one picture many times over; people and flags come in families of near-duplicates.
LEFT_OUT_CATEGORIES = {"People & Body", "Flags", "Component"}
LEFT_OUT_SUBCATEGORIES = {"time", "keycap", "alphanum", "zodiac", "arrow"}
SUBJECTS_FILE = Path(__file__).with_name("subjects.csv")


@dataclass(frozen=True)
class Emoji:
    """One picture with its name. `pixels`: (64, 64, 3) uint8 on white. Subjects are what the denoiser learns to draw; some
    of them are a `sample` of the 8-bit style."""

    key: str
    name: str
    subject: bool
    sample: bool
    held_out: bool
    pixels: np.ndarray


def read_corpus(package: Path) -> list[Emoji]:
    """Reads the emoji of the npm package archive `package`; subjects bear the name that `subjects.csv` gives them."""
    subjects, samples = read_subjects(), read_samples()
    corpus = []
    with tarfile.open(package) as archive:
        index = archive.extractfile("package/emoji.json")
        assert index is not None, "emoji.json is a file in every release of the package"
        for entry in json.load(index):
            if not entry["has_img_google"] or entry["category"] in LEFT_OUT_CATEGORIES:
                continue
            key = entry["short_name"]
            if key not in subjects and entry["subcategory"] in LEFT_OUT_SUBCATEGORIES:
                continue
            member = archive.extractfile(f"package/img/google/64/{entry['image']}")
            assert member is not None, entry["image"]
            name = subjects.get(key) or (entry["name"] or key).lower().replace("_", " ")
            held_out = is_held_out(key, subjects)
            corpus.append(Emoji(key, name, key in subjects, key in samples, held_out, on_white(member.read())))
    missing = set(subjects) - {emoji.key for emoji in corpus}
    if missing:
        raise ValueError(
            f"{SUBJECTS_FILE.name} names emoji that {package.name} does not have: {', '.join(sorted(missing))}"
        )
    return corpus


def read_subjects() -> dict[str, str]:
    """Short name of the emoji → the noun phrase it is captioned with; its last word is the head noun."""
    with SUBJECTS_FILE.open(newline="") as lines:
        return {row["emoji"]: row["name"] for row in csv.DictReader(lines)}


def read_samples() -> set[str]:
    """Short names of the subjects that are samples of the 8-bit style; the prompts of the demo are among the others."""
    with SUBJECTS_FILE.open(newline="") as lines:
        return {row["emoji"] for row in csv.DictReader(lines) if row["sample"] == "yes"}


def is_held_out(key: str, subjects: dict[str, str]) -> bool:
    """One emoji in eight that is no subject is never trained on by any model of the family."""
    return key not in subjects and digest(key) % 8 == 0


def digest(key: str) -> int:
    """A number that shuffles keys the same way for ever."""
    return int(hashlib.sha256(key.encode()).hexdigest(), 16)


def on_white(png: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(png)).convert("RGBA").resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    return np.asarray(Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB"))


def pixelate(pixels: np.ndarray, grid: int = STYLE_GRID, colours: int | None = None) -> np.ndarray:
    """The picture on a `grid` × `grid` raster, enlarged again without smoothing; at most `colours` colours if given."""
    small = Image.fromarray(pixels).resize((grid, grid), Image.Resampling.BOX)
    if colours is not None:
        small = small.quantize(colours, dither=Image.Dither.NONE).convert("RGB")
    return np.asarray(small.resize((SIZE, SIZE), Image.Resampling.NEAREST))


def augment(pixels: np.ndarray, rng: np.random.Generator, shift: int = 4) -> np.ndarray:
    """Mirrors and shifts on the white ground."""
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    dy, dx = rng.integers(-shift, shift + 1, size=2)
    canvas = np.pad(pixels, ((shift, shift), (shift, shift), (0, 0)), constant_values=255)
    return canvas[shift + dy : shift + dy + SIZE, shift + dx : shift + dx + SIZE]


def to_tensor(pictures: Sequence[np.ndarray]) -> Tensor:
    """uint8 pictures → (B, 3, 64, 64) float32 in [-1, 1]."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def roughen(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An augmented picture, smooth in half of the cases, otherwise on a raster of 16 or 32, sometimes with few colours."""
    pixels = np.ascontiguousarray(augment(pixels, rng))
    if rng.random() < 0.5:
        return pixels
    colours = 16 if rng.random() < 0.5 else None
    return pixelate(pixels, grid=int(rng.choice((STYLE_GRID, 2 * STYLE_GRID))), colours=colours)
