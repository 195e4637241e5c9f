"""The recipe that several networks have together."""

import math
from collections.abc import Sequence

from pipeline.config.recipe import Recipe
from pipeline.errors import ConfigError


def joint_recipe(recipes: Sequence[Recipe]) -> Recipe:
    """What networks that are averaged need together; of one network it is its own recipe.

    It has the bands of all, in the order in which they first occur, the stride that fits each, and the largest of the
    smallest halos. Where networks pool over whole windows, so does it, and its smallest window contains all of theirs.
    Normalisation and temperature are those of the first network that has the band: each network uses its own.

    Args:
        recipes: of the networks, in the order of the campaign.

    Raises:
        ConfigError: the networks have other live classes, or other units of height.

    Example:
        >>> from pipeline.config import load_recipe
        >>> names = ("flair-inc_rgb_12cl_resnet34-unet", "flair-inc_rgbie_12cl_resnet34-unet")
        >>> joint_recipe([load_recipe(name) for name in names]).bands
        ('red', 'green', 'blue', 'nir', 'elevation')
    """
    first, *others = recipes
    if not others:
        return first
    for other in others:
        if other.live != first.live:
            raise ConfigError(
                f"recipe {other.name} has the live classes {other.live}, expected those of {first.name}, {first.live}: "
                "probabilities are averaged class by class; set `live` in the recipes to the classes of both"
            )
    heights = {r.height_step_m: r.name for r in recipes if "elevation" in r.bands}
    if len(heights) > 1:
        listed = ", ".join(f"{name} {step} m" for step, name in heights.items())
        raise ConfigError(f"networks that are averaged read the same elevation band; found height_step_m of {listed}")
    scales = {b: s for r in reversed(recipes) for b, *s in zip(r.bands, r.mean, r.std, strict=True)}
    bands = tuple(dict.fromkeys(band for r in recipes for band in r.bands))
    halos = [r.smallest_halo for r in recipes if r.smallest_halo is not None]
    keys = ("name", "licence", "citation", "doi")
    named = {key: tuple(dict.fromkeys(getattr(r, key) for r in recipes)) for key in keys}
    joint = next((r for r in recipes if r.pools_whole_window), first).model_copy(
        update={
            "name": "+".join(named["name"]),
            "stride": math.lcm(*(r.stride for r in recipes)),
            "bands": bands,
            "mean": tuple(scales[band][0] for band in bands),
            "std": tuple(scales[band][1] for band in bands),
            "smallest_halo": max(halos, default=None),
            "height_step_m": next(iter(heights), first.height_step_m),
            "licence": named["licence"][0] if len(named["licence"]) == 1 else "other",
            "citation": "; ".join(filter(None, named["citation"])),
            "doi": next(filter(None, named["doi"]), ""),
        }
    )
    return joint.model_copy(update={"smallest_window": _smallest_window(recipes, joint)})


def _smallest_window(recipes: Sequence[Recipe], joint: Recipe) -> int | None:
    """The smallest multiple of the joint stride that contains those of all; None where one is unknown."""
    if any(r.pools_whole_window and r.smallest_window is None for r in recipes):
        return None
    windows = [r.smallest_window for r in recipes if r.smallest_window is not None]
    return -(-max(*windows, joint.least_window) // joint.stride) * joint.stride if windows else None
