"""A template as the LM sees it: tokens, slots, positions, and who may attend to whom."""
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ptune import encoders, saving
from ptune.config import InspectConfig
from ptune.errors import DataError
from ptune.lm import LanguageModel, nearest_words
from ptune.model import PromptModel
from ptune.tasks import described
from ptune.template import Encoded, Template

MOST_DRAWN = 48


def inspect(config: InspectConfig) -> None:
    """Print what the config asks for: a saved prompt, a task's template, or a template."""
    console, path = Console(), pathlib.Path(config.what)
    row = _row(config.row)
    if path.is_dir():
        lm = LanguageModel.load(config.lm, device=config.device) if config.lm else None
        model = saving.load(path, lm, device=config.device)
        template, lm = model.tasks[0].task.template, model.lm
    elif path.suffix in (".yaml", ".yml"):
        task = described.read(path)
        lm = LanguageModel.load(config.lm or task.lm, device=config.device)
        template, model = Template.parse(task.template), None
    else:
        lm = LanguageModel.load(config.lm or "builtin", device=config.device)
        template, model = Template.parse(config.what), None
    encoded, dropped = encode(template, lm, row)
    console.print(tokens_table(encoded, lm))
    if dropped:
        console.print(f"Left out, since a causal LM cannot see it: {dropped}", markup=False)
    console.print(attention_picture(encoded, lm))
    if model and model.tasks[0].prompt >= 0:
        console.print(nearest_table(model, config.words))


def nearest_table(model: PromptModel, words: int) -> Table:
    """For each learned token the words of the vocabulary nearest to it."""
    drawn = Table("soft token", f"the {words} nearest words, by the cosine of the embeddings")
    for number, near in enumerate(nearest_words(model.lm, encoders.bake(model.bank.encoders[model.tasks[0].prompt]), words), 1):
        drawn.add_row(str(number), Text("  ".join(near)))
    return drawn


def _row(text: str | None) -> dict[str, Any] | None:
    try:
        row = json.loads(text) if text else None
    except ValueError as error:
        raise DataError(f"--row is not valid JSON ({error}); write --row '{{\"subject\": \"Vienna\"}}'.") from error
    if row is not None and not isinstance(row, dict):
        raise DataError("--row should be a JSON object of fields.")
    return row


def encode(template: Template, lm: LanguageModel, row: Mapping[str, Any] | None) -> tuple[Encoded, str]:
    """A row in the template, its fields filled with their own names where none is given; and what the LM's kind drops."""
    usable, dropped = template.for_kind(lm.kind)
    filled = {name: f"<{name}>" for name in template.fields} | dict(row or {})
    return usable.encode(filled, lm.tokens, lm.kind, lm.max_length, (None,), lm.start), dropped


def tokens_table(encoded: Encoded, lm: LanguageModel) -> Table:
    """One line a position: what stands there, and what happens there."""
    drawn = Table(title=f"{len(encoded.ids)} positions, {len({s for s in encoded.slots if s >= 0})} soft tokens")
    for name in ("position", "what stands here", "segment", ""):
        drawn.add_column(name, justify="right" if name == "position" else "left")
    for at, (token, slot) in enumerate(zip(encoded.ids, encoded.slots)):
        reads = encoded.decoder is None and at in encoded.reads
        what = Text(f"soft token {slot + 1}", style="bold dark_orange3") if slot >= 0 else Text(repr(lm.tokens.show(token)))
        note = "the answer is read here" if reads and lm.kind == "masked" else "the answer's score is read here" if reads else ""
        drawn.add_row(str(at), what, "" if encoded.types is None else "AB"[min(1, encoded.types[at])], note)
    for at, token in enumerate(encoded.decoder or ()):
        drawn.add_row(str(at), Text(repr(lm.tokens.show(token))), "decoder", "the answer's score is read here" if at in encoded.reads else "")
    return drawn


def attention_picture(encoded: Encoded, lm: LanguageModel) -> Text:
    """Who (a line) may attend to whom (a column): a soft token o, a real one x, nobody a dot."""
    count = len(encoded.ids)
    if count > MOST_DRAWN:
        return Text(f"The attention of {count} positions is too large to draw ({MOST_DRAWN} at most).")
    picture = Text("who (down) attends to whom (across); o soft, x real, . not seen\n", style="dim")
    for at in range(count):
        what = f"soft {encoded.slots[at] + 1}" if encoded.slots[at] >= 0 else lm.tokens.show(encoded.ids[at]).strip() or repr(lm.tokens.show(encoded.ids[at]))
        picture.append(f"{what[:14]:>14} ")
        for other in range(count):
            seen = lm.kind != "causal" or other <= at
            soft = encoded.slots[other] >= 0
            picture.append(" ." if not seen else " o" if soft else " x", style="dim" if not seen else "dark_orange3" if soft else "")
        picture.append("\n")
    return picture
