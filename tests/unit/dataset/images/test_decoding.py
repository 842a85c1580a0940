"""Images as the internet has them."""

import random
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from service.dataset.candidates import Reason, Rejection
from service.dataset.images import decoding
from service.dataset.images.decoding import quiet_decoders
from service.dataset.images.formats import formats_with, unidentified
from tests.pictures import deep_png, encoded, heic, png_chunk

pytestmark = pytest.mark.usefixtures("quiet")

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


@pytest.fixture
def quiet() -> Iterator[None]:
    with quiet_decoders():
        yield


def decode(source: bytes | Path) -> Image.Image:
    return decoding.decode(source).image


def halves(left: tuple[int, ...], right: tuple[int, ...], mode: str = "RGB") -> Image.Image:
    image = Image.new(mode, (40, 30), left)
    image.paste(right, (20, 0, 40, 30))
    return image


def close(pixel: Any, expected: tuple[int, int, int], tolerance: int = 12) -> bool:
    return all(abs(a - b) <= tolerance for a, b in zip(pixel, expected, strict=True))


def reason_of(source: bytes | Path) -> Reason:
    with pytest.raises(Rejection) as rejection:
        decode(source)
    return rejection.value.reason


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "WEBP", "GIF", "JPEG"])
def test_every_allowed_format_becomes_rgb_of_the_same_colours(file_format: str) -> None:
    options = {"lossless": True} if file_format == "WEBP" else {}
    image = decode(encoded(halves(RED, BLUE), file_format, **options))
    assert image.mode == "RGB"
    assert close(image.getpixel((5, 5)), RED)
    assert close(image.getpixel((35, 5)), BLUE)


def test_a_cmyk_jpeg_keeps_its_colours() -> None:
    image = decode(encoded(Image.new("CMYK", (40, 30), (0, 255, 255, 0)), "JPEG"))
    assert image.mode == "RGB"
    assert close(image.getpixel((20, 15)), RED)


def test_transparency_of_a_palette_lies_on_white() -> None:
    image = halves(RED, BLUE).convert("P", palette=Image.Palette.ADAPTIVE, colors=4)
    transparent = image.getpixel((0, 0))
    assert isinstance(transparent, int)
    alphas = bytes(0 if index == transparent else 255 for index in range(4))
    for transparency in (transparent, alphas):
        decoded = decode(encoded(image, "PNG", transparency=transparency))
        assert decoded.getpixel((5, 5)) == WHITE
        assert close(decoded.getpixel((35, 5)), BLUE)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_half_transparent_black_is_grey(mode: str) -> None:
    black = (0, 0, 0, 128) if mode == "RGBA" else (0, 128)
    assert close(decode(encoded(Image.new(mode, (40, 30), black), "PNG")).getpixel((9, 9)), (127, 127, 127), 1)


def test_sixteen_bit_grey_keeps_its_shades() -> None:
    shades = np.linspace(0, 65535, 64, dtype=np.uint16).reshape(1, 64).repeat(64, axis=0)
    decoded = np.asarray(decode(encoded(Image.fromarray(shades), "PNG")))
    assert (decoded[..., 0] == shades >> 8).all()


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_samples_in_the_lower_bits_are_stretched(bits: int, channels: int) -> None:
    samples = np.linspace(0, (1 << bits) - 1, 64 * 48 * channels, dtype=np.uint16).reshape(48, 64, channels)
    if channels == 4:
        samples[..., 3] = 65535
    decoded = np.asarray(decode(deep_png(samples[..., 0] if channels == 1 else samples)))
    colours = samples[..., :3] if channels > 1 else samples.repeat(3, axis=2)
    assert (decoded == colours >> (bits - 8)).all()


def test_lower_bits_that_cannot_be_read_are_left_out_with_a_reason() -> None:
    samples = np.full((40, 40, 2), 4000, dtype=np.uint16)
    samples[..., 1] = 65535
    assert reason_of(deep_png(samples)) == Reason.TOO_DARK


def test_a_deep_picture_keeps_its_orientation_and_profile() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    whole = deep_png(np.full((30, 40, 3), 4095, dtype=np.uint16))
    turned = whole[:33] + png_chunk(b"eXIf", exif.tobytes()[6:]) + whole[33:]
    image = decode(turned)
    assert image.size == (30, 40)
    assert image.getpixel((3, 3)) == WHITE
    assert not image.info


def test_an_exif_rotation_is_applied_and_forgotten() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    image = decode(encoded(halves(RED, BLUE), "JPEG", exif=exif, quality=95))
    assert image.size == (30, 40)
    assert close(image.getpixel((15, 5)), RED)
    assert close(image.getpixel((15, 35)), BLUE)
    assert not image.getexif()


