"""A prompt's LM is known by every one of its weights, in any number format."""

import copy
import itertools

import pytest
import tiny
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ptune.answers.label_words import Verbalizer
from ptune.base import files
from ptune.errors import StoreError
from ptune.lm.identity.fingerprint import difference, record
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PrefixSettings, PromptModel, Task
from ptune.storage import prompt_folder, saved_prompt
from ptune.template.language import Template

WORDS = Verbalizer.from_words({"a": "Yes", "b": "No"})
FORMATS = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
FAMILIES = ["bert", "llama", "bart"]


def prompt_on(network, tokenizer, folder):
    """A saved prompt that belongs to this LM."""
    model = PromptModel(LanguageModel(network, tokenizer))
    model.add(Task("t", Template.parse("{soft:2} {x} {mask}"), WORDS, prefix=PrefixSettings(0)))
    prompt_folder.save(model, folder)
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_a_change_of_any_one_weight_is_seen(family, tmp_path):
    network, tokenizer = tiny.tiny(family)
    folder = prompt_on(network, tokenizer, tmp_path)
    lm = LanguageModel(network, tokenizer)
    before, saved = lm.fingerprint(), lm.record()
    assert lm.difference(saved) is None
    state = copy.deepcopy(network.state_dict())
    floating = [name for name, value in state.items() if value.is_floating_point()]
    assert len(floating) > 15
    for name in floating:
        value = network.state_dict()[name]
        with torch.no_grad():
            value.view(-1)[value.numel() // 3] += 0.01  # one number of one weight
        assert lm.fingerprint() != before and lm.difference(saved), name
        network.load_state_dict(state)
    assert lm.fingerprint() == before
    with torch.no_grad():
        rows = network.get_input_embeddings().weight
        rows[[7, 8]] = rows[[8, 7]]
    with pytest.raises(StoreError, match="has other weights"):
        prompt_folder.load(folder, lm)


@pytest.mark.parametrize("family", ["gpt2", "t5"])
def test_a_tuned_head_is_not_the_untuned_one(family, tmp_path):
    network, tokenizer = tiny.tiny(family)
    lm = LanguageModel(network, tokenizer)
    saved = lm.record()
    lm.tune_head()
    assert lm.difference(saved) is None, "parting the head from the embeddings changes no value"
    with torch.no_grad():
        lm.vocabulary.weight.mul_(1.05)
    assert "other weights (the first that differ: " in lm.difference(saved)
    folder = prompt_on(network, tokenizer, tmp_path)
    with pytest.raises(StoreError, match="has other weights"):
        prompt_folder.load(folder, LanguageModel(*tiny.tiny(family)))


def record_of(network, tokenizer):
    return record(network, tokenizer, rows=network.get_input_embeddings().num_embeddings)


def differs(saved, network, tokenizer):
    return difference(saved, network, tokenizer, record_of(network, tokenizer))


@pytest.mark.parametrize("trained, served", list(itertools.product(FORMATS, FORMATS)))
def test_number_formats(trained, served):
    """The same LM is known in another number format, and its weights after small changes are not
    taken for it."""
    network, tokenizer = tiny.tiny("t5", trained)
    saved = record_of(network, tokenizer)
    assert differs(saved, tiny.tiny("t5", served)[0], tokenizer) is None
    again = copy.deepcopy(network).to(served)  # rounded twice
    assert differs(saved, again, tokenizer) is None
    for name, weight in list(again.named_parameters())[::5]:
        before = weight.detach().clone()
        with torch.no_grad():
            weight.mul_(1.02).add_(0.002)
            assert "other weights" in differs(saved, again, tokenizer), name
            weight.copy_(before)


HALF_AND_FULL = [(torch.float16, torch.float32), (torch.float32, torch.float16)]


@pytest.mark.parametrize("trained, served", HALF_AND_FULL)
def test_one_value_that_changed_is_seen_between_float16_and_float32(trained, served):
    network, tokenizer = tiny.tiny("llama", trained)
    saved = record_of(network, tokenizer)
    again = copy.deepcopy(network).to(served)
    for name, weight in again.named_parameters():
        before = weight.detach().clone()
        with torch.no_grad():
            weight.view(-1)[weight.numel() // 2 + 1] += 0.5003  # float32 alone holds the sum
            assert "other weights" in (differs(saved, again, tokenizer) or ""), name
            weight.copy_(before)
    for weight in again.parameters():
        weight.data *= 1 + 0.001 * torch.randn_like(weight)
    assert differs(saved, again, tokenizer) == "other weights"


def test_a_record_without_a_hash_in_float16_is_compared_exactly_where_it_can_be():
    """Records of earlier versions: the prompts that are saved on the built-in LM."""
    network, tokenizer = tiny.tiny("llama", torch.float16)
    saved = record_of(network, tokenizer).model_copy(update={"halved": ""})
    again = copy.deepcopy(network).float()
    assert differs(saved, again, tokenizer) is None
    with torch.no_grad():
        again.get_input_embeddings().weight[7, 5] += 0.5003
    assert differs(saved, again, tokenizer) == "other weights"
    original, _ = tiny.tiny("llama", torch.float32)
    assert differs(saved, original, tokenizer) is None, "rounded to float16, it is the same LM"


@pytest.mark.parametrize("family", ["gpt2", "bart"])
def test_a_grown_vocabulary_is_named_as_that(family, tmp_path):
    network, tokenizer = tiny.tiny(family)
    folder = prompt_on(network, tokenizer, tmp_path)
    size = len(tokenizer)
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_tokens(["frobnicate", "[NEW]"])
    network.resize_token_embeddings(size + 2, mean_resizing=False)
    lm = LanguageModel(network, tokenizer)
    with pytest.raises(
        StoreError, match="has a vocabulary that has grown since by 2 tokens at its end"
    ):
        prompt_folder.load(folder, lm)
    with torch.no_grad():
        network.get_input_embeddings().weight[3] += 1
    assert "grown" not in lm.difference(saved_prompt.read_saved_prompt(folder).lm.record)


def test_other_tokens_and_another_config_are_named():
    network, tokenizer = tiny.tiny("llama")
    saved = record_of(network, tokenizer)
    other = copy.deepcopy(network)
    other.config.rope_parameters["rope_theta"] = 5000.0
    assert differs(saved, other, tokenizer).startswith(
        "another config (rope_parameters.rope_theta is 5000.0"
    )
    other.config.rope_parameters["rope_theta"] = network.config.rope_parameters["rope_theta"]
    other.config.use_cache = not other.config.use_cache
    other.config.bos_token_id = 5
    assert differs(saved, other, tokenizer) is None, "what decides no answer does not count"
    assert "a tokenizer with other tokens" in differs(saved, network, tiny.unigram())


def test_older_prompts_load_with_what_they_know(tmp_path):
    folder = prompt_on(*tiny.tiny("bert"), tmp_path)
    raw = files.read_json(folder / "prompt.json")
    assert raw["format"] == 3
    del raw["lm"]["record"]
    files.write_json(folder / "prompt.json", raw)
    prompt_folder.load(folder, LanguageModel(*tiny.tiny("bert")))
    with pytest.raises(StoreError, match="has other weights"):
        prompt_folder.load(folder, LanguageModel(*tiny.tiny("bert", seed=1)))


def test_a_record_is_kept_until_a_weight_changes():
    network, tokenizer = tiny.tiny("bert")
    lm = LanguageModel(network, tokenizer)
    first = lm.record()
    assert lm.record() is first
    lm.tune(True)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=True)
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()
    lm.tune(False)
    assert lm.record() is not first and lm.record().exact != first.exact


class Counted(TorchDispatchMode):
    """While this is open, operations of torch are counted, and the numbers that they put out."""

    operations = numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.operations += 1
        self.numbers += result.numel() if isinstance(result, torch.Tensor) else 0
        return result


def test_a_large_weight_takes_few_operations_and_passes():
    """44 operations and 43 passes over its 25 million numbers, as torch 2.13 counts them, which is
    well under a second on an idle machine."""
    network, tokenizer = tiny.tiny("bert")
    with Counted() as small:
        record_of(network, tokenizer)
    network.register_parameter("large", torch.nn.Parameter(torch.randn(2_500, 10_000)))
    with Counted() as whole:
        record_of(network, tokenizer)
    assert 10 < whole.operations - small.operations < 60
    assert whole.numbers - small.numbers < 60 * network.large.numel()
