"""A template as the LM sees it: tokens, slots, positions, and who may attend to whom."""

import json
import pathlib
import shlex
from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from ptune.answers.word_labels import WordLabels
from ptune.base import terminal
from ptune.base.file_names import like_file
from ptune.cli.options import InspectConfig
from ptune.data.rows import row_of
from ptune.errors import ConfigError, DataError
from ptune.lm.language_model import LanguageModel, nearest_words
from ptune.model.prompt_model import PromptModel
from ptune.prompts import encoders
from ptune.storage import prompt_folder
from ptune.tasks import model_task, task_members, yaml_task
from ptune.tasks.resolved import resolve
from ptune.template.encoding.visibility import idle_notes
from ptune.template.language import EncodedRow, Template

MOST_DRAWN = 48


def inspect(config: InspectConfig) -> None:
    """Print what a template, the template of a task, or a saved prompt looks like to the LM."""
    console, path = terminal.Console(), pathlib.Path(config.what)
    model, limit, whole = None, None, False
    if _is_folder(path):
        lm = LanguageModel.load(config.lm, device=config.device) if config.lm is not None else None
        folders = prompt_folder.folders_in(path)
        model = prompt_folder.load(folders[0], lm, device=config.device)
        if len(folders) > 1:
            console.print(
                f"{path} holds {len(folders)} prompts, and this is "
                f"{folders[0].relative_to(path).as_posix()}; name the folder of another to see it.",
                markup=False,
            )
        saved, lm = model.tasks[0].task, model.lm
        template, limit, whole = saved.template, model.limit(0), saved.reader.mask != "needed"
    elif path.suffix in (".yaml", ".yml"):
        task = yaml_task.read(path)
        lm = LanguageModel.load(task.lm if config.lm is None else config.lm, device=config.device)
        form, method = resolve.task_form(task), resolve.shown_method(task, lm)
        member = task_members.members(form, method, lm)[0]
        if form.answers.are_read_at_tokens:
            model = PromptModel(lm)
            learning = resolve.learning(task)
            model_task.add(model, form, member, [], method=method, learning=learning)
            template = model.tasks[0].task.template
        else:
            limit, template = form.max_length, task_members.asked(form, member)
            whole = task_members.reader_of(form, method).mask != "needed"
    else:
        _check_braces(config.what)
        template = Template.parse(config.what)
        lm = LanguageModel.load("builtin" if config.lm is None else config.lm, device=config.device)
    row = _row(config.row, template)
    if model and model.tasks[0].task.reader.reads_tokens:
        encoded, dropped = first_input(model, row), ""
    else:
        encoded, dropped = encode(template, lm, row, limit=limit, whole=whole)
    console.print(tokens_table(encoded, lm))
    if dropped:
        console.print(f"Left out, since a causal LM cannot see it: {dropped}", markup=False)
    console.print(attention_picture(encoded, lm))
    for rule in template.visibility:
        hidden, blind = map(" and ".join, (rule.hide, rule.from_))
        console.print(f"Hidden by visibility (-): {hidden} from {blind}", markup=False)
    usable = model.tasks[0].template if model else template.for_lm(lm.tokens, lm.kind, whole)[0]
    for note in idle_notes(usable, lm.tokens, lm.kind):
        console.print(note, markup=False)
    if model and model.tasks[0].template.prompt_length(model.lm.tokens):
        console.print(nearest_table(model, config.words))