def test_a_broken_exif_block_turns_nothing() -> None:
    image = decode(encoded(halves(RED, BLUE), "JPEG", exif=b"Exif\0\0MM\0*\0\0\xff\xff" + b"\xff" * 40))
    assert image.size == (40, 30)


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (40, 30), colour) for colour in (RED, GREEN, BLUE)]
    image = decode(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=100))
    assert image.getpixel((5, 5)) == RED


def test_an_animation_is_told_from_a_picture() -> None:
    frames = [Image.new("RGB", (40, 30), colour) for colour in (RED, GREEN)]
    for file_format in ("GIF", "WEBP", "PNG"):
        moving = encoded(frames[0], file_format, save_all=True, append_images=frames[1:], duration=100)
        assert decoding.decode(moving).animated
        assert not decoding.decode(encoded(frames[0], file_format)).animated


def test_a_camera_s_previews_do_not_make_an_animation() -> None:
    image = decoding.decode(encoded(halves(RED, BLUE), "MPO", save_all=True, append_images=[halves(BLUE, RED)]))
    assert not image.animated
    assert close(image.image.getpixel((5, 5)), RED)


def test_colours_are_converted_from_the_embedded_profile() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    # A profile of a space whose first channel is blue and whose last one is red.
    swapped = srgb.replace(b"rXYZ", b"xXYZ").replace(b"bXYZ", b"rXYZ").replace(b"xXYZ", b"bXYZ")
    image = decode(encoded(halves(RED, WHITE), "PNG", icc_profile=swapped))
    assert close(image.getpixel((5, 5)), BLUE)
    assert close(image.getpixel((35, 5)), WHITE)
    assert "icc_profile" not in image.info
    transparent = halves((*RED, 255), (*RED, 0), "RGBA")
    image = decode(encoded(transparent, "PNG", icc_profile=swapped))
    assert close(image.getpixel((5, 5)), BLUE)
    assert image.getpixel((35, 5)) == WHITE


def test_a_broken_colour_profile_is_ignored() -> None:
    assert decode(encoded(halves(RED, BLUE), "PNG", icc_profile=b"no profile")).getpixel((5, 5)) == RED


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "GIF", "WEBP", "BMP"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_a_cut_off_file_is_never_an_image(file_format: str, share: float, tmp_path: Path) -> None:
    noise = Image.effect_noise((80, 80), 90).convert("RGB")
    whole = encoded(noise, file_format)
    cut = whole[: max(16, int(len(whole) * share))]
    (tmp_path / "cut").write_bytes(cut)
    assert reason_of(cut) in (Reason.TRUNCATED, Reason.NOT_IMAGE)
    assert reason_of(tmp_path / "cut") == reason_of(cut)


