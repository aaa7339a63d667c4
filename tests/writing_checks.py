"""A model that writes text over a tiny LM of any family, with prompts of every depth, its rows, and
the comparisons of a mixed batch with each row alone."""

import reference
import tiny
import torch

from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PrefixSettings, PromptModel, Task
from ptune.model.running.generate import write, write_all
from ptune.settings import DecodingConfig
from ptune.template.language import Template

ROWS = [
    {"x": "Vienna"},
    {"x": "the capital of France is Paris and the capital of Germany"},
    {"x": "Is it great ?"},
]


WRITERS = ("gpt2", "opt", "neox", "llama", "qwen", "gemma", "t5", "bart")


SHORT = DecodingConfig(max_new_tokens=7)


def build(family: str, dtype: torch.dtype = torch.float32) -> PromptModel:
    model = PromptModel(LanguageModel(*tiny.tiny(family, dtype)))
    causal = model.lm.kind == "causal"
    behind = " is {mask}" if causal else ""
    infix = "{x} {prefix:2} = {mask}" if causal else "{prefix:2} {x} ="
    templates = [
        "{prefix:3} {x}" + behind,
        infix,
        "{prefix:1} {x} {soft:3} ?" + behind,
        "{soft:2} The {x}" + behind,
        "The {x}" + behind,
        "{prefix:2} A {x} {soft:1}" + behind,
    ]
    for number, template in enumerate(templates):
        gates = "row" if number == 5 else False
        model.add(
            Task(
                f"task {number}",
                Template.parse(template),
                None,
                "y",
                encoder="table",
                prefix=PrefixSettings(0, gates=gates),
            )
        )
    gated = f".{model.tasks[5].prompt}."
    named = sorted(model.bank.named_parameters(), key=lambda named: gated in named[0])
    for number, (name, parameter) in enumerate(named):
        wide = 3 if name.endswith(("slopes", "openings")) else 0.7
        torch.nn.init.normal_(parameter, 0, wide, generator=torch.Generator().manual_seed(number))
    return model


def mixed(model: PromptModel, rows=ROWS):
    return [
        example
        for task in range(len(model.tasks))
        for example in model.encode(task, rows, labelled=False, room=7)
    ]


@torch.no_grad()
def alone(model: PromptModel, example, steps: int) -> str:
    """Greedy, one row, everything computed anew at every token, by the plain reference."""
    fitted, ids = model.tasks[example.task], []
    for _ in range(steps):
        row = fitted.template.encode(
            example.row,
            model.lm.tokens,
            model.lm.kind,
            max_length=model.max_length,
            answer=(*ids, None),
            start=model.lm.start,
            keeps_fields=fitted.task.prefix.reads_rows,
        )
        ids.append(int(reference.log_probs(model, example.task, row)[-1].argmax()))
        if ids[-1] == model.lm.end:
            break
    return model.lm.tokens.tokenizer.decode(
        [i for i in ids if i != model.lm.end], skip_special_tokens=True
    ).strip()


def check_mixed_batch_with_cache(family: str) -> None:
    """A mixed batch that is written with a cache gets the texts of its rows, each recomputed."""
    model = build(family)
    examples = mixed(model)
    expected = [alone(model, example, 7) for example in examples]
    assert len(set(expected)) >= 4, "texts that are all the same would hide a swapped row"
    assert write(model, examples, SHORT) == expected
    assert write(model, examples, SHORT.model_copy(update={"rows": 4})) == expected


def check_beams_of_a_batch(family: str) -> None:
    """The beams of a mixed batch are those of each of its rows."""
    model = build(family, torch.float64)
    model.bank.double()
    examples, beams = mixed(model), DecodingConfig(max_new_tokens=7, beams=3, texts=2)
    actual = write_all(model, examples, beams)
    assert actual == [write_all(model, [example], beams)[0] for example in examples]
    assert all(len(texts) == 2 for texts in actual) and any(a != b for a, b in actual)
    assert [texts[0] for texts in actual] != write(model, examples, SHORT), (
        "beams that are all greedy would show nothing"
    )
