"""Configuration from YAML files: the campaign, the recipe of its network, and the base of other files."""

from pipeline.config.campaign import (
    Campaign,
    CampaignPrecision,
    ClusterKind,
    ClusterSection,
    DomainSection,
    EngineName,
    GeneraliseSection,
    LimitName,
    LimitsSection,
    OutputSection,
    Precision,
    load_campaign,
)
from pipeline.config.grid_section import GridSection
from pipeline.config.joint_recipe import joint_recipe
from pipeline.config.model_section import MemberSection, ModelSection, Tta
from pipeline.config.recipe import DEFAULT_RECIPE, Architecture, Band, Recipe, load_recipe
from pipeline.config.section import (
    ConfigPath,
    PlainName,
    Section,
    Sha256,
    config_folder,
    find_config,
    read_yaml,
    text_of,
)

__all__ = [
    "DEFAULT_RECIPE",
    "Architecture",
    "Band",
    "Campaign",
    "CampaignPrecision",
    "ClusterKind",
    "ClusterSection",
    "ConfigPath",
    "DomainSection",
    "EngineName",
    "GeneraliseSection",
    "GridSection",
    "LimitName",
    "LimitsSection",
    "MemberSection",
    "ModelSection",
    "OutputSection",
    "PlainName",
    "Precision",
    "Recipe",
    "Section",
    "Sha256",
    "Tta",
    "config_folder",
    "find_config",
    "joint_recipe",
    "load_campaign",
    "load_recipe",
    "read_yaml",
    "text_of",
]
