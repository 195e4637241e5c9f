"""Checks that infrared and colours belong together: IRC repeats red and green, so the two must agree."""

from collections.abc import Mapping
from itertools import permutations

from pipeline.grid import Tile
from pipeline.sources.inspection.lowest_level import BandSums, Floats, LowestLevel

CORRELATION = 0.9
"""Least correlation of IRC band 2 with RVB band 1, and of band 3 with band 2.

Measured on IGN's pair of Montpellier: 0.998 and 0.997 at 0.2 m, 1.000 and 1.000 at 6.4 m. The pair shifted by 5 m gives
0.47, infrared with red at most 0.54. Red with green gives 0.94, so the best match decides the order of the bands.
"""
_MIN_CELLS = 1024
"""Tiles with fewer cells are not checked: these are mostly the border of their data."""
_MIN_DEVIATION = 5.0
"""Bands with a smaller deviation in levels are not checked (sea): only the compression's noise would correlate."""


def mismatched_infrared(levels: Mapping[Tile, LowestLevel], names: Mapping[Tile, tuple[str, str]]) -> list[str]:
    """A sentence for each tile whose IRC does not repeat its RVB's red and green as bands 2 and 3.

    Args:
        levels: lowest levels with six components each.
        names: paths of each tile's RVB and IRC, for the sentences.
    """
    return [
        f"{names[tile][1]}: {wrong} (beside {names[tile][0]})"
        for tile, level in sorted(levels.items())
        if (wrong := _mismatch(level.sums))
    ]


def _mismatch(sums: BandSums) -> str | None:
    std = sums.std
    if sums.count < _MIN_CELLS or len(std) < 6 or min(std[[0, 1, 4, 5]]) < _MIN_DEVIATION:
        return None
    matrix = sums.covariance / (std[:, None].clip(1e-9) * std[None, :].clip(1e-9))
    # (IRC band, RVB band), counted from 0.
    match = matrix[3:6, 0:3]
    red, green = float(match[1, 0]), float(match[2, 1])
    best = max(permutations(range(3), 2), key=lambda bands: float(match[bands[0], 0] + match[bands[1], 1]))
    if min(red, green) >= CORRELATION and best == (1, 2):
        return None
    return (
        f"its bands 2 and 3 match the RVB's red and green with correlation {red:.3f} and {green:.3f}; expected at "
        f"least {CORRELATION:g}, because they repeat them: {_cause(match, best)}"
    )


def _cause(match: Floats, best: tuple[int, ...]) -> str:
    if min(match[best[0], 0], match[best[1], 1]) >= CORRELATION:
        if best == (0, 1):
            return (
                "its bands 1 and 2 are the RVB's bands 1 and 2: either its first band is not infrared, or the RVB "
                "begins with infrared; RVB must be red, green, blue and IRC near infrared, red, green"
            )
        return f"its bands {best[0] + 1} and {best[1] + 1} are; put the bands in the order near infrared, red, green"
    if max(match[1].max(), match[2].max()) >= CORRELATION:
        return "the RVB's bands are in another order (near infrared first?); expected red, green, blue"
    return "the IRC has another place or date; replace it with the one of this tile"
