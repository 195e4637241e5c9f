"""FLAIR-HUB's checkpoints load, and give the logits of a network that was put together independently."""

import re
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from pipeline import legend
from pipeline.config import Recipe, config_folder, load_recipe
from pipeline.errors import ConfigError, WeightsError
from pipeline.inference.openvino_engine import OpenVinoPredictor
from pipeline.inference.torch_engine import TorchPredictor
from pipeline.model import Model, build_network, load_model, optimize_for_inference
from pipeline.model.flair_hub import fit_position_tables
from pipeline.model.matching_recipe import matching_recipe
from pipeline.model.network import _import_smp
from tests.support.flair_hub import CONVNEXT, SWIN, TINY, State, hub_names, random_network, recipe_of, written

NAMES = sorted(path.stem for path in (config_folder() / "models").glob("flair-hub_*.yaml"))
NAMED_ORDER = [
    *(
        "building",
        "greenhouse",
        "swimming pool",
        "impervious surface",
        "pervious surface",
        "bare soil",
        "water",
        "snow",
    ),
    *("herbaceous vegetation", "agricultural land", "plowed land", "vineyard", "deciduous", "coniferous", "brushwood"),
    *("clear cut", "ligneous", "mixed", "other"),
]
"""FLAIR-HUB's classes by logit, as its configuration names them, but for the last: `undefined` there."""


def earlier_upernet(features: list[torch.Tensor], tensors: State) -> torch.Tensor:
    """Logits at a quarter of the resolution by the UPerNet of segmentation-models-pytorch 0.4, from tensors alone."""

    def convolved(x: torch.Tensor, name: str, padding: int = 0) -> torch.Tensor:
        x = functional.conv2d(x, tensors[f"{name}.0.weight"], padding=padding)
        mean, var, scale, shift = (tensors[f"{name}.1.{n}"] for n in ("running_mean", "running_var", "weight", "bias"))
        return functional.batch_norm(x, mean, var, scale, shift).relu()

    def resized(x: torch.Tensor, like: torch.Size) -> torch.Tensor:
        return functional.interpolate(x, size=tuple(like), mode="bilinear", align_corners=False)

    _, half, *skips, deepest = features
    pooled = [functional.adaptive_avg_pool2d(deepest, parts) for parts in (1, 2, 3, 6)]
    pooled = [resized(convolved(p, f"decoder.psp.blocks.{i}.1"), deepest.shape[2:]) for i, p in enumerate(pooled)]
    maps = [convolved(torch.cat([deepest, *pooled], dim=1), "decoder.psp.out_conv")]
    for i, skip in enumerate(reversed(skips)):
        maps.append(resized(maps[-1], skip.shape[2:]) + convolved(skip, f"decoder.fpn_stages.{i}.skip_conv"))
    maps.append(resized(maps[-1], half.shape[2:]))
    fused = torch.cat([resized(m, skips[0].shape[2:]) for m in maps], dim=1)
    fused = convolved(fused, "decoder.fpn_bottleneck", padding=1)
    return functional.conv2d(fused, tensors["segmentation_head.0.weight"], tensors["segmentation_head.0.bias"])


def plain_logits(
    recipe: Recipe, tensors: State, image: torch.Tensor, *, earlier: bool, corners: bool = True
) -> torch.Tensor:
    """Logits of segmentation-models-pytorch's own network, resized to the image as IGN does.

    With `corners=False` a head that enlarges them does so from the centres of pixels.
    """
    size = {"img_size": image.shape[-1]} if recipe.encoder == SWIN else {}
    plain = _import_smp().create_model(
        recipe.architecture, recipe.encoder, encoder_weights=None, in_channels=3, classes=19, **size
    )
    plain.eval()
    if earlier:
        encoder = {n.removeprefix("encoder."): t for n, t in tensors.items() if n.startswith("encoder.")}
        plain.encoder.load_state_dict(encoder)
        logits = earlier_upernet(plain.encoder(image), tensors)
        logits = functional.interpolate(logits, scale_factor=4, mode="bilinear", align_corners=corners)
    else:
        plain.load_state_dict(tensors)
        if not corners:
            plain.segmentation_head[1] = torch.nn.Identity()
        logits = plain(image)
    return functional.interpolate(logits, size=tuple(image.shape[2:]), mode="bilinear", align_corners=False)


