"""LMs that transformers loads with layers on the disk, or quantised: prompts train through them as
through the plain LM with the same weights."""

import pytest
import tiny
import torch
from family_checks import FAR, ROWS, TOLERANCE, WORDS
from transformers import AutoModelForCausalLM

from ptune.errors import ModelError
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PrefixSettings, PromptModel, Task
from ptune.template.language import Template

pytestmark = pytest.mark.filterwarnings("ignore")  # the loaders' own


def learn(lm: LanguageModel):
    """The losses of rows of two prompts, and the gradients of what is trained."""
    model = PromptModel(lm)
    for number, text in enumerate(("{soft:3} {subject} {mask}", "{prefix:3} {subject} is {mask}")):
        template, prefix = Template.parse(text), PrefixSettings(0)
        model.add(Task(f"task {number}", template, WORDS, encoder="table", prefix=prefix))
    for number, parameter in enumerate(model.bank.parameters()):
        torch.nn.init.normal_(parameter, 0, 0.7, generator=torch.Generator().manual_seed(number))
    losses = model.losses([example for task in range(2) for example in model.encode(task, ROWS)])
    return [losses.detach(), *torch.autograd.grad(losses.sum(), list(model.bank.parameters()))]


def apart(some, others):
    return max(
        float((one - other).abs().max() / other.abs().max()) for one, other in zip(some, others)
    )


@pytest.fixture
def saved(tmp_path):
    """The folder of a small LM, and its tokenizer."""
    network, tokenizer = tiny.tiny("llama")
    network.save_pretrained(tmp_path / "lm")
    tokenizer.save_pretrained(tmp_path / "lm")
    return tmp_path / "lm", tokenizer


def test_layers_that_wait_on_the_disk_train_prompts_as_those_in_memory(saved):
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    folder, tokenizer = saved
    expected = learn(LanguageModel(*tiny.tiny("llama")))
    room = int(0.7 * sum(p.numel() * 4 for p in tiny.tiny("llama")[0].parameters()))
    network = AutoModelForCausalLM.from_pretrained(
        folder,
        device_map="auto",
        max_memory={"cpu": room},
        offload_folder=str(folder.parent / "offloaded"),
    )
    assert network.hf_device_map["model.layers"] == "disk"
    values = learn(LanguageModel(network, tokenizer))
    other = learn(LanguageModel(*tiny.tiny("llama", seed=1)))
    assert apart(other, expected) > FAR and apart(values, expected) < TOLERANCE
    assert all(value.isfinite().all() and value.abs().sum() > 0 for value in values)


def quantised(folder, **settings):
    bits = pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(**settings)
    network = AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=config, device_map={"": "cpu"}
    )
    return network, bits


def test_four_bits_train_prompts_as_the_same_weights_dequantised(saved):
    folder, tokenizer = saved
    network, bits = quantised(
        folder, load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32, bnb_4bit_quant_type="nf4"
    )
    plain, _ = tiny.tiny("llama")
    layers, count = dict(plain.named_modules()), 0
    for name, layer in network.named_modules():
        if isinstance(layer, bits.nn.Linear4bit):
            weight = bits.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
            layers[name].weight.data = weight.float().reshape(layers[name].weight.shape)
            count += 1
    assert count > 10
    values, expected = (
        learn(LanguageModel(network, tokenizer)),
        learn(LanguageModel(plain, tokenizer)),
    )
    unquantised = learn(LanguageModel(*tiny.tiny("llama")))
    assert apart(unquantised, expected) > FAR and apart(values, expected) < 5 * TOLERANCE


def test_eight_bits_that_depend_on_other_rows_are_refused_with_the_reason(saved):
    folder, tokenizer = saved
    network, _ = quantised(folder, load_in_8bit=True)
    with pytest.raises(ModelError, match="quantiser.*bitsandbytes.*4 bits"):
        LanguageModel(network, tokenizer)


def test_a_quantised_folder_of_torchao_is_loaded_as_it_is(saved):
    quantization = pytest.importorskip("torchao.quantization", reason="torchao is not installed")
    from transformers import TorchAoConfig

    folder, tokenizer = saved
    network = AutoModelForCausalLM.from_pretrained(
        folder,
        quantization_config=TorchAoConfig(quantization.Int8WeightOnlyConfig()),
        device_map="cpu",
    )
    network.save_pretrained(folder.parent / "int8")
    tokenizer.save_pretrained(folder.parent / "int8")
    expected = learn(LanguageModel(network, tokenizer))
    lm = LanguageModel.load(str(folder.parent / "int8"), device="cpu")
    assert lm.record().quantised and apart(learn(lm), expected) < TOLERANCE
    assert apart(learn(LanguageModel(*tiny.tiny("llama"))), expected) > FAR
