"""The commands `patches` and `train`: labelled data and networks of one's own."""

from pathlib import Path
from typing import Annotated

from pipeline.cli.help import argument, command, option
from pipeline.cli.options import (
    BD_ORTHO_TILE_M,
    CatalogOption,
    FieldOption,
    NomenclatureOption,
    OneDomainOption,
    RecipeOption,
    TileSizeOption,
    log,
    progress_bar,
    say,
    shown,
)
from pipeline.config import DEFAULT_RECIPE


@command(
    "landcover patches CoSIA_D034_2021.gpkg --field numero --reference-as cosia \\\n"
    "    --catalog catalog --domain D034_2021 --out patches",
)
def patches(
    reference: Annotated[Path, argument("REFERENCE", "Raster or polygons of classes.", exists=True)],
    catalog: CatalogOption,
    domain: OneDomainOption,
    out: Annotated[Path, option("--out FOLDER", "Where the patches go, laid out as FLAIR.")],
    reference_as: NomenclatureOption = "flair19",
    field: FieldOption = "",
    size: Annotated[int, option("--size N", "Side of a patch in pixels.", min=32)] = 512,
    least: Annotated[
        float, option("--least X", "Smallest share of a patch that must be labelled.", min=0, max=1)
    ] = 0.5,
    recipe: RecipeOption = DEFAULT_RECIPE,
    tile_m: TileSizeOption = BD_ORTHO_TILE_M,
) -> None:
    """Cut labelled training patches from a domain's imagery.

    The recipe says which bands they have. All patches of one tile form one zone.
    """
    from pipeline.sources.labels.reference import Reference
    from pipeline.training.patch_cutting import cut_patches

    with progress_bar("patches") as progress:
        done = cut_patches(
            Reference.open(reference, nomenclature=reference_as, field=field),
            catalog=catalog,
            domain=domain,
            out=out,
            recipe=recipe,
            tile_m=tile_m,
            size=size,
            least=least,
            progress=progress,
        )
    say(f"{len(done)} patches written in {shown(out)}")


@command("landcover train configs/training/flair-inc_rgbie_12cl.yaml --out trained")
def train(
    config: Annotated[Path, argument("CONFIG", "The training run's YAML file.", exists=True)],
    out: Annotated[Path, option("--out FOLDER", "Where checkpoints, logs, figures and weights go.")],
    restart: Annotated[bool, option("--restart", "Start from the first epoch, even if there is a checkpoint.")] = False,
    devices: Annotated[
        int | None, option("--devices N", "Processes per node, instead of the YAML's number.", min=1)
    ] = None,
    nodes: Annotated[int | None, option("--nodes N", "Nodes, instead of the YAML's number.", min=1)] = None,
    quiet: Annotated[bool, option("--quiet", "Show no progress bar.")] = False,
) -> None:
    """Train a network on labelled patches.

    After an interruption run the same command again: it resumes from the last epoch.
    """
    from pipeline.training.fit import fit
    from pipeline.training.run_config import load_training_config

    numbers = {name: n for name, n in (("devices", devices), ("nodes", nodes)) if n is not None}
    run = load_training_config(config).model_copy(update=numbers)
    done = fit(run, out, restart=restart, progress_bar=not quiet, on_message=log.info)
    if not done.first_process:
        return
    scores = done.trained.evaluation.scored(done.trained.evaluation.mode)
    say(f"best epoch: {done.trained.epoch} of {done.trained.epochs}, validation loss {done.trained.val_loss:.4f}")
    say(f"overall accuracy {100 * scores['oa']:.2f} %, mIoU {100 * scores['miou']:.2f} %")
    say(f"weights: {shown(done.files.weights)}")
    say(f"model card: {shown(done.files.card)}")
