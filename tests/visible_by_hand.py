"""Who sees whom, written out plainly: one row at a time, through a stock network with its eager
attention, which gets a mask of all pairs of tokens by hand."""

import copy
import functools

import tiny
import torch
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from ptune.answers.label_words import Verbalizer
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PrefixSettings, PromptModel, Task
from ptune.settings import VisibilityRule
from ptune.template.language import Template

TEMPLATE = "{soft:2} {premise} {soft:3@s} {hypothesis} ? it is {mask}"
PLAIN = "{hypothesis} {soft:1} {premise} is {mask}"
RULES = {
    "fields apart": [("premise", "hypothesis"), ("hypothesis", "premise")],
    "text without the prompt": [("soft", "fields")],
    "soft tokens apart": [("soft", "soft")],
    "answer without a field": [("premise", "mask")],
    "a named run": [(("premise", "words"), ("soft@s", "hypothesis")), ("soft@s", "mask")],
    "none": [],
}
ROWS = [
    {"premise": "Vienna lies on the Danube", "hypothesis": "Rome", "label": "a"},
    {"premise": "Berlin", "hypothesis": "It was a great film , it was", "label": "b"},
    {"premise": "the capital of France", "hypothesis": "Paris is great", "label": "b"},
]
WORDS = Verbalizer.from_words({"a": ["Yes", "great"], "b": ["No", "good"]})
WINDOWED = {"modernbert": 8, "gemma": 8, "mistral": 8}


def rules(pairs) -> list[VisibilityRule]:
    return [VisibilityRule(hide=hide, from_=blind) for hide, blind in pairs]


def build(family: str, texts: bool = False) -> PromptModel:
    """A prompt with each of the rules, in one bank over one tiny LM, and one of another template
    without rules."""
    model = PromptModel(LanguageModel(*tiny.tiny(family)))
    templates = TEMPLATE, PLAIN
    if model.lm.kind == "encoder-decoder":
        templates = TEMPLATE.replace(" {mask}", ""), PLAIN.replace(" {mask}", "")
    for name, pairs in RULES.items():
        add(model, name, templates[0], None if texts else WORDS, pairs)
    add(model, "another", templates[1], None if texts else WORDS, [])
    widen(model)
    return model


def build_with(
    family: str, template: str, named, texts: bool = False, dtype: torch.dtype = torch.float32
) -> PromptModel:
    """The same prompt with several rules, by their names."""
    model = PromptModel(LanguageModel(*tiny.tiny(family, dtype)))
    is_text = texts or model.lm.kind == "encoder-decoder"
    for name, pairs in named.items():
        add(model, name, template, None if is_text else WORDS, pairs)
    model.bank.to(dtype)
    widen(model, apart=False)
    return model


def add(model: PromptModel, name: str, template: str, words, pairs) -> None:
    parsed = Template.parse(template).with_visibility(rules(pairs))
    model.add(Task(name, parsed, words, encoder="table", prefix=PrefixSettings(0)))


def widen(model: PromptModel, apart: bool = True) -> None:
    """Wide vectors, so that a swapped one shows; those of all prompts alike unless they are
    ``apart``."""
    for prompt in range(len(model.bank)):
        for number, parameter in enumerate(model.bank.parameters_of(prompt)):
            seed = torch.Generator().manual_seed(10 * prompt * apart + number)
            torch.nn.init.normal_(parameter, 0, 0.7, generator=seed)


def names(model: PromptModel, row, answer: int = 1) -> list[set[str]]:
    """What each token of TEMPLATE is called by rules, from the tokens of its pieces.

    Args:
        answer: how many tokens of the answer are read.
    """
    tokens, causal = model.lm.tokens, model.lm.kind == "causal"
    pieces = [
        ({"words"}, len(tokens.before)),
        ({"soft"}, 2),
        ({"premise", "fields"}, len(tokens.follow(f" {row['premise']}"))),
        ({"soft", "soft@s"}, 3),
        ({"hypothesis", "fields"}, len(tokens.follow(f" {row['hypothesis']}"))),
        ({"words"}, len(tokens.follow(" ? it is"))),
    ]
    if model.lm.kind != "encoder-decoder":
        pieces.append(({"mask"}, answer - 1 if causal else answer))
    if not causal:
        pieces.append(({"words"}, len(tokens.after)))
    return [called for called, count in pieces for _ in range(count)]


def hides(pairs, hidden: set[str], blind: set[str]) -> bool:
    """Whether a rule hides a token from another one."""

    def listed(side):
        return {side} if isinstance(side, str) else set(side)

    return any(listed(hide) & hidden and listed(one) & blind for hide, one in pairs)


