"""Does the infrared belong to the colours? IRC repeats red and green, so the two must agree."""

from collections.abc import Mapping
from itertools import permutations

from pipeline.grid import Tile
from pipeline.sources.inspection.lowest_level import Floats, Look, Sums

CORRELATION = 0.9
"""IRC band 2 with RVB band 1, and band 3 with band 2, at least so much.

Measured on IGN's pair of Montpellier: 0.998 and 0.997 at 0.2 m, 1.000 and 1.000 at 6.4 m; the pair shifted by 5 m
gives 0.47, infrared with red 0.54 and less. Red with green gives 0.94, so the order is judged by the best match.
"""
_MIN_CELLS = 1024
"""Cells on which a tile is judged; fewer are mostly the border of what the tile has."""
_LIVELY = 5.0
"""Levels of deviation below which a band says nothing (sea): correlation is then that of the compression's noise."""


def foreign_infrared(looks: Mapping[Tile, Look], names: Mapping[Tile, tuple[str, str]]) -> list[str]:
    """A sentence for each tile whose IRC does not repeat its RVB's red and green as bands 2 and 3.

    Args:
        looks: with six components each.
        names: paths of each tile's RVB and IRC, for the sentences.
    """
    return [
        f"{names[tile][1]}: {wrong} (beside {names[tile][0]})"
        for tile, seen in sorted(looks.items())
        if (wrong := _mismatch(seen.sums))
    ]


def _mismatch(sums: Sums) -> str | None:
    std = sums.std
    if sums.count < _MIN_CELLS or len(std) < 6 or min(std[[0, 1, 4, 5]]) < _LIVELY:
        return None
    matrix = sums.covariance / (std[:, None].clip(1e-9) * std[None, :].clip(1e-9))
    # (IRC band, RVB band), counted from 0.
    match = matrix[3:6, 0:3]
    red, green = float(match[1, 0]), float(match[2, 1])
    best = max(permutations(range(3), 2), key=lambda bands: float(match[bands[0], 0] + match[bands[1], 1]))
    if min(red, green) >= CORRELATION and best == (1, 2):
        return None
    said = f"its bands 2 and 3 match the RVB's red and green with correlation {red:.3f} and {green:.3f}; expected "
    return said + f"at least {CORRELATION:g} as it repeats them: {_cause(match, best)}"


def _cause(match: Floats, best: tuple[int, ...]) -> str:
    if min(match[best[0], 0], match[best[1], 1]) >= CORRELATION:
        if best == (0, 1):
            return (
                "its bands 1 and 2 are the RVB's bands 1 and 2: either its first band is no infrared, or the RVB "
                "begins with infrared; deliver RVB as red, green, blue and IRC as near infrared, red, green"
            )
        return f"its bands {best[0] + 1} and {best[1] + 1} are; put the bands in the order near infrared, red, green"
    if max(match[1].max(), match[2].max()) >= CORRELATION:
        return "the RVB's bands are in another order (near infrared first?); expected red, green, blue"
    return "the IRC is another place's or another date's; deliver the one that belongs here"
