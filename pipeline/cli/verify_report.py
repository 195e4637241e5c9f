"""The commands `verify`, `report` and `view`: is the product intact, how good is it, and how does it look."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pipeline.cli import options
from pipeline.cli.help import command, option
from pipeline.cli.output import count, progress_bar, save_json, say, say_next, shown
from pipeline.errors import VerifyFailed

if TYPE_CHECKING:
    from pipeline.runs.quality.verify import Verification


@command("landcover verify campaign.yaml --json verify.json")
def verify(config: options.Config, json_file: options.JsonFile = None) -> None:
    """Read all tiles and the national store again and check them.

    Every COG is compared with its checksum and its STAC item, and class changes across edges are counted. The exit
    code is 4 if anything is wrong or a domain exceeds one of the campaign's limits.
    """
    campaign = options.open_campaign(config)
    from pipeline.runs.quality.quality_metrics import seam_remedy
    from pipeline.runs.quality.verify import verify as read_again

    with progress_bar("verify") as progress:
        verified = read_again(campaign, progress=progress)
    for d in verified.domains:
        tiles, files = count(d.tiles, "tile"), count(d.files, "file")
        say(f"{d.domain}: {tiles}, {files} read; {len(d.missing)} missing, {count(len(d.problems), 'problem')}")
    nation = verified.nation
    if nation.problems is None:
        say("national product: nothing is published")
    else:
        say(f"national product: {count(len(nation.problems), 'problem')}")
    if not nation.manifest:
        say("national product: has no manifest; an older version wrote it. The next edition has one")
    say("class changes at edges, relative to those nearby (1 is seamless):")
    for kind, ratio in verified.metrics.seams.ratios.items():
        remedy = seam_remedy(campaign, ratio)
        say(f"  {f'{kind} edges':<15} {ratio or 'none'}{remedy and f': {remedy}'}")
    if verified.borders:
        say(f"  {'domain borders':<15} {verified.borders} (imagery of another date begins there)")
    save_json(json_file, verified.as_json(), "results")
    if not verified.clean:
        raise VerifyFailed(
            "\n  ".join(["the product is damaged or incomplete:", *_problems(verified), *_repairs(config, verified)])
        )
    say("no problem found; all limits of the campaign are met")
    say_next("publish", config)


def _problems(verified: "Verification") -> list[str]:
    """A line for each problem and each limit that is exceeded."""
    problems = [f"{d.domain} {problem}" for d in verified.domains for problem in d.problems]
    for d in verified.domains:
        problems += [str(e) for e in d.exceeded]
        if any(e.figure == "missing_tiles" for e in d.exceeded):
            problems += [f"{d.domain} {name}: not sealed" for name in d.missing]
    return [*problems, *(verified.nation.problems or ())]


def _repairs(config: Path, verified: "Verification") -> list[str]:
    """The commands that write again what is damaged, in the order in which they are to be run."""
    commands: list[tuple[object, ...]] = []
    for d in verified.domains:
        if d.damaged:
            tiles = [word for name in d.damaged for word in ("--tile", name)]
            commands.append(("run", config, "--force", "--domain", d.domain, *tiles))
        if d.incomplete:
            commands.append(("run", config, "--domain", d.domain))
    nation = verified.nation
    if nation.restore and nation.edition:
        commands.append(("editions", config, "--restore", nation.edition.number))
    if nation.publish or (nation.problems is not None and any(d.damaged or d.beside for d in verified.domains)):
        commands.append(("publish", config, "--recheck"))
    if nation.report or any(d.report for d in verified.domains):
        commands.append(("report", config))
    commands += [("vectorize", config, *nation.vectorize_options(name)) for name in nation.vectors]
    lines = [f"landcover {shlex.join(str(word) for word in words)}" for words in commands]
    return ["to write damaged files again:", *lines] if lines else []


@command("landcover report campaign.yaml --domain D034_2021")
def report(config: options.Config, domain: options.Domains = None) -> None:
    """Write an HTML report for each domain and for the current edition.

    Each report/report.html is a page that needs no other file. With --domain, only the pages of these domains are
    written.
    """
    campaign = options.open_campaign(config, domain)
    from pipeline.runs.quality.write_reports import write_reports

    with progress_bar("report") as progress:
        pages = write_reports(campaign, domains=domain or (), progress=progress)
    for path in pages:
        say(f"report: {shown(path)}")


@command("landcover view campaign.yaml", "landcover view campaign.yaml --edition 2 --port 8080")
def view(
    config: options.Config,
    edition: Annotated[int | None, option("--edition N", "Show edition N instead of the current one.")] = None,
    port: Annotated[int, option("--port N", "Port to listen on; by default any free one.", min=0, max=65535)] = 0,
    no_browser: Annotated[bool, option("--no-browser", "Only print the address.")] = False,
) -> None:
    """Show the map of an edition in a browser, until Ctrl+C.

    The address has a token and works on this machine only; through SSH, forward the port that is printed:
    ssh -L PORT:127.0.0.1:PORT HOST. No request goes to another host.
    """
    campaign = options.open_campaign(config)
    import contextlib
    import webbrowser

    from pipeline.runs.viewing.view import prepare_view

    shown_view = prepare_view(campaign, edition)
    with shown_view.serve(port) as server:
        address = server.address(shown_view.page)
        say(f"edition {shown_view.edition.number}: {address}")
        say("Ctrl+C ends it")
        if not no_browser:
            webbrowser.open(address)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
