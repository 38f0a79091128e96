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
