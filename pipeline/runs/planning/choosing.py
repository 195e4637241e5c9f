"""Chooses windows by the memory of a worker, and the precision by what was shown on unseen domains."""

import platform
from typing import Literal

from pipeline.config import Campaign, GridSection, Precision, Recipe
from pipeline.errors import ConfigError
from pipeline.halo import Layout
from pipeline.inference.engine import Engine, missing_instructions, on_gpu, resolve_engine
from pipeline.inference.memory_projection import worker_memory
from pipeline.inference.quantized_model import recipe_digest
from pipeline.model.weights_file import UnloadedModel
from pipeline.runs.planning.agreement_report import AgreementReport, MeasuredPrecision, read_agreement
from pipeline.untrusted.documents import Document

_LARGEST_CORE = 5_000
"""Of the largest windows whose memory was measured: 5 376 px."""
_LARGEST_BLOCK = 5_000
_SMALLEST_CORE = 500
"""Smaller windows compute each pixel three times and more."""


class ChosenWindows(Document):
    """Sizes in pixels."""

    tile: int
    block: int
    core: int
    halo: int
    window: int
    memory_bytes: int
    """`cluster.memory_bytes` when they were chosen."""

    def __str__(self) -> str:
        return f"windows of {self.window} px (core {self.core}, halo {self.halo}, block {self.block})"


class ChosenPrecision(Document):
    """A precision, and what it was compared for."""

    precision: Precision
    because: str
    """The reason in words."""
    engine: Literal["torch", "openvino"] | None = None
    """The engine with which the precision agreed. None for fp32, in which any engine runs."""
    weights_sha256: str
    recipe_digest: str
    quantized_sha256: str | None = None
    agreement: float | None = None
    """Share of the pixels that agree with fp32 in the least unseen domain; None for fp32."""

    def __str__(self) -> str:
        return f"precision {self.precision}{f' by {self.engine}' if self.engine else ''} ({self.because})"


def largest_windows(campaign: Campaign, recipe: Recipe, engine: Engine) -> ChosenWindows:
    """The windows that compute the fewest pixels for each pixel of the map within the campaign's memory.

    Their cores divide the tile. Of equal windows, the largest block is chosen.

    Raises:
        ConfigError: even the smallest windows exceed a limit of the memory, or a GPU has no limit.
    """
    cluster, tile = campaign.cluster, campaign.grid.tile
    # A login node has no GPU; that workers have one shows by the limit of its memory.
    gpu = on_gpu(engine) or (engine.name == "torch" and cluster.device_memory_bytes is not None)
    if gpu and cluster.device_memory_bytes is None:
        raise ConfigError("grid: auto with a GPU needs cluster.device_memory_bytes, the memory that a worker may take")
    halo = campaign.grid.halo
    if "halo" not in campaign.grid.model_fields_set and recipe.smallest_halo is not None:
        halo = recipe.smallest_halo
    refused: ConfigError | None = None
    for core in (c for c in range(_LARGEST_CORE, 0, -1) if tile % c == 0 and c >= min(tile, _SMALLEST_CORE)):
        layout = Layout.for_core(core, halo, recipe.stride)
        for block in (b for b in range(max(1, _LARGEST_BLOCK // core) * core, 0, -core) if tile % b == 0):
            grid = GridSection(tile=tile, block=block, core=core, halo=halo, window=layout.window)
            memory = worker_memory(campaign, engine, grid=grid, layout=layout, recipe=recipe, gpu=gpu)
            try:
                memory.check(cluster.memory_bytes, cluster.device_memory_bytes, auto=True)
            except ConfigError as error:
                refused = error
                continue
            return ChosenWindows(**grid.model_dump(), memory_bytes=cluster.memory_bytes or 0)
    raise ConfigError(f"grid: auto finds no windows for a tile of {tile} px: {refused}") from refused


def choose_precision(campaign: Campaign, weights: UnloadedModel) -> ChosenPrecision:
    """The fastest precision that agrees with fp32 on unseen domains as the campaign demands; else fp32.

    Raises:
        EngineError: the engine is not installed, or the quantized network is damaged.
        ProductError: the report of agreements is damaged.
    """
    engine = resolve_engine(campaign.engine, compiled=campaign.torch_compile).name
    digest = recipe_digest(weights)

    def chosen(because: str, name: Precision = "fp32", found: MeasuredPrecision | None = None) -> ChosenPrecision:
        return ChosenPrecision(
            precision=name,
            because=because,
            engine=None if name == "fp32" else engine,
            weights_sha256=weights.weights_hash,
            recipe_digest=digest,
            quantized_sha256=found.quantized_sha256 if found else None,
            agreement=found.least if found else None,
        )

    report, needed = read_agreement(campaign), campaign.minimum_agreement
    if needed is None:
        return chosen("minimum_agreement is not set")
    if report is None:
        return chosen("`landcover quantize --check` compared nothing yet")
    if (report.weights_sha256, report.recipe_digest, report.engine) != (weights.weights_hash, digest, engine):
        return chosen("`landcover quantize --check` compared other weights, another recipe or another engine")
    fp32 = report.precisions["fp32"].mpx_per_s
    agreeing = {
        name: measured
        for name, measured in report.precisions.items()
        if name != "fp32" and measured.least >= needed and measured.mpx_per_s > fp32
    }
    obstacles = {name: _obstacle(name, measured, campaign, report, weights) for name, measured in agreeing.items()}
    usable = [name for name, obstacle in obstacles.items() if not obstacle]
    if not usable:
        listed = "; ".join(f"{name} agrees, but {obstacle}" for name, obstacle in obstacles.items())
        return chosen(listed or f"nothing faster agrees with it on {needed:.2%} of the pixels of each unseen domain")
    best = max(usable, key=lambda name: agreeing[name].mpx_per_s)
    found = agreeing[best]
    because = (
        f"{found.least:.2%} of the pixels agree in the least unseen domain, {found.mpx_per_s / fp32:.1f} × as fast"
    )
    return chosen(because, best, found)


def _obstacle(
    name: Precision, measured: MeasuredPrecision, campaign: Campaign, report: AgreementReport, weights: UnloadedModel
) -> str:
    """Why this processor or the campaign cannot use a precision that agrees; empty where it can."""
    if name == "int8":
        if campaign.model.quantized is None:
            return "the campaign has no model.quantized"
        if campaign.layers or campaign.model.tta != "none":
            return "a network in int8 gives no probabilities, which layers and model.tta need"
        network = int8_engine(campaign, weights).quantized
        if network is None or network.sha256 != measured.quantized_sha256:
            return "model.quantized is another network than the one that was compared"
        if campaign.model.reference and not network.gives_features:
            return "model.quantized gives no features, which model.reference needs"
    missing = missing_instructions(Engine(report.engine, name))
    return f"the processor of {platform.node()} lacks {missing}" if missing else ""


def int8_engine(campaign: Campaign, weights: UnloadedModel) -> Engine:
    """The engine with the campaign's quantized network.

    Raises:
        EngineError: it is missing or damaged, or was made from other weights; or OpenVINO is not installed.
    """
    return resolve_engine("openvino", precision="int8", quantized=campaign.model.quantized, model=weights)
