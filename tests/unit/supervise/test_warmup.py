"""The made picture is a real PNG; a profile's own picture is sent as it is."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import pytest
from PIL import Image

from launcher.supervise.warmup import WarmupFailed, made_picture, picture_url


@pytest.mark.parametrize("side", [448, 100, 1])
def test_the_made_picture_can_be_decoded(side: int) -> None:
    picture = made_picture(side)
    image = Image.open(io.BytesIO(picture))
    image.load()
    assert (image.format, image.size, image.mode) == ("PNG", (side, side), "RGB")
    assert len(picture) < 10_000


def test_an_own_picture(tmp_path: Path) -> None:
    (tmp_path / "cat.jpg").write_bytes(b"\xff\xd8cat")
    assert picture_url("cat.jpg", tmp_path) == "data:image/jpeg;base64," + base64.b64encode(b"\xff\xd8cat").decode()


def test_a_picture_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(WarmupFailed, match=r"warmup.image: .*/cat.jpg cannot be read: No such file or directory"):
        picture_url("cat.jpg", tmp_path)