@pytest.mark.parametrize(
    ("encoder", "architecture", "earlier", "prefix", "suffix"),
    [
        (CONVNEXT, "unet", False, "", ".safetensors"),
        (CONVNEXT, "upernet", True, "model.", ".safetensors"),
        (CONVNEXT, "upernet", False, "", ".ckpt"),
        (SWIN, "unet", False, "model.", ".ckpt"),
        (SWIN, "upernet", True, "", ".safetensors"),
    ],
)
def test_a_checkpoint_gives_the_logits_of_the_plain_network(
    tmp_path: Path, encoder: str, architecture: str, earlier: bool, prefix: str, suffix: str
) -> None:
    recipe = recipe_of(encoder, architecture)
    tensors = OrderedDict(random_network(recipe, earlier_upernet=earlier).state_dict())
    model = load_model(written(tmp_path / f"w{suffix}", hub_names(tensors, prefix=prefix)), recipe)
    # A Swin's last attention windows overlap only in images of more than 224 px; 288 px fills none of them.
    pixels = np.random.default_rng(0).integers(0, 256, (1, 3, 288, 288), np.uint8)
    image = (torch.from_numpy(pixels).float() - torch.tensor(recipe.mean).view(3, 1, 1)) / torch.tensor(
        recipe.std
    ).view(3, 1, 1)
    with torch.inference_mode():
        expected = plain_logits(recipe, tensors, image, earlier=earlier)
        torch.testing.assert_close(model.network(image), expected, rtol=0, atol=1e-5)
        # The last resizing, by IGN, enlarges them where there is no head that does.
        mapped = plain_logits(recipe, tensors, image, earlier=earlier, corners=False)
        assert torch.allclose(mapped, expected, rtol=0, atol=1e-3) == (architecture == "unet")
    predictor = TorchPredictor(model)
    live = [NAMED_ORDER.index(legend.BY_VALUE[value].name) for value in recipe.live]
    np.testing.assert_allclose(predictor.logits(pixels), mapped[:, live], rtol=0, atol=1e-4)
    classes = predictor(pixels, np.ones((1, 288, 288), np.bool_))[0, 0]
    names = [legend.BY_VALUE[value].name for value in classes[::16, ::16].ravel()]
    winners = mapped[0, :15, ::16, ::16].argmax(dim=0).ravel().tolist()
    assert names == [NAMED_ORDER[logit] for logit in winners], "the first 15 logits are live, in FLAIR-HUB's order"
    assert len(set(names)) > 2
    half = TorchPredictor(model, precision="bf16")(pixels, np.ones((1, 288, 288), np.bool_))[0]
    assert set(np.unique(half[0])) <= set(recipe.live)
    assert (half[0] == classes).mean() > 0.8


def test_only_maps_enlarge_logits_from_pixel_centres() -> None:
    """The loaded network, training, and recipes of other decoders keep their logits and fingerprints."""
    centred = recipe_of(CONVNEXT, "upernet")
    published = centred.model_copy(update={"centred_upsampling": False})
    networks = [random_network(recipe, earlier_upernet=True) for recipe in (centred, published)]
    image = torch.randn(1, 3, 96, 64)
    live = list(centred.live_logits)
    with torch.inference_mode():
        both = [network(image) for network in networks]
        assert torch.equal(*both)
        kept, *_ = optimize_for_inference(networks[0], published)(image)
        torch.testing.assert_close(kept, both[0][:, live], rtol=0, atol=1e-4)
        quarter = earlier_upernet(networks[0].encoder(image), OrderedDict(networks[0].state_dict()))
        expected = functional.interpolate(quarter, size=(96, 64), mode="bilinear", align_corners=False)
        mapped, *_ = optimize_for_inference(networks[0], centred)(image)
        torch.testing.assert_close(mapped, expected[:, live], rtol=0, atol=1e-4)
    assert centred.model_dump()["centred_upsampling"] is True
    assert "centred_upsampling" not in published.model_dump()
    shipped = [load_recipe(path.stem) for path in (config_folder() / "models").glob("*.yaml")]
    assert all(recipe.centred_upsampling == (recipe.architecture == "upernet") for recipe in shipped)


def test_the_published_counts_of_parameters_are_those_of_our_networks() -> None:
    counted = {}
    for name in ("convnextv2tiny", "convnextv2base", "swinbase"):
        with torch.device("meta"):
            network = build_network(load_recipe(f"flair-hub_lc-a_ir_{name}-upernet"), earlier_upernet=True)
        # IGN counts the stage that reads the image, which no forward uses: 3 × 256 weights and 2 × 256 of its norm.
        counted[name] = round((sum(p.numel() for p in network.parameters()) + 1280) / 1e6, 1)
    assert counted == {"convnextv2tiny": 29.8, "convnextv2base": 90.2, "swinbase": 89.4}


