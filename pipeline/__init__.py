"""Land cover of a whole country at 20 cm, from BD ORTHO deliveries to one national product.

The public names are declared in `__init__.pyi`. Each is imported when it is first used, because torch takes seconds.
"""

import lazy_loader

__version__ = "0.2.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
