"""`auto` in a campaign: chosen once by memory and by what was shown on unseen domains, kept, and changed on request."""

import errno
import json
import platform
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from distributed import Client
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.cluster.slurm.site import load_site
from pipeline.config import Campaign, GridSection, Precision, load_campaign, load_recipe
from pipeline.errors import ConfigError, EngineError, ProductError, StorageError
from pipeline.halo import Layout
from pipeline.inference import Engine
from pipeline.inference.engine import missing_instructions
from pipeline.inference.memory_projection import project_memory
from pipeline.inference.quantized_model import recipe_digest
from pipeline.runs.mapping.run import ResidentModel, run
from pipeline.runs.planning import choosing
from pipeline.runs.planning.agreement_report import AgreementReport, MeasuredPrecision, agreement_file
from pipeline.runs.planning.automatic_choices import choices_file, refuse_unable, with_choices
from pipeline.runs.planning.choosing import largest_windows
from pipeline.runs.planning.plan import RunPlan, make_plan
from pipeline.runs.planning.resolved_campaign import resolve
from pipeline.runs.slurm.submit import campaign_on_site
from tests.support.campaigns import Made, make_campaign

GB = 1_000_000_000
CLUSTER = {"gdal_cache_mb": 64, "decoded_cache_mb": 64}