def test_a_truncated_jpeg_is_called_so() -> None:
    whole = encoded(Image.effect_noise((80, 80), 90), "JPEG")
    assert reason_of(whole[: len(whole) // 2]) == Reason.TRUNCATED


@pytest.mark.parametrize(
    "source", [b"", b"<!DOCTYPE html><html><body>Not found</body></html>", b"GIF", b"\0" * 4096, b"BM"]
)
def test_what_is_no_image_is_called_so(source: bytes, tmp_path: Path) -> None:
    (tmp_path / "page.jpg").write_bytes(source)
    assert reason_of(tmp_path / "page.jpg") == Reason.NOT_IMAGE


@pytest.mark.parametrize("file_format", ["TIFF", "ICO", "AVIF"])
def test_a_format_out_of_the_web_is_not_opened(file_format: str) -> None:
    assert reason_of(encoded(halves(RED, BLUE), file_format)) == Reason.FORMAT_NOT_ALLOWED


@pytest.mark.parametrize(
    ("start", "detail"),
    [
        (b"\0\0\0\x1cftypheic\0\0\0\0", "HEIC; DATA_PREP_EXTRA_FORMATS=heic opens it"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0", "HEIC; DATA_PREP_EXTRA_FORMATS=heic opens it"),
        (b"\0\0\0\x20ftypavif\0\0\0\0", "AVIF; DATA_PREP_EXTRA_FORMATS=avif opens it"),
        (b"\0\0\0\x0cJXL \r\n\x87\n\0\0\0\x14", "JPEG XL"),
        (b"\xff\x0a\xfa\x1f\x01\x91\x08\x06\x01\0\0\0", "JPEG XL"),
        (b"\0\0\0\x20ftypisom\0\0\2\0", "video"),
    ],
)
def test_a_format_that_is_not_opened_is_named_with_the_setting_that_opens_it(start: bytes, detail: str) -> None:
    with pytest.raises(Rejection) as rejection:
        decode(start)
    assert (rejection.value.reason, rejection.value.detail) == (Reason.FORMAT_NOT_ALLOWED, detail)


def of_phone(word: str, image: Image.Image, **options: Any) -> bytes:
    return heic(image, **options) if word == "heic" else encoded(image, "AVIF", **options)


@pytest.mark.parametrize("word", ["heic", "avif"])
def test_formats_of_phones_are_opened_where_the_setting_says_so_and_nowhere_else(word: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "phone").write_bytes(of_phone(word, halves(RED, BLUE), quality=95, exif=exif.tobytes()))
    for source in (tmp_path / "phone", (tmp_path / "phone").read_bytes()):
        image, animated, lossless = decoding.decode(source, formats_with((word,)))
        assert (image.size, image.mode, animated, lossless) == ((30, 40), "RGB", False, False)
        assert close(image.getpixel((15, 5)), RED)
        assert close(image.getpixel((15, 35)), BLUE)
        assert reason_of(source) == Reason.FORMAT_NOT_ALLOWED


@pytest.mark.parametrize("word", ["heic", "avif"])
def test_damaged_files_of_phones_are_no_bug_of_ours(word: str) -> None:
    whole = of_phone(word, Image.effect_noise((64, 48), 90).convert("RGB"), quality=80)
    dice = random.Random(word)
    for _ in range(300):
        damaged = bytearray(whole[: dice.randrange(16, len(whole))] if dice.random() < 0.3 else whole)
        for _ in range(dice.randrange(1, 6)):
            damaged[dice.randrange(16, len(damaged) if dice.random() < 0.5 else min(len(damaged), 600))] = (
                dice.randrange(256)
            )
        with suppress(Rejection):
            decoding.decode(bytes(damaged), formats_with((word,)))


def test_a_cut_file_of_a_phone_is_called_so() -> None:
    for word in ("heic", "avif"):
        whole = of_phone(word, Image.effect_noise((64, 48), 90).convert("RGB"))
        with pytest.raises(Rejection) as rejection:
            decoding.decode(whole[: len(whole) // 2], formats_with((word,)))
        assert rejection.value.reason == Reason.TRUNCATED
        assert unidentified(whole[:20], formats_with((word,))).reason == Reason.TRUNCATED


@pytest.mark.parametrize(
    ("file_format", "options", "lossless"),
    [
        ("PNG", {}, True),
        ("BMP", {}, True),
        ("JPEG", {"quality": 100}, False),
        ("WEBP", {"quality": 100}, False),
        ("WEBP", {"lossless": True}, True),
        ("WEBP", {"lossless": True, "exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"}, True),
        ("WEBP", {"quality": 90, "exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"}, False),
        ("WEBP", {"lossless": True, "save_all": True, "append_images": [Image.new("RGB", (40, 30))]}, True),
        ("WEBP", {"quality": 90, "save_all": True, "append_images": [Image.new("RGB", (40, 30))]}, False),
        ("AVIF", {"quality": 90}, False),
    ],
)
def test_an_encoder_that_changed_pixels_is_known_by_its_file(
    file_format: str, options: dict[str, Any], lossless: bool, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(encoded(halves(RED, BLUE), file_format, **options))
    for source in (tmp_path / "file", (tmp_path / "file").read_bytes()):
        assert decoding.decode(source, formats_with(("avif",))).lossless is lossless


def test_a_palette_that_is_full_has_most_probably_lost_colours() -> None:
    photo = Image.effect_noise((80, 80), 90).convert("RGB")
    for file_format in ("GIF", "PNG"):
        full = photo.convert("P", palette=Image.Palette.WEB).point(lambda index: index)
        full.putdata([number % 256 for number in range(6400)])
        assert not decoding.decode(encoded(full, file_format)).lossless
        assert decoding.decode(encoded(halves(RED, BLUE).convert("P"), file_format)).lossless


def png_that_claims(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(b"\0" * 999)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize("side", [10_000, 20_000])
def test_a_decompression_bomb_is_not_unfolded(side: int) -> None:
    assert reason_of(png_that_claims(side, side)) == Reason.DECOMPRESSION_BOMB


def test_a_file_that_cannot_be_read_is_not_taken_for_a_broken_image(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        decode(tmp_path / "vanished.png")
