"""What `auto` in a campaign is resolved to: windows by memory, precision by machine and data.

The first plan or run chooses, and writes the choices beside the products: `products/herault-2021-auto.json`. All later
runs, on all nodes, read them, so that a campaign has one set of fingerprints: that of a campaign which states the same
values.
"""

import platform
import secrets
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from pipeline.config import Campaign, CampaignPrecision, GridSection, Recipe
from pipeline.durable import link_or_copy, write_json
from pipeline.errors import ConfigError, EngineError, OutOfSpaceError, ProductError, StorageError
from pipeline.inference.engine import Engine, missing_instructions, resolve_engine
from pipeline.inference.quantized_model import recipe_digest
from pipeline.model.weights_file import UnloadedModel
from pipeline.runs.planning.choosing import (
    ChosenPrecision,
    ChosenWindows,
    choose_precision,
    int8_engine,
    largest_windows,
)
from pipeline.runs.tracking.run_record import utc_now
from pipeline.untrusted.documents import Document, DocumentError
from pipeline.untrusted.own_checksum import read_checked

RE_RESOLVE = "`landcover plan --re-resolve` shows what choosing again would change, and `run --re-resolve` does it"


class Choices(Document):
    """The content of the file."""

    windows: ChosenWindows | None = None
    """None where the campaign states its sizes."""
    precision: ChosenPrecision | None = None
    """None where the campaign states its precision."""
    host: str
    made: str = Field(default="")
    """UTC, `2026-03-01T12:00:00Z`."""


@dataclass(frozen=True)
class AutomaticChoices:
    """The choices of a campaign, and those that its file still has where they were made again."""

    path: Path
    now: Choices
    former: Choices | None = None
    """None where the file has `now`."""

    def keep(self) -> None:
        """Writes choices that were made again.

        Raises:
            StorageError: the folder cannot be written.
        """
        if self.former is not None:
            write_json(self.path, self.now.model_dump(mode="json"), own_checksum=True)


def is_automatic(campaign: Campaign) -> bool:
    """Whether the campaign leaves something to be chosen."""
    return campaign.grid.auto or campaign.precision == "auto"


def choices_file(campaign: Campaign) -> Path:
    """`products/herault-2021-auto.json`."""
    return campaign.output.domains / f"{campaign.name}-auto.json"


def with_choices(campaign: Campaign) -> Campaign:
    """The campaign with the values that its `auto` was resolved to; a campaign without `auto` as it is.

    Raises:
        ConfigError: nothing was chosen yet, or tile or halo changed since.
        ProductError: the file of the choices is damaged.
    """
    if not is_automatic(campaign):
        return campaign
    found = _read(campaign)
    if found is None or _missing(campaign, found):
        raise ConfigError(f"campaign {campaign.name}: `auto` is not resolved yet; run `landcover plan` first")
    return _applied(campaign, found)


def settle(
    campaign: Campaign, recipe: Recipe, weights: UnloadedModel, *, again: bool = False
) -> tuple[Campaign, AutomaticChoices | None]:
    """Reads the choices of a campaign, or makes and writes those that nobody made yet.

    Args:
        campaign: as `load_campaign` returns it.
        recipe: its recipe.
        weights: its weights.
        again: make them again. They are then not written: `AutomaticChoices.keep` does it.

    Returns:
        The campaign without `auto`, and its choices; None if it has no `auto`.

    Raises:
        ConfigError: no windows fit into the memory; tile, halo, weights or the quantized network changed; or more
            agreement is demanded.
        EngineError: the engine is not installed, or the quantized network is damaged.
        ProductError: a file is damaged.
        StorageError: the folder of the products cannot be written.
    """
    if not is_automatic(campaign):
        return campaign, None
    path, kept = choices_file(campaign), _read(campaign)
    former = kept if again else None
    found = None if again else kept
    if found is None or _missing(campaign, found):
        found = _choose(campaign, recipe, weights, kept=found)
        if former is None:
            found = _write_first(campaign, found) if kept is None else _write_more(path, found)
        elif (former.windows, former.precision) == (found.windows, found.precision):
            found, former = former, None
    settled, used = _applied(campaign, found), _used(campaign, found)
    _check_same_network(settled, used, weights)
    _check_agreement(campaign, used)
    return settled, AutomaticChoices(path, used, former)


def refuse_unable(engine: Engine, *, host: str, needed_bytes: int, memory_bytes: int | None) -> None:
    """Raises EngineError where a worker's machine cannot run what `auto` was resolved to.

    Args:
        engine: of the run.
        host: the machine's name.
        needed_bytes: the projected memory of a worker.
        memory_bytes: what the worker may take; None without a limit.
    """
    remedy = f"Leave {host} out, or choose for it: {RE_RESOLVE}"
    if missing := missing_instructions(engine):
        raise EngineError(
            f"{host}: its processor lacks {missing}, which {engine.name} in {engine.precision} needs; the campaign's "
            f"precision was chosen on another one. {remedy}"
        )
    if memory_bytes is not None and needed_bytes > memory_bytes:
        raise EngineError(
            f"{host}: the campaign's windows take up to {needed_bytes / 1e9:.2f} GB of a worker, and here it has "
            f"{memory_bytes / 1e9:.2f} GB. Give workers more memory, or choose smaller windows: {RE_RESOLVE}"
        )


