"""What YAML says: the campaign, the recipe, and the sections that other files of ours are made of."""

from pipeline.config.campaign import (
    DEFAULT_RECIPE,
    Architecture,
    Band,
    Campaign,
    DomainSection,
    EngineName,
    GridSection,
    LimitName,
    LimitsSection,
    ModelSection,
    OutputSection,
    Precision,
    Recipe,
    load_campaign,
    load_recipe,
)
from pipeline.config.cluster import ClusterKind, ClusterSection
from pipeline.config.section import Located, Section, config_folder, read_yaml

__all__ = [
    "DEFAULT_RECIPE",
    "Architecture",
    "Band",
    "Campaign",
    "ClusterKind",
    "ClusterSection",
    "DomainSection",
    "EngineName",
    "GridSection",
    "LimitName",
    "LimitsSection",
    "Located",
    "ModelSection",
    "OutputSection",
    "Precision",
    "Recipe",
    "Section",
    "config_folder",
    "load_campaign",
    "load_recipe",
    "read_yaml",
]
