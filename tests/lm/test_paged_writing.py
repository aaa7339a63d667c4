"""Continuous batching with prompts, and what it uses of transformers."""

import pytest
import tiny
import torch
import transformers
from more_families import more_families  # noqa: F401 (a fixture)

from ptune.errors import ModelError
from ptune.lm.language_model import LanguageModel
from ptune.lm.patches import paged_writing
from ptune.lm.patches.paged_writing import KNOWN, PARTS, PagedWriter, check_version, refusal
from ptune.prompts.bank import PrefixBatch
from ptune.template.encoding.encode import EncodedRow


def test_this_version_of_transformers_is_known():
    """Where this fails, read what has changed in transformers/generation/continuous_batching, run
    the tests of this file and of serving/engines, and only then add the version to KNOWN."""
    assert ".".join(transformers.__version__.split(".")[:2]) in KNOWN


def test_a_version_that_lacks_a_part_is_refused_by_its_name(monkeypatch):
    check_version()
    for owner, names in PARTS.items():
        monkeypatch.setitem(PARTS, owner, (*names, "gone"))
        with pytest.raises(ModelError, match=f"no {owner}.gone.*tried with 5.23"):
            check_version()
        monkeypatch.setitem(PARTS, owner, names)


REASONS = {
    "gemma": "eager function",
    "eager gpt2": "eager function",
    "bloom": "eager function",
    "gptj": "eager function",
    "bert": "is no causal LM",
    "t5": "is no causal LM",
    "phi3": "longrope",
    "mamba": "",
}
if transformers.__version__.startswith("5.24"):  # there the LM's own code writes into the cache
    REASONS |= {"opt": "get_seq_length", "neox": "argument", "gptj": ""}


@pytest.mark.parametrize(
    "family", sorted({"gpt2", "opt", "llama", "qwen", "neox", "mistral", *REASONS})
)
def test_each_lm_can_or_is_refused_with_the_reason(family):
    lm = LanguageModel(*tiny.tiny(family))
    before = lm.model.config._attn_implementation
    reason = refusal(lm)
    if family in REASONS:
        assert (reason or family == "gptj") and REASONS[family] in reason
    else:
        assert not reason
    assert lm.model.config._attn_implementation == before
    assert not hasattr(lm.model.config, "is_causal")


@pytest.mark.parametrize("lost", ["soft", "deep"])
def test_the_trial_sees_vectors_that_do_not_arrive(lost, monkeypatch):
    lm = LanguageModel(*tiny.tiny("llama"))
    virtual = PagedWriter.virtual

    def without(writer, vectors, prefixes):
        if lost == "soft" and vectors is not None:
            vectors = vectors + 1
        if lost == "deep" and prefixes is not None:
            prefixes = PrefixBatch(prefixes.values + 1, prefixes.lengths, prefixes.reach)
        return virtual(writer, vectors, prefixes)

    monkeypatch.setattr(PagedWriter, "virtual", without)
    assert "scores rows otherwise" in refusal(lm)


def test_rows_that_begin_alike_share_pages_and_other_prompts_never_do():
    """Block sharing goes by ids; a deep prefix has ids of its own, however equal the text."""
    lm = LanguageModel(*tiny.tiny("llama"))
    writer = PagedWriter(lm, 512, 8)
    text = tuple(range(5, 45))
    row = EncodedRow(text, (-1,) * 40, None, (39,), prefix=(0,) * 20)
    width, torch_seed = lm.route.width, torch.Generator()
    written = []
    for seed in (1, 2, 1):
        values = torch.randn(1, 20, width, generator=torch_seed.manual_seed(seed))
        reach = torch.ones(1, width, dtype=torch.bool)
        prompt = writer.virtual(None, PrefixBatch(values, torch.tensor([20]), reach))
        name, tokens = writer.add(row, prompt, 6), []
        while len(writer):
            tokens += [token for one, token in writer.step().items() if one == name]
        written.append(tokens)
    assert written[0] == written[2] != written[1]
    assert paged_writing.PAGE < 20, "a page is shared only where it is full"
