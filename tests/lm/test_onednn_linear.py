"""Linear layers by oneDNN against torch's own."""

import family_checks
import prefix_family_checks
import pytest
import tiny
import torch
from family_checks import TOLERANCE
from torch import nn
from transformers.pytorch_utils import Conv1D

from ptune.lm.language_model import LanguageModel
from ptune.lm.patches.cpu import onednn_linear
from ptune.model.prompt_model import PromptModel

if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
    pytest.skip("this torch has no oneDNN", allow_module_level=True)


@pytest.fixture
def by_onednn(monkeypatch):
    """All linear layers of LMs that are loaded from now on, and how many products they make."""
    products: list[tuple[int, ...]] = []
    right = onednn_linear.multiply
    monkeypatch.setattr(onednn_linear, "LARGE", 0)
    monkeypatch.setattr(onednn_linear, "pays", lambda: True)
    monkeypatch.setattr(
        onednn_linear,
        "multiply",
        lambda rows, weight, bias=None: (
            products.append(tuple(weight.shape)) or right(rows, weight, bias)
        ),
    )
    return products


def results(model: PromptModel, rows) -> list[torch.Tensor]:
    losses = model.losses(rows)
    return [losses.detach(), *torch.autograd.grad(losses.sum(), list(model.bank.parameters()))]


@pytest.mark.parametrize("tests", [family_checks, prefix_family_checks])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_an_lm_is_the_same(family, tests, by_onednn, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(onednn_linear, "pays", lambda: False)
        stock = tests.build(family)
    model = tests.build(family)
    rows = tests.examples(stock)
    by_onednn.clear()
    expected = results(stock, rows)
    assert not by_onednn
    actual = results(model, tests.examples(model))
    model.lm.recompute(True)
    again = results(model, tests.examples(model))
    model.lm.recompute(False)
    layers = sum(type(part) in (nn.Linear, Conv1D) for part in model.lm.model.modules())
    assert len(by_onednn) > layers, "forward and backward"
    for ours, theirs in zip([*actual, *again], [*expected, *expected]):
        scale = theirs.abs().max().clamp(min=1)
        torch.testing.assert_close(ours / scale, theirs / scale, atol=TOLERANCE, rtol=0)


LAYOUTS = {
    "rows": lambda: torch.randn(7, 24),
    "batches": lambda: torch.randn(2, 3, 7, 24),
    "transposed": lambda: torch.randn(24, 7).T,
    "every other": lambda: torch.randn(14, 48)[::2, ::2],
    "one row repeated": lambda: torch.randn(1, 24).expand(5, 24),
    "turned": lambda: torch.randn(3, 7, 24).transpose(0, 1),
    "none": lambda: torch.randn(0, 24),
    "a vector": lambda: torch.randn(24),
}


LAYERS = {
    "linear": lambda: nn.Linear(24, 40),
    "without bias": lambda: nn.Linear(24, 40, bias=False),
    "Conv1D": lambda: Conv1D(40, 24),
}
UPSTREAM = [
    torch.sum,
    lambda out: (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum(),
    lambda out: out.transpose(0, -1).square().sum(),
]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_that_is_trained(kind, layout, by_onednn):
    torch.manual_seed(0)
    layer = nn.Sequential(LAYERS[kind]())
    onednn_linear.use_onednn(layer)
    parameters = dict(layer[0].named_parameters())

    def plain(rows: torch.Tensor) -> torch.Tensor:
        weight = parameters["weight"]
        return nn.functional.linear(
            rows, weight.T if kind == "Conv1D" else weight, parameters.get("bias")
        )

    rows = LAYOUTS[layout]()
    for upstream in UPSTREAM:
        results = []
        for product in (plain, layer):
            inputs = rows.detach().requires_grad_()
            out = product(inputs)
            results.append(
                [out.detach(), *torch.autograd.grad(upstream(out), [inputs, *parameters.values()])]
            )
        torch.testing.assert_close(results[1], results[0], atol=TOLERANCE, rtol=TOLERANCE)
    assert bool(by_onednn) == (layout not in ("none", "a vector"))


def test_what_is_left_alone(by_onednn, monkeypatch):
    network, tokenizer = tiny.tiny("bert")
    layer = next(part for part in network.modules() if type(part) is nn.Linear)
    layer.forward = forward = layer.forward
    LanguageModel(network, tokenizer)
    assert layer.forward is forward
    before = [vars(part).get("forward") for part in network.modules()]
    LanguageModel(network, tokenizer)
    assert [vars(part).get("forward") for part in network.modules()] == before, "hastened twice"
    for small in (network.double(), tiny.tiny("bert")[0].bfloat16()):
        by_onednn.clear()
        with torch.no_grad():
            small(input_ids=torch.tensor([[1, 2, 3]]))
        assert not by_onednn
    monkeypatch.setattr(onednn_linear, "LARGE", 2**30)
    network = tiny.tiny("bert")[0]
    onednn_linear.use_onednn(network)
    assert not any("forward" in vars(part) for part in network.modules())


def test_mixed_precision_is_torchs(by_onednn):
    network, tokenizer = tiny.tiny("bert")
    lm = LanguageModel(network, tokenizer)
    by_onednn.clear()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert lm.model(input_ids=torch.tensor([[1, 2, 3]])).logits.dtype == torch.bfloat16
    assert not by_onednn


@pytest.mark.parametrize(
    "vendor, capability, faster",
    [
        ("AuthenticAMD", "AVX512", True),
        ("AuthenticAMD", "AVX2", False),
        ("GenuineIntel", "AVX512", False),
    ],
)
def test_the_cpu_alone_decides(vendor, capability, faster, monkeypatch, tmp_path):
    """A clock would choose otherwise on a busy machine, and a run would not repeat."""
    (tmp_path / "cpuinfo").write_text(f"processor: 0\nvendor_id: {vendor}\n")
    monkeypatch.setattr(onednn_linear, "CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    onednn_linear.pays.cache_clear()
    assert onednn_linear.pays() is (faster and torch.backends.mkl.is_available())
    monkeypatch.setattr(onednn_linear, "CPU_INFO", tmp_path / "none")
    monkeypatch.setattr(onednn_linear.platform, "processor", lambda: f"Family 25, {vendor}")
    onednn_linear.pays.cache_clear()
    assert onednn_linear.pays() is (faster and torch.backends.mkl.is_available())
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    onednn_linear.pays.cache_clear()
    assert not onednn_linear.pays()
    onednn_linear.pays.cache_clear()
