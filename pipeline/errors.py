"""One family of errors. Each says what was expected, what came, where, and what to do.

The command line prints the message of a `LandcoverError` without a traceback and exits with its
`exit_code`; any other exception is a defect of ours and keeps its traceback.
"""


class LandcoverError(Exception):
    """What a user can cause or mend; `exit_code` is what the command line exits with."""

    exit_code = 2


class ConfigError(LandcoverError):
    """A campaign, recipe or option that cannot be: unknown key, wrong type, sizes that do not divide."""


class GridError(LandcoverError):
    """A position off the lattice, a tile name that is none, a window off the network's stride."""


class DeliveryError(LandcoverError):
    """A delivery on disk that is not what its names or headers promise."""


class CatalogError(LandcoverError):
    """An input catalogue that lacks a domain, tile or asset, or that no longer fits the files."""


class SourceError(LandcoverError):
    """An input raster that cannot be read; the tile behind it fails, by name."""


class TransientReadError(SourceError):
    """An input raster that could not be read for a reason that passes: it is tried again, then its tile fails."""


class WeightsError(LandcoverError):
    """A checkpoint that cannot be had, is unsafe, or does not fit the recipe."""


class EngineError(LandcoverError):
    """An inference engine that is not there or that was given what it cannot take."""


class StorageError(LandcoverError):
    """A file or folder that cannot be written; what stood there before still stands."""


class OutOfSpaceError(StorageError):
    """No room, or no quota, for what was to be written; a run that meets it stops."""


class LockError(LandcoverError):
    """A folder that another run or publish holds; the message says who."""


class ProductError(LandcoverError):
    """A product that is not whole, or that its folder does not let us make."""


class RunFailed(LandcoverError):
    """Some tiles failed; the others are sealed. The message lists the failed ones."""

    exit_code = 3


class VerifyFailed(LandcoverError):
    """What was sealed or published is not what its items say."""

    exit_code = 4


class RunStopped(LandcoverError):
    """A run that was asked to stop and did so in order; what is sealed stays, and there is more to do."""

    exit_code = 5


class ClusterError(LandcoverError):
    """The Dask cluster could not be had or was lost; what is sealed stays, and the next run goes on from there."""

    exit_code = 6


class MachineError(LandcoverError):
    """A machine that lacks what a campaign needs."""


class EvaluationError(LandcoverError):
    """A truth and a map that cannot be compared, or too little of them to say anything."""