@pytest.mark.parametrize("name", NAMES)
def test_each_shipped_recipe_is_the_model_that_it_is_named_after(name: str) -> None:
    recipe = load_recipe(name)
    bands, encoder, decoder = re.fullmatch(r"flair-hub_lc-a_(ir|rgb)_(\w+)-(\w+)", name).groups()
    assert recipe.bands == (("nir", "red", "green") if bands == "ir" else ("red", "green", "blue"))
    assert recipe.encoder.removeprefix("tu-").replace("_", "").startswith(encoder)
    assert recipe.architecture == decoder
    assert [legend.BY_VALUE[value].name for value in recipe.flair_values] == NAMED_ORDER
    assert dict(enumerate(recipe.flair_values)) == legend.to_flair("flair-hub")
    assert recipe.live == (*range(1, 15), 18)
    levels = {"red": (105.66, 52.23), "green": (111.35, 45.62), "blue": (102.18, 44.3), "nir": (106.59, 39.78)}
    assert [levels[band] for band in recipe.bands] == list(zip(recipe.mean, recipe.std, strict=True))
    window = 12 if "window12" in recipe.encoder else 7 if "window7" in recipe.encoder else 1
    assert recipe.stride == 32 * window
    layout = recipe.layout()
    layout.check_block(5_000, 25_000)
    assert (recipe.smallest_window or 0) <= layout.window
    assert recipe.smallest_halo <= layout.halo


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Path]]:
    """The smallest published model with random weights, under any name."""
    folder = tmp_path_factory.mktemp("hub")
    state = hub_names(random_network(TINY, earlier_upernet=True).state_dict(), prefix="model.")
    path = written(folder / "any.safetensors", state)

    def named(name: str) -> Path:
        link = folder / name
        link.unlink(missing_ok=True)
        link.hardlink_to(path)
        return link

    return named


def test_a_published_file_finds_its_recipe(published: Callable[[str], Path]) -> None:
    assert matching_recipe(str(published("FLAIR-HUB_LC-A_IR_convnextv2tiny-upernet.safetensors"))) == TINY.name
    assert matching_recipe(str(published("any-name.safetensors"))) == TINY.name, "by its tensors"
    with pytest.raises(WeightsError, match=r"by its name .*_ir_swinbase-unet"):
        load_model(published("FLAIR-HUB_LC-A_IR_swinbase-unet.safetensors"), TINY.name)
    fits = (
        r"recipe flair-inc\S+: its input has|recipe flair-inc_\S+: of the shipped recipes, \S+tiny-upernet has exactly"
    )
    with pytest.raises(WeightsError, match=fits):
        load_model(published("any-name.safetensors"), "flair-inc_rgbi_12cl_resnet34-unet")
    with pytest.raises(WeightsError, match=r"content is that of a \.safetensors file; rename it"):
        load_model(published("any-name.pth"), TINY.name)


def small_state(architecture: str = "upernet") -> State:
    return hub_names(random_network(recipe_of(CONVNEXT, architecture), earlier_upernet=True).state_dict())


