"""Finds the recipe that a checkpoint belongs to: by the file beside it, by its name, or by its tensors."""

from pathlib import Path

from pipeline.config import Recipe, config_folder, load_recipe
from pipeline.errors import ConfigError, WeightsError
from pipeline.model.shipped_recipes import fitting_recipes, named_recipe
from pipeline.model.weights import load_model, read_weights
from pipeline.model.weights_file import HUB


def matching_recipe(weights: str) -> str:
    """The recipe of a checkpoint, as a campaign's `model.recipe` names it, and checks that it fits.

    1. The one recipe in the checkpoint's folder: `landcover train` writes it there.
    2. The shipped recipe that the checkpoint's name contains.
    3. The only shipped recipe whose network has exactly these tensors.

    Args:
        weights: a path, or `hf://…`, as `load_model` takes it.

    Returns:
        The name of a shipped recipe, or the absolute path of a YAML file.

    Raises:
        WeightsError: the weights cannot be loaded, or no recipe, or more than one, fits them.
    """
    recipe = _beside(weights) or named_recipe(weights) or _by_tensors(weights)
    load_model(weights, recipe)
    return recipe


def _beside(weights: str) -> str | None:
    """The path of the recipe in the checkpoint's folder: of its own name, else the only one there."""
    if weights.startswith(HUB):
        return None
    path = Path(weights).expanduser().absolute()
    recipes = [p for p in sorted(path.parent.glob("*.yaml")) if _is_recipe(p)]
    own = [p for p in recipes if path.stem.removesuffix("_weights") == p.stem]
    chosen = own or recipes
    return str(chosen[0]) if len(chosen) == 1 and path.is_file() else None


def _is_recipe(path: Path) -> bool:
    try:
        return isinstance(load_recipe(str(path)), Recipe)
    except ConfigError:
        # Another YAML file.
        return False


def _by_tensors(weights: str) -> str:
    fitting = fitting_recipes(read_weights(weights))
    if len(fitting) == 1:
        return fitting[0]
    shipped = config_folder() / "models"
    if not fitting:
        raise WeightsError(
            f"{weights}: no shipped recipe has a network with exactly these tensors; write a recipe like those in "
            f"{shipped}, and give it with --recipe"
        )
    raise WeightsError(
        f"{weights}: {', '.join(fitting)} have the same tensors, and the file's name names none of them; choose one "
        "with --recipe"
    )
