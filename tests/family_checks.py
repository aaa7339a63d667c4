"""A model with soft tokens over a tiny LM of any family, and its rows: prompts of different
templates, lengths and encoders."""

import tiny
import torch

from ptune.answers.label_words import Verbalizer
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PromptModel, Task
from ptune.template.language import Template

TOLERANCE = 1e-5


FAR = 100 * TOLERANCE


ROWS = [
    {"subject": "Austria", "text": "Vienna lies on the Danube", "label": "a"},
    {"subject": "France", "text": "It was a great film , it was", "label": "b"},
    {"subject": "the capital of Germany", "text": "Rome", "label": "b"},
]


WORDS = Verbalizer.from_words({"a": ["Yes", "great"], "b": ["No", "terrible"]})


ONE_WORD = Verbalizer.from_words(
    {"a": "Yes", "b": "No"}
)  # as a comparison with the whole vocabulary needs


def build(family: str, dtype: torch.dtype = torch.float32) -> PromptModel:
    """Three prompts of different templates, lengths and encoders over one tiny LM, and a manual
    one."""
    network, tokenizer = tiny.tiny(family, dtype)
    model = PromptModel(LanguageModel(network, tokenizer))
    model.bank.to(dtype)
    behind = " {soft:2}" if model.lm.kind == "masked" else ""
    for number, (text, encoder, loss) in enumerate(
        [
            ("{soft:3} {subject} {soft:2} {mask}" + behind, "lstm", "vocabulary"),
            ("{text} {soft:4@s} {subject} {soft@s} {mask}", "mlp", "labels"),
            ('The {subject} {soft:"capital of"} {text} is {mask}', "table", "labels"),
            ("{text} ? {mask}", "table", "labels"),
        ]
    ):
        model.add(
            Task(
                f"task {number}",
                Template.parse(text),
                WORDS if loss == "labels" else ONE_WORD,
                encoder=encoder,
                loss=loss,
            )
        )
    for encoder in model.bank.encoders:
        encoder.to(dtype)
        for parameter in encoder.parameters():  # wide soft vectors, so that a swapped one shows
            torch.nn.init.normal_(
                parameter, 0, 0.5, generator=torch.Generator().manual_seed(parameter.numel())
            )
    return model


def examples(model: PromptModel):
    return [example for task in range(4) for example in model.encode(task, ROWS)]
