"""The errors that users can cause or fix.

The command line prints the message of a `LandcoverError` without a traceback and exits with its `exit_code`. Any other
exception is a defect of this package and keeps its traceback. A message says what is wrong, what was expected and
found, where, and how to fix it.
"""

from collections.abc import Iterator
from contextlib import contextmanager


class LandcoverError(Exception):
    """An error that a user can cause or fix."""

    exit_code = 2
    """Exit code of the command line."""


class ConfigError(LandcoverError):
    """A campaign, recipe or option is not valid: an unknown key, a wrong type, sizes that do not divide each other."""


class GridError(LandcoverError):
    """A position is off the lattice, a tile name is not valid, or a window is off the network's stride."""


class DeliveryError(LandcoverError):
    """A delivery differs from its file names or headers."""


class DownloadError(LandcoverError):
    """A download service answers otherwise than expected, or files could not be downloaded. Complete files stay."""


class CatalogError(LandcoverError):
    """The input catalog lacks a domain, tile or asset, or does not fit the files any more."""


class SourceError(LandcoverError):
    """An input raster cannot be read. Tiles that need it fail, by name."""


class TransientReadError(SourceError):
    """An input raster could not be read for a temporary reason. The read is retried; then the tile fails."""


class WeightsError(LandcoverError):
    """A checkpoint is missing or unsafe, or does not fit its recipe."""


class EngineError(LandcoverError):
    """An inference engine is not installed, or does not support what is requested."""


class StorageError(LandcoverError):
    """A file or folder cannot be written. A former file is unchanged."""


class OutOfSpaceError(StorageError):
    """The disk is full, or a quota is used up. A run stops."""


class LockError(LandcoverError):
    """Another run or publish owns the lock of a folder. The message names the owner."""


class ProductError(LandcoverError):
    """A product is damaged or incomplete, or its folder cannot be written."""


class RunFailed(LandcoverError):
    """Some tiles failed; the others are sealed. The message lists the failed ones."""

    exit_code = 3


class VerifyFailed(LandcoverError):
    """A sealed or published product differs from its items."""

    exit_code = 4


class RunStopped(LandcoverError):
    """A run stopped on request. Sealed tiles stay, and more tiles are to be mapped."""

    exit_code = 5


class ClusterError(LandcoverError):
    """The Dask cluster did not start, or was lost. Sealed tiles stay; the next run resumes."""

    exit_code = 6


class MachineError(LandcoverError):
    """This machine lacks something that a campaign needs."""


class EvaluationError(LandcoverError):
    """A reference and a map cannot be compared, or there is too little data."""


class CardLimitWarning(UserWarning):
    """An image exceeds a limit of the model's card, and is mapped all the same."""


MALFORMED = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError, MemoryError)
"""Raised by libraries and by our own arithmetic where a file, or its content, is not as expected. Parsers validate with
`untrusted.documents` first; this is for what a format's library finds."""


@contextmanager
def product_error(problem: str, *kinds: type[Exception]) -> Iterator[None]:
    """Raises a ProductError with this problem and its cause where the block raises an OSError or one of `kinds`."""
    caught: tuple[type[Exception], ...] = (OSError, *kinds)
    try:
        yield
    except caught as error:
        raise ProductError(f"{problem}: {type(error).__name__}: {error}") from error
