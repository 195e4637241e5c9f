"""The commands `demo`, `bench` and `doctor`: try the pipeline out, measure and check this machine."""

from pathlib import Path
from typing import Annotated

from rich.table import Column, Table
from rich.text import Text

from pipeline.cli import options
from pipeline.cli.help import argument, command, option
from pipeline.cli.output import cell, console, count, save_json, say
from pipeline.durable import write_json
from pipeline.errors import MachineError


@command(
    "landcover doctor",
    "landcover doctor campaign.yaml --json doctor.json",
)
def doctor(
    config: Annotated[Path | None, argument("CONFIG", "A campaign's YAML file.")] = None,
    domain: Annotated[
        str | None, option("--domain NAME", "Also write doctor.json into this domain's product folder.")
    ] = None,
    json_file: options.JsonFile = None,
) -> None:
    """Check packages, GDAL, GPUs and SLURM, and what a campaign needs.

    With a campaign, its weights, engine and disks are checked too. On a login node this also downloads weights from a
    hub into the cache that compute nodes read.
    """
    campaign = options.open_campaign(config, [domain] if domain else None) if config else None
    from pipeline.runs.diagnostics.doctor import DOCTOR_FILE, diagnose

    findings = diagnose(campaign)
    save_json(json_file, findings.as_json(), "findings")
    if campaign and domain:
        folder = campaign.output.domains / domain
        write_json(folder / DOCTOR_FILE, findings.as_json())
    colors = {"ok": "green", "warn": "yellow", "fail": "red"}
    table = Table("", "check", Column("found", overflow="fold"), box=None, pad_edge=False, show_header=False)
    for c in findings.checks:
        found = Text("\n→ ").join(map(cell, filter(None, (c.found, c.remedy))))
        table.add_row(cell(c.state, colors[c.state]), cell(c.name), found)
    console.print(table)
    if findings.failed:
        raise MachineError(
            f"{count(len(findings.failed), 'check')} failed on {findings.host}: "
            f"{', '.join(c.name for c in findings.failed)}. The lines marked → say how to fix this."
        )
    say(f"no check failed on {findings.host}")


@command("landcover bench engines halo --out build/bench")
def bench(
    names: Annotated[
        list[str] | None,
        argument(
            "NAME",
            "What to measure: engines, feed, run, halo, quantize (these five by default), ensemble, gpu; in a checkout "
            "also areas, coverage, growth, nation, novelty, publish, rehearsal, train, vectorize, view, windows.",
        ),
    ] = None,
    out: Annotated[Path, option("--out FOLDER", "Where results, figures and made-up imagery go.")] = Path(
        "build/bench"
    ),
    data: Annotated[Path, option("--data FOLDER", "Folder with real patches and weights.")] = Path("../shared/data"),
    quick: Annotated[
        bool, option("--quick", "Use 1 Mpx instead of 100: a check that it works, not a measurement.")
    ] = False,
    minutes: Annotated[
        float | None, option("--minutes N", "For gpu: start no measurement after so many minutes.", min=0)
    ] = None,
    loader: Annotated[
        bool, option("--loader", "For train: the loader and the step side by side, not a training.")
    ] = False,
    full_size: Annotated[
        bool, option("--full-size", "For rehearsal and publish: tiles of 25 000 px; takes an hour or more.")
    ] = False,
) -> None:
    """Measure speed on this machine.

    Each measurement writes NAME.json and NAME.png. The speeds of engines, feed, run and gpu are also saved in the
    cache folder, where `landcover plan` finds them.
    """
    from pipeline.bench.suite import run_benches

    run_benches(
        names or (),
        out=out,
        data=data,
        quick=quick,
        on_message=say,
        full_size=full_size,
        loader=loader,
        minutes=minutes,
    )


@command("landcover demo --out build/demo")
def demo(
    out: Annotated[Path, option("--out FOLDER", "A new folder, or an earlier demo's, which is replaced.")] = Path(
        "build/demo"
    ),
) -> None:
    """Run the whole pipeline on a small made-up country.

    Takes some minutes: imagery is generated, a small network is trained on part of it, and everything is mapped and
    published. Afterwards every command can be tried on the demo's campaign.yaml.
    """
    from pipeline.demo.walkthrough import run_demo

    run_demo(out, on_message=say)