def _is_folder(path: pathlib.Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a template is longer than any name
        return False


def _check_braces(what: str) -> None:
    """Refuse a text in which no part of a template can stand.

    Raises:
        ConfigError: it is one.
    """
    if not set(what) & set("{[("):
        raise ConfigError(
            f"{what!r} is no folder of a saved prompt, no task's file (.yaml), and no template, "
            f'such as "{{text}} {{mask}}".{like_file(pathlib.Path(what))}'
        )


def nearest_table(model: PromptModel, words: int) -> Table:
    """A table of each learned token and the words of the vocabulary nearest to it."""
    drawn = Table("soft token", f"the {words} nearest words, by the cosine of the embeddings")
    for number, near in enumerate(
        nearest_words(model.lm, encoders.bake(model.bank.encoders[model.tasks[0].prompt]), words), 1
    ):
        drawn.add_row(str(number), Text("  ".join(near)))
    return drawn


def _row(text: str | None, template: Template) -> dict[str, Any] | None:
    """The row that the option gives, None without it.

    Raises:
        DataError: it is no JSON object.
    """
    if text is None:
        return None
    try:
        return row_of(text)
    except ValueError as error:
        example = json.dumps(dict.fromkeys(template.fields, "..."), ensure_ascii=False)
        raise DataError(f"--row: {error}. Write --row {shlex.quote(example)}.") from error


def first_input(model: PromptModel, row: Mapping[str, Any] | None) -> EncodedRow:
    """The input of a row of which single tokens are read, the first of several where it is long.

    Without a row each field is filled with its name in angle brackets.

    Raises:
        TemplateError: the row lacks a field.
    """
    task = model.tasks[0]
    filled: dict[str, Any] = dict(row or {})
    for name in task.template.fields if row is None else ():
        is_list = isinstance(task.verbalizer, WordLabels) and name == task.verbalizer.field
        filled[name] = [f"<{name}>"] if is_list else f"<{name}>"
    return model.encode(0, [filled], labelled=False)[0].fills[0]


def encode(
    template: Template,
    lm: LanguageModel,
    row: Mapping[str, Any] | None,
    *,
    limit: int | None = None,
    whole: bool = False,
) -> tuple[EncodedRow, str]:
    """Encode a row with a template.

    Without a row each field is filled with its name in angle brackets.

    Returns:
        The encoded row, and the part of the template that an LM of this kind does not see.

    Raises:
        TemplateError: the row lacks a field.

    Args:
        limit: how many tokens an input may have, where that is less than the LM's limit.
        whole: the template may have no ``{mask}``, since the input is read as a whole.
    """
    usable, dropped = template.for_lm(lm.tokens, lm.kind, whole)
    filled = {name: f"<{name}>" for name in template.fields} if row is None else row
    longest = min((length for length in (limit, lm.max_length) if length is not None), default=None)
    return usable.encode(
        filled, lm.tokens, lm.kind, max_length=longest, answer=(None,), start=lm.start
    ), dropped


def tokens_table(encoded: EncodedRow, lm: LanguageModel) -> Table:
    """A table with one line for each position: its token, its segment, and what is read there."""
    slots = {slot for slot in (*encoded.soft_slots, *encoded.decoder_slots) if slot >= 0}
    soft, deep = len(slots), len(encoded.prefix)
    drawn = Table(
        title=f"{len(encoded.ids) + deep} positions, {soft} soft tokens"
        + (f", {deep} prefix vectors" if deep else "")
    )
    for name in ("position", "what stands here", "segment", ""):
        drawn.add_column(name, justify="right" if name == "position" else "left")
    row = encoded.spelt_out()
    for position, (token, slot) in enumerate(zip(row.ids, row.soft_slots)):
        if row.deep and row.deep[position] >= 0:
            drawn.add_row(
                str(position),
                Text(f"prefix vector {row.deep[position] + 1}", style="bold cyan"),
                "",
                f"at every layer ({lm.route.name})",
            )
            continue
        answer_positions = row.decoder is None and position in row.answer_positions
        what = _what(lm, token, slot)
        note = (
            "the answer is read here"
            if answer_positions and lm.kind == "masked"
            else "the answer's score is read here"
            if answer_positions
            else ""
        )
        drawn.add_row(
            str(position),
            what,
            "" if row.types is None else "AB"[min(1, row.types[position])],
            note,
        )
    decoder = row.decoder or ()
    for position, (token, slot) in enumerate(
        zip(decoder, row.decoder_slots or (-1,) * len(decoder))
    ):
        drawn.add_row(
            str(position),
            _what(lm, token, slot),
            "decoder",
            "the answer's score is read here" if position in row.answer_positions else "",
        )
    return drawn


def _what(lm: LanguageModel, token: int, slot: int) -> Text:
    """What stands at a position: a soft token, or a real one."""
    if slot >= 0:
        return Text(f"soft token {slot + 1}", style="bold dark_orange3")
    return Text(repr(lm.tokens.show(token)))


def attention_picture(encoded: EncodedRow, lm: LanguageModel) -> Text:
    """Who (a line) may attend to whom (a column): a prefix vector p, a soft token o, a real one x,
    nobody a dot, and - where a rule of the task hides one. Prefix vectors only have columns, since
    their keys and values are what was learned."""
    row = encoded.spelt_out()
    count, deep, seen = len(row.ids), row.deep or (-1,) * len(row.ids), row.visibility
    if count > MOST_DRAWN:
        return Text(
            f"The attention of {count} positions is too large to draw ({MOST_DRAWN} at most)."
        )
    picture = Text(
        f"who (down) attends to whom (across); {'p prefix, ' if encoded.prefix else ''}o soft, x "
        "real, . not seen\n",
        style="dim",
    )
    for position in range(count):
        if deep[position] >= 0:
            continue
        what = (
            f"soft {row.soft_slots[position] + 1}"
            if row.soft_slots[position] >= 0
            else lm.tokens.show(row.ids[position]).strip()
            or repr(lm.tokens.show(row.ids[position]))
        )
        before = range(position + 1 if lm.kind == "causal" else count)
        hidden = {other for other in before if seen and not seen.sees(position, other)}
        _draw_line(picture, what, row, seen=set(before) - hidden, hidden=hidden)
    if seen and row.decoder is not None:
        hidden = {other for other in range(count) if not seen.shows_answer(other)}
        _draw_line(picture, "the decoder", row, seen=set(range(count)) - hidden, hidden=hidden)
    return picture


def _draw_line(
    picture: Text, what: str, row: EncodedRow, *, seen: set[int], hidden: set[int]
) -> None:
    """Draw to whom a token attends, among the tokens of the row, ``spelt_out``."""
    picture.append(f"{what[:14]:>14} ")
    for other, slot in enumerate(row.soft_slots):
        mark, colour = (
            ("p", "cyan")
            if row.deep and row.deep[other] >= 0
            else ("o", "dark_orange3")
            if slot >= 0
            else ("x", "")
        )
        if other not in seen:
            mark, colour = "-" if other in hidden else ".", "dim"
        picture.append(f" {mark}", style=colour)
    picture.append("\n")
