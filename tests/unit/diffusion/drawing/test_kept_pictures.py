from pathlib import Path

import numpy as np
from PIL import Image

from service.diffusion.drawing.kept_pictures import KeptPictures, clear
from service.storage.local import LocalStore


def noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8))


def test_kept_pictures_come_back_pixel_for_pixel_to_whoever_starts_next(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    KeptPictures(store, "drawing/a/base").keep([3, 4], [noise(3), noise(4)])
    again = KeptPictures(store, "drawing/a/base").pictures([3, 4])
    assert again is not None
    assert [picture.tobytes() for picture in again] == [noise(3).tobytes(), noise(4).tobytes()]


def test_a_batch_of_which_one_is_missing_or_damaged_is_drawn_again_as_a_whole(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    kept = KeptPictures(store, "drawing/a/base")
    kept.keep([0, 1], [noise(0), noise(1)])
    assert KeptPictures(store, "drawing/a/base").pictures([0, 1, 2]) is None
    store.put("drawing/a/base/00001.png", store.get("drawing/a/base/00001.png")[:-40])
    assert KeptPictures(store, "drawing/a/base").pictures([0, 1]) is None
    assert KeptPictures(store, "drawing/a/base").pictures([0]) is not None


def test_pictures_of_another_drawing_are_neither_taken_nor_cleared(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    for prefix in ("drawing/a/base", "drawing/ab/base"):
        KeptPictures(store, prefix).keep([0], [noise(0)])
    clear(store, "drawing/a")
    assert not KeptPictures(store, "drawing/a/base")
    assert KeptPictures(store, "drawing/ab/base")
