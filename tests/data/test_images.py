"""Photographs become RGB the right way up, or are named."""

import numpy as np
import pytest
from PIL import Image

from benchmarks.attack_files import corrupt_avif
from onnx_release.core.errors import DataError
from onnx_release.data.images import normalised, read_image, resized_crop

RED = (200, 0, 0)


def saved(path, mode="RGB", **options):
    """A picture two pixels high and four wide, red above black."""
    image = Image.new("RGB", (4, 2))
    image.paste(RED, (0, 0, 4, 1))
    image.convert(mode).save(path, **options)
    return path


def test_pixels_are_height_width_and_rgb(tmp_path):
    pixels = read_image(saved(tmp_path / "a.png"))
    assert pixels.dtype == np.uint8
    assert pixels.tolist() == [[list(RED)] * 4, [[0, 0, 0]] * 4]


@pytest.mark.parametrize(("mode", "name"), [("L", "a.png"), ("CMYK", "a.tif"), ("RGBA", "a.png"), ("P", "a.gif")])
def test_every_mode_becomes_rgb(tmp_path, mode, name):
    pixels = read_image(saved(tmp_path / name, mode))
    assert pixels.shape == (2, 4, 3)
    assert (pixels[0, :, 0] > pixels[1, :, 0]).all()


def test_the_orientation_in_exif_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees, says the Exif standard
    pixels = read_image(saved(tmp_path / "a.png", exif=exif))
    assert pixels.shape == (4, 2, 3)
    assert pixels[0].tolist() == [[0, 0, 0], list(RED)]


# What the Exif standard says of the picture [[1, 2], [3, 4]], by the number of the orientation.
TURNED = {
    1: [[1, 2], [3, 4]],
    2: [[2, 1], [4, 3]],
    3: [[4, 3], [2, 1]],
    4: [[3, 4], [1, 2]],
    5: [[1, 3], [2, 4]],
    6: [[3, 1], [4, 2]],
    7: [[4, 2], [3, 1]],
    8: [[2, 4], [1, 3]],
}


@pytest.mark.parametrize("orientation", TURNED)
def test_every_orientation_is_turned_as_the_standard_says(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.array([[1, 2], [3, 4]], np.uint8)).save(tmp_path / "a.png", exif=exif)
    assert read_image(tmp_path / "a.png")[:, :, 0].tolist() == TURNED[orientation]


def test_greyscale_is_the_same_in_all_channels(tmp_path):
    Image.fromarray(np.array([[0, 7, 255]], np.uint8)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").tolist() == [[[0, 0, 0], [7, 7, 7], [255, 255, 255]]]


def test_inks_become_the_light_that_they_leave(tmp_path):
    # By hand: each channel is (1 - ink) * (1 - black).
    inks = [(0, 0, 0, 0), (255, 0, 0, 0), (55, 255, 255, 0), (0, 0, 0, 255)]
    image = Image.new("CMYK", (4, 1))
    image.putdata(inks)
    image.save(tmp_path / "a.tif")
    assert read_image(tmp_path / "a.tif").tolist() == [[[255, 255, 255], [0, 255, 255], [200, 0, 0], [0, 0, 0]]]


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.gif"])
def test_a_truncated_photograph_is_named(tmp_path, name):
    path = tmp_path / name
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=f"{name} cannot be read as an image"):
        read_image(path)


@pytest.mark.parametrize("content", [b"", b"no image"])
def test_what_is_no_image_is_named(tmp_path, content):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.jpg cannot be read as an image"):
        read_image(tmp_path / "a.jpg")


def test_a_missing_photograph_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.jpg cannot be read"):
        read_image(tmp_path / "gone.jpg")


def test_sixteen_bits_become_eight(tmp_path):
    Image.fromarray(np.array([[0, 255, 256, 32768, 65535]], np.uint16)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png")[0, :, 0].tolist() == [0, 0, 1, 128, 255]


def test_a_picture_too_large_to_open_is_named(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3)
    with pytest.raises(DataError, match=r"a\.png cannot be read as an image .*more than 3 pixels"):
        read_image(path)


def test_sixteen_bits_of_a_portable_map_become_eight(tmp_path):
    (tmp_path / "a.pgm").write_bytes(b"P5 3 1 65535\n" + bytes([0, 0, 128, 0, 255, 255]))
    assert read_image(tmp_path / "a.pgm")[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_of_32_bits_are_refused(tmp_path, mode):
    Image.new(mode, (2, 2), 70000).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match="32 bits"):
        read_image(tmp_path / "a.tif")


def test_broken_exif_turns_nothing(tmp_path):
    Image.new("RGB", (4, 2)).save(tmp_path / "a.png", exif=b"II*\0")
    assert read_image(tmp_path / "a.png").shape == (2, 4, 3)


def test_more_frames_than_one_are_a_film(tmp_path):
    frames = [Image.new("RGB", (4, 2), (shade, 0, 0)) for shade in (0, 255)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match="animation"):
        read_image(tmp_path / "a.gif")


def test_what_is_no_photograph_is_not_run(tmp_path):
    (tmp_path / "a.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    with pytest.raises(DataError, match="not a picture in one of the formats"):
        read_image(tmp_path / "a.eps")


@pytest.mark.parametrize("resampling", [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC])
def test_a_crop_of_a_resized_picture_is_that_of_the_whole_one(resampling):
    """But for what rounding moves: at most one of 255 in less than a thousandth of the values."""
    noise = np.random.default_rng(0).integers(0, 256, (333, 517, 3), np.uint8)
    image = Image.fromarray(noise)
    whole = image.resize((397, 256), resampling).crop((86, 16, 310, 240))
    found = resized_crop(image, (397, 256), (86, 16, 310, 240), resampling)
    apart = np.abs(np.asarray(whole, int) - np.asarray(found, int))
    assert apart.max() <= 1 and (apart > 0).mean() < 1e-3


def test_normalised_values_by_hand():
    image = Image.fromarray(np.array([[[0, 51, 255]]], np.uint8))
    found = normalised(image, np.array([0, 0.2, 0.5], np.float32), np.array([1, 2, 0.25], np.float32))
    assert found.dtype == np.float32 and found.flags.c_contiguous
    assert found.tolist() == [[[0]], [[0]], [[2]]]
    grey = normalised(Image.fromarray(np.array([[255, 0]], np.uint8)), np.zeros(1, np.float32), np.ones(1, np.float32))
    assert grey.tolist() == [[[1, 0]]]


def test_a_corrupt_avif_is_said_to_be_one(tmp_path):
    (tmp_path / "a.avif").write_bytes(corrupt_avif())
    with pytest.raises(DataError, match=r"a\.avif cannot be read as an image"):
        read_image(tmp_path / "a.avif")
