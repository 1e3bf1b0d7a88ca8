"""From pixels to pictures: the other way round than ``decode``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from dqas_plugin.data import ImageDataset
from dqas_plugin.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

Pixels = npt.NDArray[np.uint8]


def check_pictures(data: ImageDataset) -> None:
    """Refuse images that PNG cannot hold.

    Raises:
        UserError: for other channels than grey and RGB.
    """
    channels = data.image_shape[0]
    if channels not in (1, 3):
        raise UserError(f"{data.name} has images of {channels} channels: only grey (1) and RGB (3) become PNG")


def channels_last(pixels: Pixels) -> Pixels:
    """``[C, H, W]`` as ``[H, W]`` (grey) or ``[H, W, 3]``."""
    return pixels[0] if len(pixels) == 1 else np.ascontiguousarray(np.moveaxis(pixels, 0, 2))


def picture(pixels: Pixels) -> Image.Image:
    """Of uint8 ``[C, H, W]``, grey or RGB."""
    from PIL import Image

    return Image.fromarray(channels_last(pixels))
