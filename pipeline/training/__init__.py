"""Training: labelled patches → Lightning → weights that `landcover run` takes. Needs the extra `train`."""

from importlib.util import find_spec

from pipeline.errors import ConfigError
from pipeline.model.network import mend_torchvision

if find_spec("lightning") is None:
    raise ConfigError("training wants Lightning: pip install 'landcover-pipeline[train]'")
# Before any module here imports Lightning, whose metrics import torchvision.
mend_torchvision()
