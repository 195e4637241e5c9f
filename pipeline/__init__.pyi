from .config import load_campaign as load_campaign
from .model import load_model as load_model
from .products.analysis.open_product import open_product as open_product
from .products.stac.search import search as search
from .runs.mapping.predict import predict as predict
from .runs.mapping.run import run as run
from .runs.planning.plan import make_plan as make_plan
from .runs.publishing.publish import publish as publish
from .sources.lazy_image import open_domain as open_domain
from .sources.lazy_image import open_raster as open_raster

__version__: str
__all__ = [
    "load_campaign",
    "load_model",
    "make_plan",
    "open_domain",
    "open_product",
    "open_raster",
    "predict",
    "publish",
    "run",
    "search",
]
