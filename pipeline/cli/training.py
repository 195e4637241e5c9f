"""Commands that make networks: patches and train."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.options import console, log, progress_bar
from pipeline.config import DEFAULT_RECIPE
from pipeline.domain import Domain
from pipeline.legend import Nomenclature

app = typer.Typer()


@app.command(
    epilog="Example: landcover patches CoSIA_D034_2021.gpkg --field numero --reference-as cosia --catalog catalog "
    "--domain D034_2021 --out patches"
)
def patches(
    reference: Annotated[
        Path, typer.Argument(metavar="REFERENCE", help="Raster or polygons of classes.", show_default=False)
    ],
    *,
    catalog: Annotated[Path, typer.Option("--catalog", help="The input catalogue's folder.")],
    domain: Annotated[str, typer.Option("--domain", help="The domain whose imagery is cut.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the set, in FLAIR's layout.")],
    reference_as: Annotated[
        Nomenclature, typer.Option("--reference-as", help="What the reference's numbers mean.")
    ] = "flair19",
    field: Annotated[str, typer.Option("--field", help="Attribute of the polygons that holds the number.")] = "",
    size: Annotated[int, typer.Option("--size", min=32, help="Pixels a side of a patch.")] = 512,
    least: Annotated[
        float, typer.Option("--least", min=0, max=1, help="Share of a patch that has to be labelled.")
    ] = 0.5,
    recipe: Annotated[str, typer.Option("--recipe", help="Its bands are cut.")] = DEFAULT_RECIPE,
    tile_m: Annotated[int, typer.Option("--tile-m", min=10, help="Side of a tile in metres.")] = 5_000,
) -> None:
    """Cut labelled patches from a domain's imagery and a reference; a tile is a zone."""
    from pipeline.sources.labels.reference import Reference
    from pipeline.training.patch_cutting import cut_patches

    with progress_bar("patches") as progress:
        done = cut_patches(
            Reference.open(reference, nomenclature=reference_as, field=field),
            catalog=catalog,
            domain=Domain(domain),
            out=out,
            recipe=recipe,
            tile_m=tile_m,
            size=size,
            least=least,
            progress=progress,
        )
    console.print(f"{len(done)} patches in {out}", soft_wrap=True)


@app.command(epilog="Example: landcover train configs/training/flair-inc_rgbie_12cl.yaml --out trained")
def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="The training run's YAML.", show_default=False)],
    *,
    out: Annotated[Path, typer.Option("--out", help="Folder of checkpoints, logs, figures and weights.")],
    restart: Annotated[bool, typer.Option("--restart", help="Begin anew although there is a checkpoint.")] = False,
    devices: Annotated[
        int | None, typer.Option("--devices", min=1, help="Processes a node, instead of the YAML's number.")
    ] = None,
    nodes: Annotated[int | None, typer.Option("--nodes", min=1, help="Nodes, instead of the YAML's number.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar, for logs.")] = False,
) -> None:
    """Train a network on labelled patches; killed, run it again and it goes on from the last epoch."""
    from pipeline.training.fit import fit
    from pipeline.training.run_config import load_training_config

    asked = {"devices": devices, "nodes": nodes}
    run = load_training_config(config).model_copy(update={k: v for k, v in asked.items() if v is not None})
    done = fit(run, out, restart=restart, progress_bar=not quiet, on_message=log.info)
    if not done.first_process:
        return
    found = done.trained.evaluation.scored(done.trained.evaluation.mode)
    console.print(
        f"best epoch {done.trained.epoch} of {done.trained.epochs}: val_loss {done.trained.val_loss:.4f}, overall "
        f"accuracy {100 * found['oa']:.2f} %, mIoU {100 * found['miou']:.2f} %; {done.files.weights}, "
        f"{done.files.card}",
        soft_wrap=True,
    )
