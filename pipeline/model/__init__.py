"""Networks and their weights: built from a recipe, loaded from a checkpoint, optimized for inference.

The names are declared in `__init__.pyi`. Each is imported when it is first used: plans need no torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
