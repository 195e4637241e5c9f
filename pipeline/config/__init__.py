"""Configuration from YAML files: the campaign, the recipe of its network, and the base of other files."""

from pipeline.config.campaign import (
    Campaign,
    ClusterKind,
    ClusterSection,
    DomainSection,
    EngineName,
    GridSection,
    LimitName,
    LimitsSection,
    ModelSection,
    OutputSection,
    Precision,
    load_campaign,
)
from pipeline.config.recipe import DEFAULT_RECIPE, Architecture, Band, Recipe, load_recipe
from pipeline.config.section import ConfigPath, Section, config_folder, find_config, read_yaml

__all__ = [
    "DEFAULT_RECIPE",
    "Architecture",
    "Band",
    "Campaign",
    "ClusterKind",
    "ClusterSection",
    "ConfigPath",
    "DomainSection",
    "EngineName",
    "GridSection",
    "LimitName",
    "LimitsSection",
    "ModelSection",
    "OutputSection",
    "Precision",
    "Recipe",
    "Section",
    "config_folder",
    "find_config",
    "load_campaign",
    "load_recipe",
    "read_yaml",
]