@pytest.fixture(scope="module")
def stated(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Two tiles of 500 px."""
    return make_campaign(tmp_path_factory.mktemp("stated"), at=[(0, 0), (0, 1)])


@pytest.fixture
def made(stated: Made) -> Made:
    """Its tile and halo are stated, all other sizes and the precision are `auto`; nothing is mapped or chosen yet."""
    shutil.rmtree(stated.products, ignore_errors=True)
    content = yaml.safe_load(stated.config.read_text())
    content.pop("minimum_agreement", None)
    stated.config.write_text(yaml.safe_dump(content))
    grid = {"auto": True, "tile": 500, "halo": 32}
    return stated.change(grid=grid, precision="auto", cluster=CLUSTER | {"memory_bytes": 8 * GB})


def fingerprints(plan: RunPlan) -> list[str]:
    return [tile.fingerprint for domain in plan.domains for tile in domain.tiles]


def show_agreement(campaign: Campaign, shown: Mapping[Precision, tuple[float, float]], **changes: Any) -> None:
    """A report as `landcover quantize --check` writes it: precision → (agreement, Mpx/s)."""
    weights = resolve(campaign.model_copy(update={"precision": "fp32", "minimum_agreement": None})).weights
    about: dict[str, Any] = {
        "weights_sha256": weights.weights_hash,
        "recipe_digest": recipe_digest(weights),
        "engine": "torch",
        "windows": 4,
        "host": "n12",
        "processor": "a processor",
        "made": "2026-03-01T12:00:00Z",
    }
    measured = {
        name: MeasuredPrecision(agreement=share, by_domain={"D034_2021": share}, mpx_per_s=speed)
        for name, (share, speed) in {"fp32": (1.0, 1.0), **shown}.items()
    }
    AgreementReport(**about | {"precisions": measured} | changes).write(agreement_file(campaign))


def test_a_campaign_with_auto_has_the_fingerprints_of_one_that_states_the_values(made: Made) -> None:
    plan = make_plan(made.campaign)
    layout = plan.resolved.layout
    assert (layout.core, layout.halo, layout.window) == (500, 32, 608)
    grid = {"tile": 500, "block": 500, "core": 500, "halo": 32, "window": 608}
    made.change(grid=grid)
    choices = resolve(made.campaign).choices
    assert choices is not None
    assert (choices.now.windows, choices.now.precision is None) == (None, False), "only what is auto is shown"
    made.change(precision="fp32")
    assert fingerprints(make_plan(made.campaign)) == fingerprints(plan)


def test_choices_are_kept_for_later_runs_whatever_their_memory(made: Made) -> None:
    first = make_plan(made.campaign)
    kept = choices_file(made.campaign).read_bytes()
    made.change(cluster=CLUSTER | {"memory_bytes": int(1.5 * GB)})
    assert fingerprints(make_plan(made.campaign)) == fingerprints(first)
    assert choices_file(made.campaign).read_bytes() == kept
    assert with_choices(made.campaign).grid.window == first.resolved.layout.window


def test_a_plan_that_chooses_again_counts_tiles_and_the_run_keeps_it(made: Made, dask_client: Client) -> None:
    show_agreement(with_stated_grid(made), {"bf16": (0.98, 2.0)})
    made.change(minimum_agreement=0.99)
    run(make_plan(made.campaign), client=dask_client)
    record = json.loads((made.products / made.delivery.domain / "run.json").read_text())["campaign"]
    assert record["grid"] == {"tile": 500, "block": 500, "core": 500, "halo": 32, "window": 608}
    assert record["precision"] == "fp32"
    kept = choices_file(made.campaign).read_bytes()
    assert not make_plan(made.campaign).todo
    made.change(minimum_agreement=0.97)
    plan = make_plan(made.campaign, re_resolve=True)
    assert plan.resolved.engine.precision == "bf16"
    assert (plan.todo, plan.remapped) == (2, 2)
    assert choices_file(made.campaign).read_bytes() == kept, "a plan changes nothing"
    assert not make_plan(made.campaign).todo
    result = CliRunner().invoke(app, ["plan", str(made.config), "--re-resolve"])
    assert result.exit_code == 0, result.output
    assert "2 sealed tiles would be mapped again; nothing is changed yet" in " ".join(result.output.split())
    assert "not counted" not in result.output
    made.change(domains=[{"name": made.delivery.domain}, {"name": "D064_2021"}])
    result = CliRunner().invoke(app, ["plan", str(made.config), "--re-resolve", "--domain", made.delivery.domain])
    assert "not counted: 1 other domain of the campaign" in result.output
    made.change(domains=[{"name": made.delivery.domain}])
    choices = plan.resolved.choices
    assert choices is not None
    choices.keep()
    assert make_plan(made.campaign).resolved.engine.precision == "bf16"


def with_stated_grid(made: Made) -> Campaign:
    """The campaign with sizes that nobody has to choose."""
    content = yaml.safe_load(made.config.read_text())
    path = made.folder / "stated.yaml"
    path.write_text(yaml.safe_dump(content | {"grid": {"tile": 500, "block": 500, "core": 500, "window": 864}}))
    return load_campaign(path)


@pytest.mark.parametrize(
    ("minimum", "precisions", "changes", "chosen", "because"),
    [
        (None, {"bf16": (1.0, 2.0)}, {}, "fp32", "minimum_agreement is not set"),
        (0.99, {"bf16": (0.991, 2.0)}, {}, "bf16", "99.10% of the pixels agree in the least unseen domain"),
        (0.99, {"bf16": (0.989, 2.0)}, {}, "fp32", "nothing faster agrees"),
        (0.99, {"bf16": (0.999, 0.9)}, {}, "fp32", "nothing faster agrees"),
        (0.99, {"bf16": (0.991, 2.0), "fp16": (0.995, 3.0)}, {}, "fp16", "3.0 × as fast"),
        (0.99, {"int8": (1.0, 9.0)}, {}, "fp32", "int8 agrees, but the campaign has no model.quantized"),
        (0.99, {"bf16": (1.0, 2.0)}, {"weights_sha256": "0" * 64}, "fp32", "other weights"),
        (0.99, {"bf16": (1.0, 2.0)}, {"engine": "openvino"}, "fp32", "another engine"),
    ],
)
def test_a_precision_is_chosen_only_where_its_agreement_was_shown(
    made: Made,
    minimum: float | None,
    precisions: Mapping[Precision, tuple[float, float]],
    changes: Mapping[str, Any],
    chosen: str,
    because: str,
) -> None:
    campaign = with_stated_grid(made).model_copy(update={"minimum_agreement": minimum})
    show_agreement(campaign, precisions, **changes)
    choices = resolve(campaign).choices
    assert choices is not None
    assert choices.now.precision is not None
    assert choices.now.precision.precision == chosen
    assert because in choices.now.precision.because


def test_the_domain_that_agrees_least_decides(made: Made) -> None:
    campaign = with_stated_grid(made).model_copy(update={"minimum_agreement": 0.99})
    both = MeasuredPrecision(agreement=0.995, by_domain={"D034_2021": 0.999, "D064_2021": 0.981}, mpx_per_s=2.0)
    fp32 = MeasuredPrecision(agreement=1.0, by_domain={"D034_2021": 1.0}, mpx_per_s=1.0)
    show_agreement(campaign, {}, precisions={"fp32": fp32, "bf16": both})
    assert resolve(campaign).engine.precision == "fp32"


def test_without_a_report_the_precision_is_fp32(made: Made) -> None:
    campaign = with_stated_grid(made).model_copy(update={"minimum_agreement": 0.9})
    assert resolve(campaign).engine == Engine("torch", "fp32")


def test_a_report_or_choices_that_were_edited_are_refused(made: Made) -> None:
    campaign = with_stated_grid(made).model_copy(update={"minimum_agreement": 0.99})
    show_agreement(campaign, {"bf16": (0.981, 2.0)})
    path = agreement_file(campaign)
    path.write_text(path.read_text().replace("0.981", "0.991"))
    with pytest.raises(ProductError, match=r"checksum mismatch.*run `landcover quantize --check` again"):
        resolve(campaign)
    path.unlink()
    resolve(campaign)
    path = choices_file(campaign)
    kept = json.loads(path.read_text())
    path.write_text(path.read_text().replace("fp32", "bf16"))
    with pytest.raises(ProductError, match=r"checksum mismatch.*delete it and plan again"):
        resolve(campaign)
    del kept["landcover:sha256"]
    path.write_text(json.dumps(kept))
    with pytest.raises(ProductError, match="its landcover:sha256 was changed or removed"):
        resolve(campaign)


def test_a_chosen_precision_is_refused_for_other_weights(made: Made) -> None:
    campaign = with_stated_grid(made).model_copy(update={"minimum_agreement": 0.99})
    show_agreement(campaign, {"bf16": (0.995, 2.0)})
    assert resolve(campaign).engine == Engine("torch", "bf16")
    weights = Path(campaign.weights)
    other = made.folder / "other.pth"
    other.write_bytes(weights.read_bytes() + b"\0")
    model = campaign.model.model_copy(update={"weights": str(other)})
    with pytest.raises(ConfigError, match=r"resolved to bf16 for other weights.*--re-resolve"):
        resolve(campaign.model_copy(update={"model": model}))
    with pytest.raises(ConfigError, match=r"bf16 by torch, and the campaign's engine is openvino here"):
        resolve(campaign.model_copy(update={"engine": "openvino"}))


def test_a_chosen_precision_is_refused_where_more_agreement_is_demanded(made: Made) -> None:
    campaign = with_stated_grid(made).model_copy(update={"minimum_agreement": 0.99})
    show_agreement(campaign, {"bf16": (0.995, 2.0)})
    for less in (0.99, 0.995):
        assert resolve(campaign.model_copy(update={"minimum_agreement": less})).engine.precision == "bf16"
    for more in (0.996, None):
        changed = campaign.model_copy(update={"minimum_agreement": more})
        with pytest.raises(ConfigError, match=rf"agrees .* 99\.50% .* is {more or 'not set'} now.*--re-resolve"):
            resolve(changed)
        assert resolve(changed, again=True).engine.precision == "fp32"


def test_another_tile_or_halo_needs_another_choice(made: Made) -> None:
    make_plan(made.campaign)
    made.change(grid={"auto": True, "tile": 500, "halo": 64})
    with pytest.raises(ConfigError, match=r"resolved for tiles of 500 px and a halo of 32 px, and now .* 64 px"):
        make_plan(made.campaign)
    assert make_plan(made.campaign, re_resolve=True).resolved.layout.halo == 64


def test_a_command_that_only_reads_needs_a_plan_first(made: Made) -> None:
    result = CliRunner().invoke(app, ["verify", str(made.config)])
    assert "`auto` is not resolved yet; run `landcover plan` first" in " ".join(str(result.exception).split())
    assert not choices_file(made.campaign).exists()


def test_choosing_again_leads_out_of_changed_tiles_though_windows_stay(made: Made) -> None:
    cluster = made.campaign.cluster.model_copy(update={"memory_bytes": 40 * GB})
    large, small = (
        with_stated_grid(made).model_copy(
            update={"grid": GridSection(auto=True, tile=tile, halo=32), "cluster": cluster, "precision": "fp32"}
        )
        for tile in (10_000, 5_000)
    )
    assert resolve(large).campaign.grid.window == resolve(small, again=True).campaign.grid.window
    with pytest.raises(ConfigError, match=r"resolved for tiles of 10000 px"):
        resolve(small)
    again = resolve(small, again=True)
    assert again.choices is not None
    again.choices.keep()
    assert resolve(small).campaign.grid.tile == 5_000


def test_choosing_again_leads_out_of_changed_weights_of_equal_figures(made: Made) -> None:
    campaign = with_stated_grid(made).model_copy(update={"minimum_agreement": 0.99})
    show_agreement(campaign, {"bf16": (0.995, 2.0)})
    resolve(campaign)
    other = made.folder / "other.pth"
    other.write_bytes(Path(campaign.weights).read_bytes() + b"\0")
    model = campaign.model.model_copy(update={"weights": str(other)})
    changed = campaign.model_copy(update={"model": model})
    show_agreement(changed, {"bf16": (0.995, 2.0)})
    with pytest.raises(ConfigError, match="for other weights"):
        resolve(changed)
    assert resolve(changed, again=True).engine == Engine("torch", "bf16")


def test_why_a_precision_that_agrees_is_not_usable_is_said(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    campaign = with_stated_grid(made).model_copy(update={"minimum_agreement": 0.99})
    show_agreement(campaign, {"bf16": (0.995, 2.0), "int8": (1.0, 3.0)})
    monkeypatch.setattr(choosing, "missing_instructions", lambda _: "avx512_bf16 or amx_bf16")
    network = campaign.model.model_copy(update={"quantized": made.folder / "model.xml", "tta": "d4"})
    for model, why in ((campaign.model, "the campaign has no model.quantized"), (network, "gives no probabilities")):
        choices = resolve(campaign.model_copy(update={"model": model})).choices
        assert choices is not None
        assert choices.now.precision is not None
        assert choices.now.precision.precision == "fp32"
        assert why in choices.now.precision.because
        assert f"bf16 agrees, but the processor of {platform.node()} lacks avx512_bf16" in choices.now.precision.because
        choices.path.unlink()


def test_a_run_whose_kept_windows_exceed_the_memory_says_how_to_choose_again(made: Made) -> None:
    make_plan(made.campaign)
    made.change(cluster=CLUSTER | {"memory_bytes": int(1.2 * GB)})
    with pytest.raises(ConfigError, match=r"allows 1\.20 GB.*chose these sizes for .* of 8\.00 GB.*--re-resolve"):
        run(make_plan(made.campaign))


def test_windows_for_the_gpus_of_a_site_need_the_limit_of_their_memory(made: Made) -> None:
    site = load_site("jean-zay-v100")
    with pytest.raises(ConfigError, match=r"jean-zay-v100 needs cluster\.device_memory_bytes"):
        campaign_on_site(site, made.campaign.model_copy(update={"engine": "auto"}))
    made.change(cluster=CLUSTER | {"memory_bytes": 8 * GB, "device_memory_bytes": 28 * GB})
    assert campaign_on_site(site, made.campaign).engine == "torch"


def test_choices_that_cannot_be_written_are_an_error_that_names_their_file(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(path: Path, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "mkdir", read_only)
    monkeypatch.setattr(Path, "unlink", read_only)
    with pytest.raises(StorageError, match=r"products/tiny-auto\.json: cannot be written: Read-only .*run it once as"):
        make_plan(made.campaign)


@pytest.mark.parametrize("gigabytes", [8, 10, 12, 16, 40])
def test_windows_are_the_largest_that_fit_into_the_memory(tmp_path: Path, gigabytes: int) -> None:
    content = {"name": "test", "catalog": "c", "model": {"weights": "w.pth"}, "domains": [{"name": "D064_2021"}]}
    path = tmp_path / "campaign.yaml"
    path.write_text(yaml.safe_dump(content | {"grid": "auto", "cluster": {"memory_bytes": gigabytes * GB}}))
    campaign, recipe, engine = (
        load_campaign(path),
        load_recipe("flair-inc_rgbie_12cl_resnet34-unet"),
        Engine("openvino"),
    )
    found = largest_windows(campaign, recipe, engine)
    layout = Layout(found.core, found.halo, found.window, recipe.stride)
    layout.check_block(found.block, 25_000)
    cluster = campaign.cluster
    rest = {
        name: getattr(cluster, name) for name in ("threads", "tiles_in_flight", "gdal_cache_mb", "decoded_cache_mb")
    }

    def fits(layout: Layout, block: int) -> bool:
        memory = project_memory(layout, engine, recipe=recipe, tile=25_000, block=block, **rest)
        return memory.total <= gigabytes * GB

    assert fits(layout, found.block)
    # The plain rule, over every core that divides the tile, each as its own block.
    cores = [core for core in range(500, 5_001) if 25_000 % core == 0 and fits(Layout.for_core(core, 160, 32), core)]
    assert found.core == max(cores)


def test_memory_that_is_too_small_and_sizes_beside_auto_are_refused(made: Made) -> None:
    made.change(cluster=CLUSTER | {"memory_bytes": GB})
    with pytest.raises(ConfigError, match=r"finds no windows for a tile of 500 px: a worker would take up to"):
        make_plan(made.campaign)
    made.change(cluster=CLUSTER)
    with pytest.raises(ConfigError, match=r"grid: auto needs cluster\.memory_bytes"):
        _ = made.campaign
    made.change(grid={"auto": True, "core": 500, "window": 608})
    with pytest.raises(ConfigError, match="auto chooses block, core and window; remove core, window"):
        _ = made.campaign
    made.change(grid={"tile": 500, "block": 500, "core": 500}, precision="fp32", minimum_agreement=0.9)
    with pytest.raises(ConfigError, match="minimum_agreement is for precision: auto"):
        _ = made.campaign


def test_a_machine_that_cannot_run_what_was_chosen_is_refused_by_name(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_text("processor : 0\nflags : fpu avx2 avx512f\n")
    new.write_text("processor : 0\nflags : fpu avx512f avx512_bf16 avx512_vnni\n")
    for precision, needed in (("bf16", "avx512_bf16 or amx_bf16 or bf16"), ("int8", "avx512_vnni or avx_vnni")):
        engine = Engine("openvino", precision)  # type: ignore[arg-type]
        assert missing_instructions(engine, old).startswith(needed)
        assert not missing_instructions(engine, new)
    assert not missing_instructions(Engine("torch", "bf16"), old)
    with pytest.raises(EngineError, match=r"^n12: the campaign's windows take up to 9\.00 GB .*has 8\.00 GB.*--re-res"):
        refuse_unable(Engine("openvino"), host="n12", needed_bytes=9 * GB, memory_bytes=8 * GB)
    refuse_unable(Engine("openvino"), host="n12", needed_bytes=9 * GB, memory_bytes=None)


def test_a_worker_with_too_little_memory_is_refused_before_it_loads_the_network(made: Made) -> None:
    plan = make_plan(made.campaign)
    worker: Any = SimpleNamespace(memory_manager=SimpleNamespace(memory_limit=8 * GB))
    resident = ResidentModel(plan.resolved.method, 1, needed_bytes=9 * GB)
    with pytest.raises(EngineError, match=rf"^{platform.node()}: .* take up to 9\.00 GB"):
        resident.setup(worker)