def visible(model: PromptModel, pairs, called: list[set[str]]) -> torch.Tensor:
    """Whether each token sees each other one [T, T], as far as the rules and the order go."""
    count = len(called)
    seen = torch.ones(count, count, dtype=torch.bool)
    reads = next((n for n in reversed(range(count)) if "mask" not in called[n]), -1)
    for query in range(count):
        for key in range(count):
            blind = called[query]
            if model.lm.kind == "causal" and query == reads:
                blind = blind | {"mask"}
            if query != key and hides(pairs, called[key], blind):
                seen[query, key] = False
            if model.lm.kind == "causal" and key > query:
                seen[query, key] = False
    return seen


def run(model: PromptModel, encoded, task: int, seen: torch.Tensor, **more) -> torch.Tensor:
    """The scores of every token of a row [T, V] by the LM's own network as it is set now."""
    vectors = model.bank.encoders[model.tasks[task].prompt]()
    embeds = [
        vectors[slot] if slot >= 0 else model.lm.embed(torch.tensor([token]))[0]
        for token, slot in zip(encoded.ids, encoded.soft_slots)
    ]
    types = {} if encoded.types is None else {"token_type_ids": torch.tensor([encoded.types])}
    inputs = {"inputs_embeds": torch.stack(embeds)[None], "attention_mask": added(seen)}
    return model.lm.model(**inputs, **types, **more).logits[0]


@functools.cache
def stock(family: str) -> PreTrainedModel:
    """The same network without ptune, with its eager attention."""
    network = copy.deepcopy(tiny.tiny(family)[0])
    network.load_state_dict(tiny.tiny(family)[0].state_dict())
    network.set_attn_implementation("eager")
    return network.eval()


def added(seen: torch.Tensor) -> torch.Tensor:
    """A mask of all pairs as a family's eager attention takes it [1, 1, Q, K]."""
    return torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)[None, None]


def logits(model: PromptModel, family: str, task: int, encoded, seen: torch.Tensor) -> torch.Tensor:
    """The scores of every token of a row [T, V], of an encoder-decoder those of its decoder."""
    network, fitted = stock(family), model.tasks[task]
    vectors = model.bank.encoders[fitted.prompt]()
    embeds = torch.stack(
        [
            vectors[slot] if slot >= 0 else model.lm.embed(torch.tensor([token]))[0]
            for token, slot in zip(encoded.ids, encoded.soft_slots)
        ]
    )[None]
    if encoded.decoder is not None:
        pairs = RULES[fitted.task.name]
        hidden = network.encoder(inputs_embeds=embeds, attention_mask=added(seen)).last_hidden_state
        called, size = names(model, encoded.row), len(encoded.decoder)
        crossed = torch.tensor([[not hides(pairs, one, {"mask"}) for one in called]] * size)
        return network(
            encoder_outputs=BaseModelOutput(hidden),
            attention_mask=added(crossed),
            decoder_input_ids=torch.tensor([encoded.decoder]),
        ).logits[0]
    inputs = {"inputs_embeds": embeds, "attention_mask": added(seen)}
    places = torch.arange(len(seen))
    apart = places[:, None] - places
    window = WINDOWED.get(family)
    if family == "modernbert":
        local = seen & (apart.abs() <= window // 2)
        inputs["attention_mask"] = {
            "full_attention": added(seen),
            "sliding_attention": added(local),
        }
    elif family == "gemma":
        inputs["attention_mask"] = {
            "full_attention": added(seen),
            "sliding_attention": added(seen & (apart < window)),
        }
    elif family == "mistral":
        inputs["attention_mask"] = added(seen & (apart < window))
    if encoded.types is not None and family in ("bert", "electra"):
        inputs["token_type_ids"] = torch.tensor([encoded.types])
    if family == "opt":  # which counts its positions from its mask
        inputs["position_ids"] = places[None]
    return network(**inputs).logits[0]


class RowByHand:
    """An encoded row with the row that it is of."""

    def __init__(self, encoded, row):
        self.row, self.encoded = row, encoded

    def __getattr__(self, name):
        return getattr(self.encoded, name)


def log_probs(model: PromptModel, family: str, task: int, row, encoded) -> torch.Tensor:
    """Log probabilities where the answer of a row is read [K, V]; row ``task`` has TEMPLATE."""
    called = names(model, row, len(encoded.answer_positions))
    assert len(called) == len(encoded.ids)
    seen = visible(model, RULES[model.tasks[task].task.name], called)
    values = logits(model, family, task, RowByHand(encoded, row), seen)
    return torch.stack([values[place] for place in encoded.answer_positions]).log_softmax(-1)
