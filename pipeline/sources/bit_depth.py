"""Imagery of more than 8 bits a sample as the levels 0..255 that the networks know.

One rule: the whole range of the sample type, linearly. It asks for nothing but the pixel's own value, so a window is a
crop of the whole, tiles and domains agree, and black and white stay what they are. What uses only a part of the range
(12 bits in 16) comes out dark: the look at the radiometry says so and refuses it, and such imagery is converted before,
with levels that only its producer knows.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

DEEP = "uint16"
"""numpy's name of the one type of more than 8 bits that can be accepted."""

RATIO = 255 / 65535
"""Levels a step of `DEEP`. A value falls at least 1/514 of a level beside the middle between two levels, so float32 and
float64 round alike."""

RULE = "v · 255 / 65535, rounded"


def as_levels(samples: NDArray[Any]) -> NDArray[np.uint8]:
    """Levels 0..255 of samples of any shape: uint8 as they are, uint16 by `RULE`."""
    if samples.dtype == np.uint8:
        return samples
    return np.rint(samples * RATIO).astype(np.uint8)