def _choose(campaign: Campaign, recipe: Recipe, weights: UnloadedModel, *, kept: Choices | None) -> Choices:
    """Makes the choices that are missing in `kept`."""
    windows, precision = (kept.windows, kept.precision) if kept else (None, None)
    if campaign.precision == "auto" and precision is None:
        precision = choose_precision(campaign, weights)
    if campaign.grid.auto and windows is None:
        name = precision.precision if precision and campaign.precision == "auto" else campaign.precision
        engine = Engine("openvino") if name == "int8" else resolve_engine(campaign.engine)
        windows = largest_windows(campaign, recipe, engine)
    return Choices(windows=windows, precision=precision, host=platform.node(), made=utc_now())


def _missing(campaign: Campaign, found: Choices) -> bool:
    lacks_windows = campaign.grid.auto and found.windows is None
    return lacks_windows or (campaign.precision == "auto" and found.precision is None)


def _used(campaign: Campaign, choices: Choices) -> Choices:
    """Without choices of former days for what the campaign states now."""
    windows = choices.windows if campaign.grid.auto else None
    precision = choices.precision if campaign.precision == "auto" else None
    return choices.model_copy(update={"windows": windows, "precision": precision})


def _applied(campaign: Campaign, choices: Choices) -> Campaign:
    """The campaign with the chosen values instead of `auto`."""
    changed: dict[str, object] = {}
    if campaign.grid.auto and (windows := choices.windows):
        grid = campaign.grid
        if grid.tile != windows.tile or ("halo" in grid.model_fields_set and grid.halo != windows.halo):
            raise ConfigError(
                f"grid: auto was resolved for tiles of {windows.tile} px and a halo of {windows.halo} px, and now the "
                f"campaign has {grid.tile} px and {grid.halo} px: {RE_RESOLVE}"
            )
        changed["grid"] = GridSection(**windows.model_dump(exclude={"memory_bytes"}))
    if campaign.precision == "auto" and (chosen := choices.precision):
        if chosen.engine and campaign.engine not in ("auto", chosen.engine):
            raise ConfigError(
                f"precision: auto was resolved to {chosen.precision} by {chosen.engine}, and the campaign's engine is "
                f"{campaign.engine} here: {RE_RESOLVE}"
            )
        precision: CampaignPrecision = chosen.precision
        changed |= {"precision": precision, "engine": chosen.engine or campaign.engine, "minimum_agreement": None}
    return campaign.model_copy(update=changed)


def _check_same_network(settled: Campaign, choices: Choices, weights: UnloadedModel) -> None:
    """Raises ConfigError where a precision was compared for another network than the campaign has now."""
    chosen = choices.precision
    if chosen is None or chosen.precision == "fp32" or settled.precision != chosen.precision:
        return
    quantized = int8_engine(settled, weights).content["quantized"] if chosen.precision == "int8" else None
    now = (weights.weights_hash, recipe_digest(weights), quantized)
    if now != (chosen.weights_sha256, chosen.recipe_digest, chosen.quantized_sha256):
        raise ConfigError(
            f"precision: auto was resolved to {chosen.precision} for other weights, another recipe or another "
            f"quantized network: {RE_RESOLVE}"
        )


def _check_agreement(campaign: Campaign, choices: Choices) -> None:
    """Raises ConfigError where the campaign demands more agreement now than was shown of the chosen precision."""
    chosen, needed = choices.precision, campaign.minimum_agreement
    if chosen and chosen.agreement is not None and (needed is None or chosen.agreement < needed):
        raise ConfigError(
            f"precision: auto was resolved to {chosen.precision}, which agrees with fp32 on {chosen.agreement:.2%} of "
            f"the pixels, and minimum_agreement is {'not set' if needed is None else needed} now: {RE_RESOLVE}"
        )


def _read(campaign: Campaign) -> Choices | None:
    path = choices_file(campaign)
    try:
        return read_checked(Choices, path, former=())
    except FileNotFoundError:
        return None
    except DocumentError as error:
        raise ProductError(f"{path} is damaged: {error}; put it back, or delete it and plan again") from error


def _write_more(path: Path, choices: Choices) -> Choices:
    write_json(path, choices.model_dump(mode="json"), own_checksum=True)
    return choices


def _write_first(campaign: Campaign, choices: Choices) -> Choices:
    """Writes the file where there is none; if another run was faster, returns its choices instead."""
    path = choices_file(campaign)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        _write_more(temporary, choices)
    except OutOfSpaceError:
        raise
    except StorageError as error:
        cause = getattr(error.__cause__, "strerror", None) or error
        raise StorageError(
            f"{path}: cannot be written: {cause}. The first plan keeps there what `auto` is resolved to; run it once "
            "as a user and on a machine that may write there"
        ) from error
    try:
        link_or_copy(temporary, path)
    except FileExistsError:
        return _read(campaign) or choices
    finally:
        temporary.unlink(missing_ok=True)
    return choices
