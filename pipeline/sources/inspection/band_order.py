"""Finds bands in another order than the recipe's, by comparing their statistics with those of training images.

Means alone do not show it: those of red, green, blue and infrared lie within 9 levels. But colours correlate with each
other more than with infrared, and heights with nothing. So means, deviations and correlations are compared together, by
the Kullback-Leibler divergence of two normal distributions (Kullback 1959, chapter 9), under every order of the bands.
"""

from collections.abc import Sequence
from itertools import permutations

import numpy as np

from pipeline.sources.inspection.lowest_level import BandSums, Floats

_KNOWN = ("red", "green", "blue", "nir", "elevation")
_MEAN = np.array([105.08, 110.87, 101.82, 106.38, 53.26])
_STD = np.array([52.17, 45.38, 44.00, 39.69, 79.30])
"""Means and deviations of FLAIR-INC's training images, from its models' cards."""
_CORRELATION = np.array(
    [
        [1.00, 0.97, 0.95, 0.50, -0.20],
        [0.97, 1.00, 0.97, 0.50, -0.20],
        [0.95, 0.97, 1.00, 0.45, -0.20],
        [0.50, 0.50, 0.45, 1.00, -0.10],
        [-0.20, -0.20, -0.20, -0.10, 1.00],
    ]
)
"""Rounded from five patches of FLAIR; no card has them."""
_NOISE = 9.0
"""Variance that is added to each band: 3 levels of compression and of bands without any variation."""

_BETTER = 1.0
"""How much smaller the divergence of another order must be.

Measured: real images in their own order never have an order that is better by more than 0.54 (five patches of 100 m,
BD ORTHO of Montpellier, two German orthophotos); with infrared or height at a wrong place another is better by 1.30 to
23. Red and blue cannot be told apart (0.1 to 2.5).
"""
_FITS = 8.0
"""Largest divergence of an order that fits: real images have 0.2 to 5.1. Where none fits, nothing is known."""


def better_order(sums: BandSums, bands: tuple[str, ...]) -> tuple[str, ...]:
    """The order in which the bands seem to be; empty where it is the expected one, or none fits clearly better.

    Args:
        sums: over the image's bands.
        bands: what they should be.
    """
    own = tuple(_KNOWN.index(band) for band in bands)
    if len(own) < 3:
        return ()
    known = range(len(_KNOWN) if "elevation" in bands else len(_KNOWN) - 1)
    covariance = sums.covariance + _NOISE * np.eye(len(own))
    orders = {order: _divergence(sums.mean, covariance, order) for order in permutations(known, len(own))}
    best = min(orders, key=lambda order: orders[order])
    if orders[best] > _FITS or orders[own] - orders[best] < _BETTER:
        return ()
    return tuple(_KNOWN[i] for i in best)


def _divergence(mean: Floats, covariance: Floats, order: Sequence[int]) -> float:
    """KL(image ‖ training) of two normal distributions, in nats."""
    at = list(order)
    trained = _CORRELATION[np.ix_(at, at)] * np.outer(_STD[at], _STD[at])
    inverse, off = np.linalg.inv(trained), _MEAN[at] - mean
    ratio = np.linalg.slogdet(trained)[1] - np.linalg.slogdet(covariance)[1]
    return float(0.5 * (np.trace(inverse @ covariance) + off @ inverse @ off - len(at) + ratio))


def order_sentence(found: tuple[str, ...], bands: tuple[str, ...]) -> str:
    """What `better_order` found, and the command that writes the bands in the expected order."""
    sentence = (
        f"by their means, deviations and correlations the bands look like {', '.join(found)}; expected "
        f"{', '.join(bands)}"
    )
    if set(found) != set(bands):
        return sentence
    places = ",".join(str(found.index(band) + 1) for band in bands)
    return f"{sentence}: `rio stack IN --bidx {places} -o OUT.tif` writes them so"
