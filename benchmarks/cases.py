"""The cases: what is compared on which shape of LM."""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks import documents, http_serving, searching, serving, starting, training
from benchmarks.side import Work


@dataclass(frozen=True)
class Case:
    """Sides by name: ours, the peer, others. ``build`` makes one on a device, of the true shape or
    a small one."""

    title: str
    sides: tuple[str, ...]
    build: Callable[[str, str, bool], Work]


TRAINED = ("ptune", "PEFT", *training.FLOORS)
SERVED = ("ptune", "PEFT", "no prompts", "no prompts, ten words")
LABELS_SERVED = ("ptune", "PEFT", "PEFT, grouped", "no prompts", "no prompts, ten words")
MANY_SERVED = ("ptune", "ptune, 16 prompts", "no prompts")
CASES = {
    "cloze-8": Case(
        "P-tuning, BERT-base shape, 8 rows of 28 tokens, 9 soft tokens", TRAINED, training.cloze(8)
    ),
    "cloze-16": Case(
        "P-tuning, BERT-base shape, 16 rows of 28 tokens, 9 soft tokens",
        TRAINED,
        training.cloze(16),
    ),
    "cloze-32": Case(
        "P-tuning, BERT-base shape, 32 rows of 28 tokens, 9 soft tokens",
        TRAINED,
        training.cloze(32),
    ),
    "spread": Case(
        "classification by a verbalizer, BERT-base shape, 32 rows of 16 to 256 tokens in batches "
        "of 8, 20 soft tokens",
        TRAINED,
        training.spread,
    ),
    "prefix": Case(
        "Prefix-Tuning, GPT-2 small's shape, 10 rows of 60 tokens, a prefix of 10",
        TRAINED,
        training.prefix,
    ),
    "t5": Case(
        "Prompt Tuning, T5-small's shape, 16 rows of 60 tokens, 20 soft tokens",
        TRAINED,
        training.prompt_tuning,
    ),
    "bank": Case(
        "16 P-tuning prompts with 8 rows each, BERT-base shape",
        ("together", "one by one", *training.FLOORS),
        training.bank(16),
    ),
    "bank-41": Case(
        "41 P-tuning prompts with 8 rows each, as many as LAMA's relations, BERT-base shape",
        ("together", "one by one", *training.FLOORS),
        training.bank(41),
    ),
    "document": Case(
        "a document's prefix of 40, taught by 8 slices of 40 tokens, GPT-2 small's shape",
        TRAINED,
        documents.cartridge,
    ),
    "documents": Case(
        "four documents' prefixes of 40, taught by 8 slices of 40 tokens each, GPT-2's shape",
        ("together", "one by one", *training.FLOORS),
        documents.bank,
    ),
    "context": Case(
        "8 soft tokens behind 200 tokens, GPT-2 small's shape, 8 rows",
        ("ptune", "transformers", "ptune, nothing kept", *training.FLOORS),
        training.context,
    ),
    "scoring": Case(
        "labels for 64 requests over 16 prompts, BERT-base shape",
        ("ptune", "PEFT", "PEFT, grouped", *training.FLOORS),
        serving.scoring,
    ),
    "generation": Case(
        "16 new tokens for 64 requests over 16 prompts, GPT-2 small's shape",
        ("ptune", "PEFT", "PEFT, grouped", "ptune, 4 at once"),
        serving.generation,
    ),
    "serve-labels": Case(
        "labels for 64 clients over 16 prompts by HTTP, MiniLM's shape, 5 to 120 words",
        LABELS_SERVED,
        http_serving.load("minilm", 64, 16, ["labels"]),
    ),
    "serve-texts": Case(
        "4 to 24 new tokens for 64 clients over 16 prompts by HTTP, GPT-2 small's shape",
        SERVED,
        http_serving.load("gpt2", 64, 16, ["texts"]),
    ),
    "serve-mixed": Case(
        "labels and texts of all lengths for 64 clients over 16 prompts by HTTP, GPT-2's shape",
        (*SERVED, "ptune, continuous"),
        http_serving.load("gpt2", 64, 16, ["labels", "texts"]),
    ),
    "serve-many": Case(
        "labels and texts of all lengths for 256 clients over 1,000 prompts, GPT-2's shape",
        MANY_SERVED,
        http_serving.load("gpt2", 256, 1000, ["labels", "texts"]),
    ),
    "serve-many-labels": Case(
        "labels for 256 clients over 1,000 prompts by HTTP, MiniLM's shape, 5 to 120 words",
        MANY_SERVED,
        http_serving.load("minilm", 256, 1000, ["labels"]),
    ),
    "autoprompt": Case(
        "a step of AutoPrompt, 16 candidates for 8 rows of 8 to 24 words, BERT-base shape",
        ("ptune", "one by one"),
        searching.step("bert", 8, 24),
    ),
    "autoprompt-facts": Case(
        "a step of AutoPrompt, 16 candidates for 56 facts of LAMA's lengths, MiniLM's shape",
        ("ptune", "one by one"),
        searching.facts("minilm"),
    ),
    "autoprompt-causal": Case(
        "a step of AutoPrompt, 16 candidates for 8 rows of 60 to 90 words, GPT-2 small's shape",
        ("ptune", "one by one"),
        searching.step("gpt2", 60, 90),
    ),
    "start": Case(
        "until the command line says how it is used",
        ("ptune --help", "import torch"),
        starting.starting,
    ),
}
