"""A picture with too many pixels is refused by its header, before it is decoded."""

import io

import pytest
from PIL import Image

from onnx_release.data.images import decode_image
from onnx_release.data.pixel_limit import TooManyPixelsError


def test_a_picture_with_too_many_pixels_is_refused(monkeypatch):
    file = io.BytesIO()
    Image.new("RGB", (4, 3)).save(file, "PNG")
    assert decode_image(file.getvalue()).shape == (3, 4, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5)  # Pillow refuses more than twice as many
    with pytest.raises(TooManyPixelsError, match="more than 5 pixels: make it smaller"):
        decode_image(file.getvalue())
