"""Levels 0..255: converts imagery of more than 8 bits a sample to them, and finds those that may be fill.

The networks were trained on levels 0..255. The rule of the conversion: the whole range of the sample type, linearly. It
depends only on the pixel's own value, so a window equals a crop of the whole, tiles and domains agree, and black and
white stay black and white. Imagery that uses only a part of the range (12 bits in 16) becomes dark; the check of the
radiometry refuses it. Such imagery must be converted before, with levels that only its producer knows.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

DEEP = "uint16"
"""numpy's name of the only type of more than 8 bits that can be accepted."""

RATIO = 255 / 65535
"""Levels per step of `DEEP`. A value lies at least 1/514 of a level from the middle between two levels, so float32 and
float64 round alike."""

RULE = "v · 255 / 65535, rounded"


FILL_TOLERANCE = 2
"""Levels by which lossy compression changes a uniform field."""


def to_levels(samples: NDArray[Any]) -> NDArray[np.uint8]:
    """Levels 0..255 of samples of any shape: uint8 unchanged, uint16 converted by `RULE`."""
    if samples.dtype == np.uint8:
        return samples
    return np.rint(samples * RATIO).astype(np.uint8)


def is_fill(levels: NDArray[np.uint8], value: int) -> NDArray[np.bool_]:
    """True where levels are within the tolerance of a fill's value, which is 0 or 255."""
    return levels <= FILL_TOLERANCE if value == 0 else levels >= value - FILL_TOLERANCE
