"""The YAML file of a task that reads rows as they were seen, with what each line is for."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ptune.survey import proposals
from ptune.survey.columns import Roles
from ptune.template.language import Template

AUTO = "auto"
OF_SEVERAL_LABELS = "regression"  # in place of auto, which is of rows with one label each
NOTE = "ptune methods lists them"
NOTE_OF_SEVERAL = f"p-tuning, p-tuning-v2+head and others train a prompt; {NOTE}"
NOTE_OF_AUTO = (
    "tries several methods on the labelled rows for some minutes (--minutes) and keeps the best; "
    "ptune methods lists single ones"
)
ABOUT_TEMPLATE = (
    "# Where the text, the three soft tokens that are trained, and the answer stand.",
    "# Used by methods that train a prompt; auto may choose one that trains none:",
)
PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*")
ESCAPED = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")


@dataclass(frozen=True)
class TaskText:
    """What a task's file says.

    Attributes:
        head: comments above it, one a line.
        words: for each label its word, none where the answer is a text; notes: for a label what is
            to be said of its word.
        data: under ``data:``, each key with its value and a comment, or "".
        lm_note: a comment behind the LM; data_note: one behind ``data:``.
        multi_label: whether a row may have several labels.
    """

    name: str
    lm: str
    method: str
    roles: Roles
    words: Mapping[str, str]
    data: Sequence[tuple[str, Any, str]]
    head: Sequence[str] = ()
    notes: Mapping[str, str] = field(default_factory=dict)
    lm_note: str = ""
    data_note: str = ""
    multi_label: bool = False

    def yaml(self) -> str:
        """The file's text."""
        lines = [f"# {line}" for line in self.head]
        lines.append(f"name: {named(self.name)}")
        lines.append(commented(f"lm: {quoted(self.lm)}", self.lm_note, 20))
        lines += self._answer()
        lines.append(commented("data:", self.data_note, 24))
        lines += [
            commented(f"  {name}: {inline(value)}", comment) for name, value, comment in self.data
        ]
        if self.words and not self.multi_label:
            lines.append("metrics: [accuracy, f1-macro]")
        return "\n".join(lines) + "\n"

    def _answer(self) -> list[str]:
        """The method, the template, and what the answer is."""
        texts, target = list(self.roles.texts), self.roles.label or self.roles.answer or "label"
        if not self.words:
            template = proposals.written_template(texts, target)
            Template.parse(template)
            return [
                "method: prefix-tuning   # ptune methods lists them",
                f"template: {in_quotes(template)}",
                f"target: {quoted(target)}",
            ]
        template, pattern = proposals.soft_template(texts, target), proposals.pattern(texts, target)
        for source in (template, pattern):
            Template.parse(source)
        several = commented("multi_label: true", "a row has none, one or several labels")
        return [
            *self._method(),
            f"template: {in_quotes(template)}",
            "patterns:                # the same without soft tokens, for methods that train none "
            "or bring their own",
            f"  - {in_quotes(pattern)}",
            f"target: {quoted(target)}",
            *([several] if self.multi_label else []),
            "labels:                  # for each label the word that the LM says for it, or "
            "several: [word, other]",
            *(
                commented(f"  {quoted(label)}: {quoted(word)}", self.notes.get(label, ""))
                for label, word in self.words.items()
            ),
        ]

    def _method(self) -> list[str]:
        """The method, and what the template is for."""
        if self.method != AUTO:
            return [commented(f"method: {self.method}", NOTE), ABOUT_TEMPLATE[0]]
        if self.multi_label:
            method = commented(f"method: {OF_SEVERAL_LABELS}", NOTE_OF_SEVERAL)
            return [method, ABOUT_TEMPLATE[0], "# Used by methods that train a prompt:"]
        return [commented(f"method: {self.method}", NOTE_OF_AUTO), *ABOUT_TEMPLATE]


def named(text: str) -> str:
    """A task's name made of a file's."""
    return quoted(re.sub(r"[^\w-]+", "-", text).strip("-") or "task")


def quoted(text: str) -> str:
    """A text as YAML takes it whatever it holds."""
    is_plain = PLAIN.fullmatch(text) and text.lower() not in ("null", "true", "false")
    return text if is_plain else in_quotes(text)


def in_quotes(text: str) -> str:
    """A text between double quotes; what YAML takes for the end of a line, or refuses, is
    escaped."""
    written = json.dumps(text, ensure_ascii=False)
    return ESCAPED.sub(lambda sign: f"\\u{ord(sign[0]):04x}", written)


def inline(value: Any) -> str:
    """A value on one line of YAML."""
    if isinstance(value, Mapping):
        members = (f"{quoted(str(name))}: {inline(member)}" for name, member in value.items())
        return "{" + ", ".join(members) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(inline, value)) + "]"
    return quoted(str(value))


def commented(line: str, comment: str, width: int = 0) -> str:
    """A line with a comment behind it, where there is one."""
    return f"{line:{width}}  # {comment}" if comment else line
