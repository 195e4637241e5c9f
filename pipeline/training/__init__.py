"""Trains networks on labelled patches with Lightning, and exports their weights; needs the extra `train`."""

from importlib.util import find_spec

from pipeline.errors import ConfigError
from pipeline.model.network import make_torchvision_importable

if find_spec("lightning") is None:
    raise ConfigError("training needs Lightning: pip install 'landcover-pipeline[train]'")
# Before a module here imports Lightning, whose metrics import torchvision.
make_torchvision_importable()
