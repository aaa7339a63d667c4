"""Quantised LMs: prompts train through them as through the LM of the same, dequantised weights."""

import pytest
import tiny
import torch
from family_checks import FAR, ROWS, TOLERANCE, WORDS

from ptune.errors import ModelError, StoreError
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PrefixSettings, PromptModel, Task
from ptune.settings import TrainConfig
from ptune.storage import prompt_folder
from ptune.template.language import Template
from ptune.training.loop import fit

quantization = pytest.importorskip(
    "torchao.quantization", reason="torchao is not installed: pip install 'ptune[quantised]'"
)
Int8DynamicActivationInt8WeightConfig = quantization.Int8DynamicActivationInt8WeightConfig
Int8WeightOnlyConfig, quantize_ = quantization.Int8WeightOnlyConfig, quantization.quantize_
pytestmark = pytest.mark.filterwarnings("ignore")  # the quantiser's own
TEMPLATES = (
    "{soft:3} {subject} {mask}",
    "{prefix:3} {subject} is {mask}",
    "{prefix:2} The {subject} {soft:2} {mask}",
)


def dequantised(family: str, network):
    """The plain LM with the weights that the quantised one computes with."""
    plain, _ = tiny.tiny(family)
    layers, count = dict(plain.named_modules()), 0
    for name, layer in network.named_modules():
        weight = getattr(layer, "weight", None)
        if type(weight) not in (torch.nn.Parameter, torch.Tensor, type(None)):
            layers[name].weight = torch.nn.Parameter(
                weight.dequantize().detach().clone(), requires_grad=False
            )
            count += 1
    assert count > 10
    return plain


def prompts(network, tokenizer) -> PromptModel:
    model = PromptModel(LanguageModel(network, tokenizer))
    for number, text in enumerate(TEMPLATES):
        model.add(
            Task(
                f"task {number}",
                Template.parse(text),
                WORDS,
                encoder="table",
                prefix=PrefixSettings(0),
            )
        )
    for number, parameter in enumerate(model.bank.parameters()):
        torch.nn.init.normal_(parameter, 0, 0.7, generator=torch.Generator().manual_seed(number))
    return model


def learn(model: PromptModel) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    losses = model.losses([example for task in range(3) for example in model.encode(task, ROWS)])
    return losses.detach(), torch.autograd.grad(losses.sum(), list(model.bank.parameters()))


@pytest.mark.parametrize("family", ["llama", "bert", "t5", "opt"])
def test_gradients_are_those_of_the_dequantised_lm(family):
    network, tokenizer = tiny.tiny(family)
    quantize_(network, Int8WeightOnlyConfig())
    model = prompts(network, tokenizer)
    losses, gradients = learn(model)
    expected, expected_gradients = learn(prompts(dequantised(family, network), tokenizer))
    full, full_own = learn(prompts(*tiny.tiny(family)))
    assert (full - expected).abs().max() > FAR, "the LM as it was does not show"
    torch.testing.assert_close(losses, expected, atol=TOLERANCE, rtol=TOLERANCE)
    for ours, theirs, unquantised in zip(gradients, expected_gradients, full_own):
        scale = theirs.abs().max()
        assert ours.abs().sum(1).min() > 0 and (unquantised - theirs).abs().max() / scale > FAR
        torch.testing.assert_close(ours / scale, theirs / scale, atol=5 * TOLERANCE, rtol=0)
    before = [parameter.detach().clone() for parameter in model.bank.parameters()]
    fit(
        model,
        dict.fromkeys(range(3), (ROWS, ROWS)),
        TrainConfig(epochs=2, learning_rate=0.1, patience=0),
    )
    assert not any(map(torch.equal, before, model.bank.parameters()))


def test_one_that_loses_the_gradient_serves_but_does_not_train():
    network, tokenizer = tiny.tiny("llama")
    quantize_(network, Int8DynamicActivationInt8WeightConfig())
    model = prompts(network, tokenizer)
    assert len({tuple(model.predict(ROWS, task)[0]["scores"].values()) for task in range(3)}) == 3
    for task in range(3):
        with pytest.raises(ModelError, match="No gradient comes back through LlamaForCausalLM"):
            fit(model, {task: (ROWS, ROWS)}, TrainConfig(epochs=1))


@pytest.mark.parametrize(
    "family, settings",
    [
        ("llama", Int8WeightOnlyConfig()),
        ("llama", Int8DynamicActivationInt8WeightConfig()),
        ("bert", Int8WeightOnlyConfig()),
        ("t5", Int8WeightOnlyConfig()),
    ],
)
def test_it_serves_prompts_of_the_lm_as_it_was(family, settings, tmp_path):
    prompt_folder.save(prompts(*tiny.tiny(family)), tmp_path)
    network, tokenizer = tiny.tiny(family)
    quantize_(network, settings)
    lm = LanguageModel(network, tokenizer)
    assert lm.record().quantised
    prompt_folder.load(tmp_path, lm)
    prompt_folder.save(prompts(network, tokenizer), tmp_path / "quantised")
    prompt_folder.load(tmp_path / "quantised", LanguageModel(*tiny.tiny(family)))
    other, _ = tiny.tiny(family, seed=1)
    other.get_input_embeddings().weight = network.get_input_embeddings().weight
    quantize_(other, settings)
    with pytest.raises(StoreError, match="other weights"):
        prompt_folder.load(tmp_path, LanguageModel(other, tokenizer))