def changed_state(state: State, what: str) -> State:
    """A checkpoint that does not fit."""
    names = list(state)
    head = "main_decoders.AERIAL_LABEL-COSIA.seg_model.segmentation_head.0"
    if what == "another modality":
        state["encoders.DEM_ELEV.seg_model.model.stem_0.weight"] = torch.zeros(1)
    elif what == "another task":
        state = OrderedDict((n.replace("AERIAL_LABEL-COSIA", "ALL_LABEL-LPIS"), t) for n, t in state.items())
    elif what == "missing":
        del state[next(n for n in names if "fpn_bottleneck.0" in n)]
    elif what == "shape":
        state[f"{head}.weight"] = torch.zeros(19, 32, 1, 1)
    elif what == "logits":
        state |= {f"{head}.weight": torch.zeros(23, 64, 1, 1), f"{head}.bias": torch.zeros(23)}
    elif what == "bands":
        state[next(n for n in names if n.endswith("stem_0.weight"))] = torch.zeros(40, 4, 4, 4)
    elif what == "twice":
        state |= {f"model.{head}.bias": torch.ones(19)}
    elif what == "unknown":
        state["heads.new.weight"] = torch.zeros(3)
    return state


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("another modality", r"FLAIR-HUB model of AERIAL_RGBI, DEM_ELEV for AERIAL_LABEL-COSIA; .*LC-A_"),
        ("another task", r"FLAIR-HUB model of AERIAL_RGBI for ALL_LABEL-LPIS; expected .* AERIAL_LABEL-COSIA"),
        ("missing", r"does not fit recipe small: missing tensors: decoder\.fpn_bottleneck\.0\.weight"),
        ("shape", r"another shape or type: segmentation_head\.0\.weight \(19 × 32 × 1 × 1, .*for \(19 × 64 × 1 × 1"),
        ("logits", r"its head has 23 logits, the recipe 19"),
        ("bands", r"its input has 4 channels, the recipe 3 .*no shipped recipe with such an encoder .* has 4 bands"),
        ("twice", r"contains 1 tensors both with and without 'model\.': main_decoders\..*head\.0\.bias"),
        ("unknown", r"unexpected tensors: heads\.new\.weight"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_by_name(tmp_path: Path, what: str, said: str) -> None:
    path = written(tmp_path / "w.safetensors", changed_state(small_state(), what))
    with pytest.raises(WeightsError, match=said):
        load_model(path, recipe_of(CONVNEXT, "upernet"))


def test_attention_windows_of_another_size_are_said(tmp_path: Path) -> None:
    recipe = recipe_of(SWIN, "unet")
    tensors = random_network(recipe, earlier_upernet=False).state_dict()
    for name in tensors:
        if name.endswith("bias_table"):
            tensors[name] = torch.randn(23**2, tensors[name].shape[1])
    model = load_model(written(tmp_path / "w.safetensors", hub_names(tensors)), recipe)
    assert "windows of 12 × 12 cells; 12 tables of positions were resized for the 7 × 7 of recipe small" in model.doubt


def test_position_tables_of_other_windows_are_resized_as_ign_does() -> None:
    name = "encoder.model.layers_0.blocks.0.attn.relative_position_bias_table"
    table = torch.randn(9, 2)
    done = fit_position_tables({name: table, "other": table}, {name: torch.zeros(25, 2), "other": torch.zeros(25, 2)})
    image = table.reshape(1, 3, 3, 2).permute(0, 3, 1, 2)
    expected = functional.interpolate(image, size=(5, 5), mode="bicubic", align_corners=False)
    torch.testing.assert_close(done[name], expected.permute(0, 2, 3, 1).reshape(25, 2))
    assert torch.equal(done["other"], table), "only tables of relative positions"
    empty = torch.zeros(0, 2)
    assert fit_position_tables({name: empty}, {name: torch.zeros(25, 2)})[name] is empty, "refused by its shape later"


def test_a_swin_recipe_with_the_stride_of_the_encoder_is_refused() -> None:
    recipe = recipe_of(SWIN, "unet").model_copy(update={"stride": 32})
    with pytest.raises(ConfigError, match="not a multiple of the network's stride 224"), torch.device("meta"):
        build_network(recipe)


def test_windows_on_the_raster_of_attention_give_one_map() -> None:
    """The inner part of a Swin U-Net's map does not change when the image moves by a whole attention window."""
    recipe = recipe_of(SWIN, "unet")
    model = Model.in_memory(random_network(recipe, earlier_upernet=False), recipe)
    image = torch.randn(1, 3, 224, 1344)
    with torch.inference_mode():
        whole = model.network(image)
        on, off = (model.network(image[..., start:])[..., 560 - start : 672 - start] for start in (224, 32))
    assert (on - whole[..., 560:672]).abs().max() < 0.1 * (off - whole[..., 560:672]).abs().max()


def test_openvino_maps_windows_of_any_size_as_torch_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph is traced once: nothing of Swin's masks and padding may stay as it was at the traced size."""
    monkeypatch.setenv("LANDCOVER_CACHE", str(tmp_path / "cache"))
    recipe = recipe_of(SWIN, "upernet")
    model = Model.in_memory(random_network(recipe, earlier_upernet=True), recipe)
    torch_engine, openvino_engine = TorchPredictor(model), OpenVinoPredictor(model, threads=1)
    rng = np.random.default_rng(3)
    for height, width in ((224, 224), (64, 288)):
        pixels = rng.integers(0, 256, (1, 3, height, width), np.uint8)
        valid = np.ones((1, height, width), np.bool_)
        one, other = (engine(pixels, valid)[0].astype(int) for engine in (torch_engine, openvino_engine))
        assert (one[0] != other[0]).mean() < 0.001
        assert np.abs(one[1] - other[1]).max() <= 2
