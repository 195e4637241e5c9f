"""`train --loader`: the loader of patches and the training step side by side, and the cores that feed a GPU.

Samples per second of a GPU's step are computed, not measured, for the network of the default recipe:

    share × peak / (3 × operations of a forward)

A backward takes twice the operations of its forward. Peak and share are those from which `landcover plan` predicts:
NVIDIA's data sheets, and an assumed share. The cores that feed it are that rate over the loader's rate of a core.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from pipeline.bench.chart import bar_chart
from pipeline.bench.imagery import Imagery, light_recipe
from pipeline.bench.machine import cores, in_new_process
from pipeline.bench.report import BenchReport
from pipeline.config import DEFAULT_RECIPE, Precision, Recipe, load_recipe
from pipeline.demo.country import VINTAGES
from pipeline.geobox import lattice_geobox
from pipeline.grid import CRS, Window
from pipeline.inference import Engine
from pipeline.model import build_network
from pipeline.progress import OnMessage
from pipeline.runs.planning.throughput import stated_inference
from pipeline.sources.labels.patches import Patch, write_patch
from pipeline.training.dataset import IGNORED_LABEL, PatchDataset, PatchSampler, Sample
from pipeline.training.run_config import AugmentSection

_GPUS: Mapping[str, Precision] = {"v100": "fp16", "a100": "bf16", "h100": "bf16"}
"""GPU → the fastest precision that it trains in."""
_FORWARDS_A_STEP = 3
"""A step takes the operations of three forwards."""
_SIDE = 512
"""Side of FLAIR's patches in pixels, for which the cores are stated."""
_CROP = 256
"""Side of the crops on which steps are measured, in pixels."""
_WAYS = {"fp32_nchw": (False, False), "fp32": (True, False), "bf16": (True, True)}
"""Name → whether the step is channels last, as `landcover train` is, and whether it is in bf16."""

Step = Callable[[torch.Tensor, torch.Tensor], None]


def measure_loader(imagery: Imagery, scratch: Path, *, on_message: OnMessage) -> BenchReport:
    """Times the loader alone, the step alone in each way, and both together with one loader process.

    The quick scale has a light network, and its loader process is a fork, which imports nothing.
    """
    quick = imagery.scale.quick
    recipe = light_recipe() if quick else load_recipe(DEFAULT_RECIPE)
    batch, steps = 2, 1 if quick else 2
    patches = _write_patches(imagery, scratch, count=batch * (steps + 1))
    dataset = PatchDataset(patches, recipe, augment=AugmentSection())
    side = imagery.patches.shape[-1]
    # FLAIR's patches have 512 px; a loader's work is proportional to the pixels.
    per_core_s = _loader_rate(dataset, batch=batch) * side**2 / _SIDE**2
    on_message(f"train: a core loads {per_core_s:.3g} samples/s")
    torch.set_num_threads(cores())
    # A processor takes minutes for steps with whole patches; the work of a step is proportional to the pixels.
    crop = min(side, _CROP)
    share = crop**2 / _SIDE**2
    cropped = PatchDataset(patches, recipe, augment=AugmentSection(crop=crop))
    images, labels = next(iter(_loader(cropped, batch=batch)))
    alone: dict[str, float] = {}
    for name, (channels_last, lower) in _WAYS.items():
        step = make_step(recipe, channels_last=channels_last, lower=lower)
        step(images, labels)
        alone[name] = min(_seconds(lambda step=step: step(images, labels)) for _ in range(steps))  # type: ignore[misc]
        on_message(f"train: a step in {name} takes {alone[name]:.3g} s for {batch} crops of {crop} px")
    # Torch leaves a handler of signals in a process that had loader processes.
    start = "fork" if quick else "spawn"
    together = in_new_process(_together, recipe, cropped, batch=batch, steps=steps, start=start)
    needed = {gpu: gpu_samples_per_s(gpu) / per_core_s for gpu in _GPUS}
    figures = {
        "train.loader_samples_per_core_s": per_core_s,
        **{f"train.step_samples_per_s_{name}": batch * share / seconds for name, seconds in alone.items()},
        # Of a step beside one loader process: 1 where the step never waits for samples.
        "train.step_share_beside_loader": alone["bf16"] / together,
        **{f"train.cores_to_feed_{gpu}": count for gpu, count in needed.items()},
    }
    raw = {"batch": batch, "side": side, "crop": crop, "step_s": alone, "step_s_beside_loader": together}
    chart = bar_chart("Cores that load samples for one GPU", list(needed.items()), unit="cores")
    rates = ", ".join(f"{gpu.upper()} {gpu_samples_per_s(gpu):.0f} in {precision}" for gpu, precision in _GPUS.items())
    notes = (
        f"steps of GPUs are stated, in samples of {_SIDE} px a second: {rates}",
        f"steps were measured on the {cores()} cores of this machine, in batches of {batch} crops of {crop} px",
    )
    return BenchReport(figures, raw, chart, (*imagery.notes, *notes))


