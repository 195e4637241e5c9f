"""Weights load from every layout of a checkpoint, and a file that does not fit is refused with the reason."""

import copy
import logging
import os
import pickle
import re
import socket
from collections import OrderedDict
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pipeline.config import DEFAULT_RECIPE, Recipe, load_recipe
from pipeline.errors import ConfigError, WeightsError
from pipeline.fingerprint import file_sha256
from pipeline.model import Model, build_network, load_model
from pipeline.model.weights_file import UnloadedModel, known_doubt, note_loaded

LIGHT = Recipe(
    name="light",
    encoder="tu-tf_mobilenetv3_small_minimal_100",
    decoder_channels=(16, 8, 8, 8, 8),
    mean=(105.0, 110.0, 100.0, 106.0, 53.0),
    std=(52.0, 45.0, 44.0, 39.0, 79.0),
    live=(1, 2, 3),
)
FIRST = "encoder.model.conv_stem.weight"
HEAD = ("segmentation_head.0.weight", "segmentation_head.0.bias")

State = OrderedDict[str, torch.Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    """Random weights of the light network, float32."""
    torch.manual_seed(7)
    return OrderedDict(build_network(LIGHT).state_dict())


@pytest.fixture(scope="module")
def real(shared_data: Path) -> Path:
    return shared_data / "weights" / "mini_resnet34-unet_weights.pth"


def prefixed(state: State) -> State:
    """As in a FLAIR-INC file: the Lightning module's prefix, and the loss's class weights."""
    named = OrderedDict((f"model.seg_model.{name}", tensor) for name, tensor in state.items())
    return OrderedDict([*named.items(), ("criterion.weight", torch.ones(19))])


def saved(path: Path, state: State) -> Path:
    torch.save(prefixed(state), path)
    return path


def without(state: State, *names: str) -> State:
    return OrderedDict((name, tensor) for name, tensor in state.items() if name not in names)


def output(model: Model) -> np.ndarray:
    values = torch.linspace(-2, 2, 5 * 64 * 64).reshape(1, 5, 64, 64)
    with torch.inference_mode():
        return model.network(values).numpy()


def as_pth(path: Path, state: State) -> Path:
    return saved(path.with_suffix(".pth"), state)


def as_legacy_pth(path: Path, state: State) -> Path:
    torch.save(prefixed(state), path.with_suffix(".pth"), _use_new_zipfile_serialization=False)
    return path.with_suffix(".pth")


def as_lightning(path: Path, state: State) -> Path:
    whole = {"state_dict": prefixed(state), "epoch": 65, "pytorch-lightning_version": "2.5.0", "callbacks": {"a": [1]}}
    torch.save(whole, path.with_suffix(".ckpt"))
    return path.with_suffix(".ckpt")


def as_safetensors(path: Path, state: State) -> Path:
    save_file(dict(state), path.with_suffix(".safetensors"))
    return path.with_suffix(".safetensors")


def as_prefixed_safetensors(path: Path, state: State) -> Path:
    save_file(dict(prefixed(state)), path.with_suffix(".safetensors"))
    return path.with_suffix(".safetensors")


LAYOUTS = [as_pth, as_legacy_pth, as_lightning, as_safetensors, as_prefixed_safetensors]


def test_every_layout_gives_the_same_network(tmp_path: Path, state: State) -> None:
    plain = build_network(LIGHT)
    plain.load_state_dict(state)
    expected = output(Model.in_memory(plain, LIGHT))
    for layout in LAYOUTS:
        model = load_model(layout(tmp_path / layout.__name__, state), LIGHT)
        np.testing.assert_array_equal(output(model), expected)
        assert not model.network.training
        assert not any(parameter.requires_grad for parameter in model.network.parameters())


@pytest.mark.parametrize("prefix", ["model.", "seg_model.", "module.model.seg_model."])
def test_other_prefixes_are_removed(tmp_path: Path, state: State, prefix: str) -> None:
    path = tmp_path / "w.ckpt"
    torch.save({"state_dict": {prefix + name: tensor for name, tensor in state.items()}, "epoch": 3}, path)
    loaded = load_model(path, LIGHT).network.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


def test_real_weights_load_as_float32_under_the_default_recipe(real: Path) -> None:
    model = load_model(real)
    assert model.recipe == load_recipe(DEFAULT_RECIPE)
    assert model.weights_hash == file_sha256(real)
    assert {p.dtype for p in model.network.parameters()} == {torch.float32}
    assert sum(p.numel() for p in model.network.parameters()) == pytest.approx(24.4e6, rel=0.01)
    stored = torch.load(real, weights_only=True)["model.seg_model.segmentation_head.0.bias"]
    assert torch.equal(model.network.state_dict()[HEAD[1]], stored.float())
    assert output(model).shape == (1, 19, 64, 64)


def weighted(path: Path, values: tuple[int, ...]) -> Path:
    """A checkpoint of the default network's shapes, whose loss had weights for these classes only."""
    state = OrderedDict((f"model.seg_model.{n}", t) for n, t in default_state().items())
    weights = torch.tensor([float(k + 1 in values) for k in range(19)])
    torch.save(OrderedDict([*state.items(), ("criterion.weight", weights)]), path)
    return path


@cache
def default_state() -> State:
    return OrderedDict(build_network(load_recipe(DEFAULT_RECIPE)).state_dict())


TWELVE, FIFTEEN = (tuple(load_recipe(f"flair-inc_rgbie_{n}cl_resnet34-unet").live) for n in (12, 15))


@pytest.mark.parametrize(
    ("name", "trained", "recipe", "said"),
    [
        ("any.pth", TWELVE, "12cl", ""),
        ("any.pth", FIFTEEN, "15cl", ""),
        ("any.pth", FIFTEEN, "12cl", r"classes 1–14, 18, as in recipe flair-inc_rgbie_15cl_resnet34-unet; .* 1–12\."),
        ("any.pth", TWELVE, "15cl", r"recipe flair-inc_rgbie_12cl_resnet34-unet, so classes 13–14, 18, .*not trained"),
        ("any.pth", (1, 2, 3), "12cl", r"classes 1–3, so classes 4–12, which recipe \S+ maps, were not trained"),
        ("any.pth", tuple(range(1, 20)), "12cl", ""),
        # As the card of the 12-class model has it.
        ("FLAIR-INC_rgbie_12cl_resnet34-unet_weights.pth", FIFTEEN, "12cl", "classes 1–14, 18, as in recipe"),
    ],
)
def test_class_weights_of_another_recipe_are_warned_of(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    name: str,
    trained: tuple[int, ...],
    recipe: str,
    said: str,
) -> None:
    with caplog.at_level(logging.WARNING, "landcover"):
        load_model(weighted(tmp_path / name, trained), f"flair-inc_rgbie_{recipe}_resnet34-unet")
    if said:
        assert re.search(said, caplog.text)
    else:
        assert not caplog.text


def test_what_is_known_of_a_loaded_model_is_of_its_weights_recipe_and_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANDCOVER_CACHE", str(tmp_path))
    models = [UnloadedModel(LIGHT, hash_, source) for hash_ in ("1", "2") for source in ("/a.pth", "/b.pth")]
    models.append(replace(models[0], recipe=load_recipe(DEFAULT_RECIPE)))
    assert not any(map(known_doubt, models))
    note_loaded(models[0], "")
    note_loaded(models[-1], "its classes")
    assert [known_doubt(model) for model in models] == ["", None, None, None, "its classes"]
    (tmp_path / "loaded.json").write_text("{")
    assert known_doubt(models[0]) is None
    note_loaded(models[0], "")
    assert known_doubt(models[0]) == ""


@pytest.mark.parametrize("trained", [TWELVE, FIFTEEN])
def test_class_weights_do_not_overrule_the_name_of_a_file(tmp_path: Path, trained: tuple[int, ...]) -> None:
    path = weighted(tmp_path / "FLAIR-INC_rgbie_15cl_resnet34-unet_weights.pth", trained)
    with pytest.raises(WeightsError, match="by its name it belongs to recipe flair-inc_rgbie_15cl"):
        load_model(path, DEFAULT_RECIPE)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_floating_precision_becomes_float32(tmp_path: Path, state: State, dtype: torch.dtype) -> None:
    narrow = OrderedDict((n, t.to(dtype) if t.is_floating_point() else t) for n, t in state.items())
    model = load_model(saved(tmp_path / "w.pth", narrow), LIGHT)
    for name, tensor in model.network.state_dict().items():
        assert torch.equal(tensor, narrow[name].to(state[name].dtype)), name


def test_a_process_keeps_one_copy_until_the_file_is_replaced(tmp_path: Path, state: State) -> None:
    path = saved(tmp_path / "w.pth", state)
    first = load_model(path, LIGHT)
    assert load_model(str(path), LIGHT) is first
    saved(tmp_path / "new.pth", OrderedDict((n, t * 2) for n, t in state.items())).replace(path)
    second = load_model(path, LIGHT)
    assert second is not first
    assert second.weights_hash != first.weights_hash


def test_a_model_from_a_file_is_pickled_as_a_path(tmp_path: Path, state: State) -> None:
    model = load_model(saved(tmp_path / "w.pth", state), LIGHT)
    sent = pickle.dumps(model)
    assert len(sent) < 4_000
    arrived = pickle.loads(sent)
    assert arrived.loaded is None
    assert arrived.network is model.network


def test_a_pickled_model_whose_file_changed_is_refused(tmp_path: Path, state: State) -> None:
    path = saved(tmp_path / "w.pth", state)
    sent = pickle.dumps(load_model(path, LIGHT))
    saved(path, OrderedDict((n, t * 2) for n, t in state.items()))
    with pytest.raises(WeightsError, match=r"expected weights of SHA-256 .* changed after"):
        _ = pickle.loads(sent).network


def test_a_model_in_memory_is_pickled_with_its_weights(state: State) -> None:
    network = build_network(LIGHT)
    network.load_state_dict(state)
    model = Model.in_memory(network, LIGHT)
    arrived = pickle.loads(pickle.dumps(model))
    assert arrived.weights_hash == model.weights_hash
    np.testing.assert_array_equal(output(arrived), output(model))
    other = copy.deepcopy(network)
    torch.nn.init.ones_(other.get_parameter(HEAD[1]))
    assert Model.in_memory(other, LIGHT).weights_hash != model.weights_hash


def refused(path: Path | str, *parts: str, recipe: Recipe | str = LIGHT) -> str:
    """Loading raises WeightsError, whose message contains the file's name and every part."""
    with pytest.raises(WeightsError) as caught:
        load_model(path, recipe)
    message = str(caught.value)
    for part in (Path(path).name, *parts):
        assert part in message
    return message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere.pth", "no such file")
    refused(tmp_path, "got a folder")


@pytest.mark.parametrize("suffix", [".pth", ".ckpt", ".safetensors"])
def test_a_file_that_is_not_a_checkpoint_is_refused(tmp_path: Path, suffix: str, state: State) -> None:
    path = tmp_path / f"w{suffix}"
    path.write_bytes(b"")
    refused(path, "is empty")
    path.write_text("<html>not found</html>")
    refused(path, "not a checkpoint, or truncated")
    layout = as_safetensors if suffix == ".safetensors" else as_pth
    whole = layout(tmp_path / "whole", state).read_bytes()
    for share in (0.0002, 0.001, 0.002, 0.3, 0.99):
        path.write_bytes(whole[: int(len(whole) * share)])
        refused(path, "not a checkpoint, or truncated")


@pytest.mark.parametrize("content", [[1, 2], {}, torch.ones(3), {"state_dict": {}}, {"state_dict": {}, "epoch": 1}])
def test_a_checkpoint_without_named_tensors_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pth")
    refused(tmp_path / "w.pth", "expected a dict of tensors by name")


def test_other_values_among_the_tensors_are_listed(tmp_path: Path, state: State) -> None:
    torch.save({**state, "epoch": 3}, tmp_path / "w.pth")
    refused(tmp_path / "w.pth", "found also 'epoch' (int)")


class Payload:
    """Runs a command when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("name", ["w.pth", "w.ckpt"])
def test_a_malicious_pickle_does_not_run(tmp_path: Path, name: str, new_format: bool, state: State) -> None:
    mark = tmp_path / "ran"
    content = {"state_dict": prefixed(state), "callbacks": Payload(mark)}
    torch.save(content, tmp_path / name, _use_new_zipfile_serialization=new_format)
    refused(tmp_path / name, "system", "is not a tensor; it is refused", "safetensors.torch.save_file")
    assert not mark.exists()
    (tmp_path / name).write_bytes(pickle.dumps(Payload(mark), protocol=2))
    refused(tmp_path / name)
    assert not mark.exists()


def test_a_harmless_pickled_object_is_refused_with_its_name(tmp_path: Path, state: State) -> None:
    torch.save({"state_dict": prefixed(state), "hyper_parameters": Path("a")}, tmp_path / "w.ckpt")
    refused(tmp_path / "w.ckpt", "the pickled object pathlib.", "export its tensors")


def test_missing_tensors_are_listed(tmp_path: Path, state: State) -> None:
    gone = list(state)[5:18]
    message = refused(saved(tmp_path / "w.pth", without(state, *gone)), "missing tensors", *gone[:10], "and 3 more")
    assert gone[10] not in message


def test_unexpected_tensors_are_listed(tmp_path: Path, state: State) -> None:
    extra = OrderedDict([*state.items(), ("decoder.extra.weight", torch.ones(2))])
    refused(saved(tmp_path / "w.pth", extra), "unexpected tensors: decoder.extra.weight")


def test_tensors_of_other_shapes_are_listed_with_both_shapes(tmp_path: Path, state: State) -> None:
    name = "decoder.blocks.0.conv1.0.weight"
    out, into, height, width = state[name].shape
    odd = OrderedDict(state, **{name: torch.zeros(out, into + 1, height, width)})
    refused(saved(tmp_path / "w.pth", odd), f"{name} ({out} × {into + 1} × 3 × 3, float32) for ({out} × {into} × 3 × 3")
    whole = OrderedDict(state, **{name: state[name].to(torch.int8)})
    refused(saved(tmp_path / "w.pth", whole), "of another shape or type", "int8")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(tmp_path: Path, state: State, value: float) -> None:
    bias = state[HEAD[1]].clone()
    bias[3] = value
    refused(saved(tmp_path / "w.pth", OrderedDict(state, **{HEAD[1]: bias})), "NaN or infinite", HEAD[1])


def test_a_double_that_overflows_float32_is_refused(tmp_path: Path, state: State) -> None:
    bias = state[HEAD[1]].double()
    bias[3] = 1e300
    refused(saved(tmp_path / "w.pth", OrderedDict(state, **{HEAD[1]: bias})), "NaN or infinite", HEAD[1])


def test_another_number_of_logits_is_refused(tmp_path: Path, state: State) -> None:
    head = {name: state[name][:13].clone() for name in HEAD}
    path = saved(tmp_path / "w.pth", OrderedDict(state, **head))
    refused(
        path,
        "its head has 13 logits, the recipe 19",
        "no shipped recipe with such an encoder and decoder has 5 bands and 13 logits",
    )
    thirteen = LIGHT.model_copy(update={"name": "thirteen", "logits": 13})
    no_other = "no shipped recipe with such an encoder and decoder has 5 bands and 19 logits"
    refused(saved(path, state), "its head has 19 logits, the recipe 13", no_other, recipe=thirteen)


def test_another_number_of_bands_is_refused(tmp_path: Path, state: State) -> None:
    path = saved(tmp_path / "w.pth", OrderedDict(state, **{FIRST: state[FIRST][:, :3].clone()}))
    refused(path, "its input has 3 channels, the recipe 5 (red, green, blue, nir, elevation)")


def test_a_tensor_with_and_without_prefix_is_refused(tmp_path: Path, state: State) -> None:
    torch.save(OrderedDict([*prefixed(state).items(), (FIRST, state[FIRST])]), tmp_path / "w.pth")
    refused(tmp_path / "w.pth", "both with and without")


def test_an_unknown_encoder_or_a_wrong_stride_is_refused() -> None:
    for encoder in ("resnet35", "tu-resnet35"):
        with pytest.raises(ConfigError, match="resnet35"):
            build_network(LIGHT.model_copy(update={"encoder": encoder}))
    with pytest.raises(ConfigError, match=r"decoder channels \(8, 8\)"):
        build_network(LIGHT.model_copy(update={"decoder_channels": (8, 8)}))
    with pytest.raises(ConfigError, match="set stride: 32"):
        build_network(LIGHT.model_copy(update={"stride": 16}))


def test_loading_a_file_opens_no_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: State) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a socket was asked for")

    path = saved(tmp_path / "w.pth", state)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert load_model(path, LIGHT).weights_hash
    assert build_network(load_recipe(DEFAULT_RECIPE))
