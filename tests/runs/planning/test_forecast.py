"""Plans and forecasts: why each tile is mapped, and the resources of a run."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.config import DEFAULT_RECIPE
from pipeline.errors import ConfigError, StorageError
from pipeline.inference import Engine
from pipeline.runs.planning.forecast import Machine, described_machine, duration, forecast, rates_for, this_machine
from pipeline.runs.planning.plan import RunPlan, make_plan
from pipeline.runs.planning.throughput import (
    CPU,
    STATED,
    MeasuredRate,
    Rate,
    Rates,
    find_rates,
    processor,
    read_rates,
    save_rates,
)
from pipeline.runs.planning.totals import domain_totals, plan_totals
from tests.support.campaigns import Made, make_campaign

ROUND = Rates("a100", *(Rate(value, "stated: round") for value in (100.0, 5.0, 20.0, 0.5)))
HERE = MeasuredRate("infer", 2.0, "n1", "Xeon", "2026-03-01", "openvino", "fp32", DEFAULT_RECIPE, CPU)
FP32 = Engine("openvino")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of each test, where no rates were measured."""
    monkeypatch.setenv("LANDCOVER_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_campaign(tmp_path_factory.mktemp("forecast"))


@pytest.fixture(scope="module")
def plan(made: Made) -> RunPlan:
    return make_plan(made.campaign)


def test_totals_agree_with_the_windows_of_all_blocks(made: Made, plan: RunPlan) -> None:
    layout, block = plan.resolved.layout, made.campaign.grid.block
    blocks = [b for tile in made.delivery.tiles for b in tile.window.split(block)]
    reads = [read for b in blocks for _, read in layout.windows_of(b)]
    t = plan_totals(plan)
    assert (t.tiles, t.todo, t.blocks, t.windows) == (6, 6, len(blocks), len(reads))
    assert t.pixels == sum(b.pixels for b in blocks)
    assert t.computed_pixels == sum(r.pixels for r in reads)
    exact = [layout.read_of_block(b) for b in blocks]
    # A block's read begins on the stride: it is a stride longer or shorter with the place.
    assert abs(t.read_pixels / sum(r.pixels for r in exact) - 1) < 2 * layout.stride / exact[0].height
    files = {p for p in made.delivery.folder.rglob("*") if p.is_file()}
    assert (t.input_files, t.read_bytes) == (len(files), sum(p.stat().st_size for p in files))
    assert t.output_files == 3 * 6


def test_on_gpus_the_slower_of_computing_and_reading_decides(plan: RunPlan) -> None:
    t = replace(plan_totals(plan), computed_pixels=36_000_000_000, read_pixels=1_000_000_000, pixels=800_000_000)
    few, many = (Machine("m", 2, cores, 1, "a100") for cores in (1, 100))
    slow, fast = (forecast(plan.resolved, t, ROUND, m) for m in (few, many))
    # 36 000 Mpx at 100 Mpx/s; 1 000 Mpx at 5 and 800 at 20 Mpx/s a core.
    assert (fast.gpu_s, fast.core_s) == (360.0, 240.0)
    start = fast.wall_s - 180.0
    assert 0 < start < 120
    assert slow.wall_s == pytest.approx(start + 180.0), "two cores read in 120 s: the two GPUs still bound it"
    assert fast.cores_a_gpu == pytest.approx(240 / 360)
    assert not slow.starved
    starved = forecast(plan.resolved, replace(t, read_pixels=4_000_000_000), ROUND, few)
    assert starved.wall_s == pytest.approx(start + (800 + 40) / 2)
    assert starved.starved
    assert "so it waits" in "\n".join(starved.lines())
    assert fast.gpu_hours == pytest.approx(2 * fast.wall_s / 3600)
    assert fast.core_hours == pytest.approx(200 * fast.wall_s / 3600)
    assert fast.write_bytes == 400_000_000


def test_without_gpus_the_cores_read_compute_and_seal_in_turn(plan: RunPlan) -> None:
    t = replace(plan_totals(plan), computed_pixels=100_000_000, read_pixels=50_000_000, pixels=40_000_000)
    done = forecast(plan.resolved, t, replace(ROUND, device=CPU), Machine("m", 1, 2))
    assert done.core_s == 1.0 + 10.0 + 2.0
    assert (done.gpu_s, done.gpu_hours, done.cores_a_gpu) == (0.0, 0.0, None)
    assert done.worker_memory_bytes == plan.resolved.memory.total
    assert json.loads(json.dumps(done.as_json()))["rates"]["seal"] == {
        "value": 20.0,
        "source": "stated: round",
        "unit": "Mpx/s a core",
    }


def test_a_plan_with_nothing_to_do_takes_no_time(plan: RunPlan) -> None:
    empty = replace(plan.domains[0], tiles=())
    done = forecast(plan.resolved, domain_totals(plan.resolved, empty), ROUND, Machine("m", 1, 2, 1, "a100"))
    assert (done.wall_s, done.gpu_s, done.cores_a_gpu, done.write_bytes) == (0.0, 0.0, None, 0)


def test_measured_rates_replace_stated_ones_and_name_their_source() -> None:
    assert read_rates() == ()
    save_rates([HERE, replace(HERE, host="n2", value=3.0, at="2026-04-01")])
    save_rates([replace(HERE, value=2.5)])
    assert sorted(m.value for m in read_rates()) == [2.5, 3.0], "a second measurement replaces the first"
    found = find_rates(FP32, network=DEFAULT_RECIPE, measured=read_rates())
    assert found.infer == Rate(3.0, "measured on n2 (Xeon) at 2026-04-01")
    assert found.read == STATED["read"]
    for other in (
        find_rates(FP32, network=DEFAULT_RECIPE, on="Opteron", measured=read_rates()),
        find_rates(Engine("openvino", "int8"), network=DEFAULT_RECIPE, measured=read_rates()),
        find_rates(FP32, network="another", measured=read_rates()),
    ):
        assert other.infer.source.startswith("stated: openvino")
    assert "not for another" in other.infer.source


def test_a_gpu_is_found_by_its_model_and_an_unknown_one_is_refused() -> None:
    bf16 = Engine("torch", "bf16")
    name = "NVIDIA A100-SXM4-80GB"
    measured = [replace(HERE, engine="torch", precision="bf16", device=name, value=410.0)]
    for device in ("a100", "A100", name):
        found = find_rates(bf16, network=DEFAULT_RECIPE, device=device, on="Opteron", measured=measured)
        assert found.infer == Rate(410.0, f"measured on n1 ({name}) at 2026-03-01")
    stated = find_rates(bf16, network=DEFAULT_RECIPE, device="h100", measured=measured)
    # 989 TFLOPS × 0.3 over 64.7 GFLOP for 512² px.
    assert stated.infer.value == pytest.approx(989e12 * 0.3 / 64.7e9 * 512**2 / 1e6)
    with pytest.raises(ConfigError, match=r"no speed is known for bf16 on GPU 'v100'.*run `landcover bench`"):
        find_rates(bf16, network=DEFAULT_RECIPE, device="v100", measured=measured)


def test_a_damaged_file_of_rates_is_named(own_cache: Path) -> None:
    (own_cache / "rates.json").write_text('{"rates": [{"what": "infer"}]}')
    with pytest.raises(StorageError, match=r"rates\.json is damaged"):
        read_rates()


def test_the_machine_is_this_one_or_as_described(plan: RunPlan) -> None:
    own = this_machine(plan.resolved)
    assert described_machine(plan.resolved) == own
    assert (own.nodes, own.processor) == (1, processor())
    other = described_machine(plan.resolved, nodes=4, cores=40, gpus=4, gpu="v100")
    assert (other.nodes, other.cores, other.gpus, other.gpu, other.processor) == (4, 40, 4, "v100", None)
    assert rates_for(plan.resolved, other).device == "v100"
    assert rates_for(plan.resolved, replace(other, gpus=0)).device == CPU
    if not own.gpus:
        with pytest.raises(ConfigError, match="the model of the 4 GPUs is missing"):
            described_machine(plan.resolved, gpus=4)
    assert [duration(s) for s in (1, 200, 7500)] == ["1 min", "3 min", "2 h 05 min"]


def test_plan_prints_a_line_per_reason_or_per_tile(made: Made, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    copied = made.copy(folder)
    first = copied.delivery.tiles[0].name
    copied.imagery(first).write_bytes(b"no longer an image")
    cpu = find_rates(Engine("torch"), network="tiny", on=processor(), measured=())
    save_rates([MeasuredRate.inference(cpu.infer.value, Engine("torch"), network="tiny")])

    def printed(*options: str) -> str:
        result = CliRunner().invoke(app, ["plan", str(copied.config), *options])
        assert result.exit_code == 0, result.output
        return result.output

    short = printed("--json", str(folder / "plan.json"))
    (why,) = (line for line in short.splitlines() if "not mapped yet" in line)
    assert why.startswith("D034_2021: 6 tiles to map (not mapped yet): ")
    assert why.endswith("and 1 more")
    assert f"of them will fail: {copied.imagery(first)}" in short
    assert "measured on" in short
    assert "stated:" in short
    content = json.loads((folder / "plan.json").read_text())
    tiles = {t["tile"]: t for t in content["domains"][0]["to_map"]}
    assert set(tiles) == {t.name for t in copied.delivery.tiles}
    assert str(copied.imagery(first)) in tiles[first]["broken"][0]
    assert content["predicted"]["wall_s"] > 0
    proposed = printed("--tile", first, "--force").splitlines()[-1]
    assert proposed == f"next: landcover run {copied.config} --tile {first} --force"
    every = printed("--tiles")
    assert all(f"D034_2021 {name}: not mapped yet" in every for name in tiles)