def gpu_samples_per_s(gpu: str) -> float:
    """Patches of 512 px that a GPU trains on in a second, as stated."""
    forward = stated_inference(Engine("torch", _GPUS[gpu]), gpu, network=DEFAULT_RECIPE).value
    return forward * 1e6 / _SIDE**2 / _FORWARDS_A_STEP


def make_step(recipe: Recipe, *, channels_last: bool, lower: bool) -> Step:
    """A training step of the recipe's network: normalisation, forward, loss, backward and update."""
    network = build_network(recipe)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    network.to(memory_format=layout)  # type: ignore[call-overload]  # torch's stubs lack it
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4)
    loss = nn.CrossEntropyLoss(ignore_index=IGNORED_LABEL)
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (recipe.mean, recipe.std))

    def step(pixels: torch.Tensor, labels: torch.Tensor) -> None:
        images = ((pixels.float() - mean) / std).contiguous(memory_format=layout)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=lower):
            logits = network(images)
        loss(logits.float(), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _write_patches(imagery: Imagery, folder: Path, *, count: int) -> list[Patch]:
    """Writes labelled patches in FLAIR's layout; the labels are random."""
    rng, patches = np.random.default_rng(0), imagery.patches
    side, live = patches.shape[-1], load_recipe(DEFAULT_RECIPE).live
    written = []
    for number in range(count):
        labels = rng.choice(np.asarray(live, np.uint8), (side // 32, side // 32)).repeat(32, 0).repeat(32, 1)
        place = lattice_geobox(Window(0, number * side, side, side), CRS)
        pixels = patches[number % len(patches)]
        written.append(write_patch(folder, (VINTAGES[0].domain, "zone", number), pixels, labels, geobox=place))
    return written


def _loader(dataset: PatchDataset, *, batch: int, start: str | None = None) -> DataLoader[Sample]:
    """The loader of `landcover train`, in this process, or in one that is started by `start`."""
    sampler = PatchSampler(len(dataset), seed=0, shuffle=True)
    processes = 1 if start else 0
    return DataLoader(dataset, batch_size=batch, sampler=sampler, num_workers=processes, multiprocessing_context=start)


def _loader_rate(dataset: PatchDataset, *, batch: int) -> float:
    """Samples that are read, augmented and put into batches in a core-second; files lie in the page cache."""
    loader = _loader(dataset, batch=batch)
    list(loader)
    start = time.process_time()
    list(loader)
    return len(dataset) / (time.process_time() - start)


def _together(recipe: Recipe, dataset: PatchDataset, *, batch: int, steps: int, start: str) -> float:
    """Seconds of a step in bf16 while one process loads the next samples; the first one waits and does not count."""
    torch.set_num_threads(cores())
    step = make_step(recipe, channels_last=True, lower=True)
    samples = iter(_loader(dataset, batch=batch, start=start))
    step(*next(samples))

    def work() -> None:
        for _ in range(steps):
            step(*next(samples))

    return _seconds(work) / steps


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
