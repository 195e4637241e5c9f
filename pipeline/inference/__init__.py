"""Maps a mosaic to layers of classes and confidence: windows, halo, engines.

The names are declared in `__init__.pyi`. Each is imported when it is first used: plans need no torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
