"""Photographs become RGB the right way up, or are named."""

import numpy as np
import pytest
from PIL import Image

from onnx_release.errors import DataError
from onnx_release.images import read_image

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
    with pytest.raises(DataError, match=r"a\.png cannot be read as an image .*exceeds limit"):
        read_image(path)
