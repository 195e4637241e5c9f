"""Networks whose probabilities are averaged."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from pipeline.config import Recipe, Tta, joint_recipe
from pipeline.model.weights_file import joint_hash

if TYPE_CHECKING:
    from pipeline.model.weights import Model


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Networks, or one, whose probabilities are averaged over turned and mirrored windows.

    `pipeline.predict` and `Method` take it as they take a `Model`.

    Raises:
        ConfigError: the recipes of the members do not fit each other.

    Examples:
        >>> Ensemble((load_model("a.pth"), load_model("b.pth")), tta="d4")  # doctest: +SKIP
    """

    members: tuple["Model", ...]
    tta: Tta = "none"
    """Test-time augmentation: the positions in which each member sees a window."""

    def __post_init__(self) -> None:
        joint_recipe([member.recipe for member in self.members])

    @cached_property
    def recipe(self) -> Recipe:
        """What the members need together: its bands are those that a window has."""
        return joint_recipe([member.recipe for member in self.members])

    @cached_property
    def weights_hash(self) -> str:
        """Hash of the members' hashes, in their order; of a single member its own."""
        return joint_hash([member.weights_hash for member in self.members])

    def __dask_tokenize__(self) -> tuple[object, ...]:
        """Dask's token, made of everything that a map depends on."""
        return ("landcover-ensemble", self.tta, *(member.__dask_tokenize__() for member in self.members))
