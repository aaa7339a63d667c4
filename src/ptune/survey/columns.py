"""What the columns of a file hold, counted row by row in constant memory, and which of them are the
texts and the label."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ptune.data.row import chosen, is_missing, spelled
from ptune.survey import label_sets
from ptune.survey.label_sets import LabelSets

MOST_VALUES = 1000
"""So many different values of a column are counted; of one with more, its first ones."""
EXAMPLES = 3
MOST_LABELS = 50
MOST_NAMED_LABELS = 200
"""Of a column that is called as labels are, or that a person names."""
LONGEST_LABEL = 40
SHORTEST_TEXT = 8
"""Characters that the values of a column have on average at least, where its name does not say that
it holds texts."""
SENTENCE = 12
"""Characters that a text at least has which is no column's name."""
LABEL_NAMES = (
    "label",
    "labels",
    "class",
    "category",
    "target",
    "intent",
    "sentiment",
    "topic",
    "team",
    "tag",
    "tags",
    "type",
    "rating",
    "stars",
    "gold_label",
    "label_text",
    "label_name",
    "is_duplicate",
    "polarity",
    "emotion",
    "genre",
    "标签",
    "类别",
    "分类",
    "метка",
    "категория",
    "kategorie",
    "bewertung",
    "etiqueta",
    "catégorie",
    "ラベル",
)
TEXT_NAMES = (
    "text",
    "sentence",
    "ticket",
    "review",
    "message",
    "body",
    "content",
    "question",
    "document",
    "comment",
    "description",
    "review text",
    "review_text",
    "tweet",
    "title",
    "文本",
    "评论",
    "句子",
    "内容",
    "текст",
    "отзыв",
    "テキスト",
)
PAIRS = (
    ("premise", "hypothesis"),
    ("sentence1", "sentence2"),
    ("sentence_1", "sentence_2"),
    ("sentence_a", "sentence_b"),
    ("#1 string", "#2 string"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("question", "passage"),
    ("question", "context"),
    ("title", "description"),
    ("title", "text"),
    ("title", "body"),
)
"""Columns that are read together, one behind the other."""
ANSWER_NAMES = (
    "summary",
    "highlights",
    "output",
    "response",
    "completion",
    "answer",
    "translation",
    "reply",
    "target",
    "target_text",
)
"""Columns that may hold a text to be written."""
NUMBER = re.compile(r"[-+]?\d+")
DECIMAL = re.compile(r"[-+]?(\d+[.,]?\d*|[.,]\d+)([eE][-+]?\d+)?")
DATE = re.compile(
    r"(\d{4}([-/.])\d{1,2}\2\d{1,2}|\d{1,2}([-/.])\d{1,2}\3\d{2,4})([T, ]+\d{1,2}:\d\d.*)?"
)


@dataclass
class Column:
    """What a column holds.

    Attributes:
        rows: how many rows have it.
        missing: of those, how many have null or NaN; empty: how many have no visible sign.
        kinds: how many values are of each kind: "text", "whole number", "date", ...
        values: how often each value comes, as the file spells it, of the first MOST_VALUES.
        is_open: whether there are values that are not counted.
        named_itself: how many values are the column's own name.
        characters: of all values; longest: of the longest.
        examples: the first few different values.
    """

    name: str
    rows: int = 0
    missing: int = 0
    empty: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    values: Counter[str] = field(default_factory=Counter)
    is_open: bool = False
    named_itself: int = 0
    characters: int = 0
    longest: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, value: Any) -> None:
        """Count a value."""
        value = chosen(value)
        self.rows += 1
        if is_missing(value):
            self.missing += 1
            return
        text = value if isinstance(value, str) else spelled(value)
        if not text or text.isspace():
            self.empty += 1
            return
        self.kinds[kind_of(value)] += 1
        self.named_itself += text == self.name
        self.characters += len(text)
        self.longest = max(self.longest, len(text))
        if text in self.values or len(self.values) < MOST_VALUES:
            self.values[text] += 1
        else:
            self.is_open = True
        if len(self.examples) < EXAMPLES and text not in self.examples:
            self.examples.append(text)

    @property
    def filled(self) -> int:
        """How many rows have a value that can be seen."""
        return self.rows - self.missing - self.empty

    @property
    def mean_length(self) -> float:
        """The characters of a value on average."""
        return self.characters / self.filled if self.filled else 0.0

    @property
    def kind(self) -> str:
        """The kind of its values; several where they differ."""
        return " or ".join(kind for kind, _ in self.kinds.most_common(2)) or "nothing"

    @property
    def labels(self) -> Counter[str]:
        """How often each value comes, without the white space around it."""
        counts: Counter[str] = Counter()
        for value, count in self.values.items():
            counts[value.strip()] += count
        return counts

    @property
    def label_sets(self) -> LabelSets | None:
        """The labels of a column whose cells seem to hold several each."""
        named = is_called_a_label(self.name)
        most = MOST_NAMED_LABELS if named else MOST_LABELS
        return label_sets.of_values(self.values, named, most, LONGEST_LABEL)

    @property
    def variety(self) -> str:
        """How many different values there are, in words."""
        return f"more than {MOST_VALUES}" if self.is_open else str(len(self.labels))


def kind_of(value: Any) -> str:
    """What a value is, in words; a text of a table may be a number or a date as it is spelt."""
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int):
        return "whole number"
    if isinstance(value, float):
        return "number"
    if isinstance(value, list):
        return "list"
    if isinstance(value, Mapping):
        return "object"
    if value[0].isalpha() or len(value) > LONGEST_LABEL:
        return "true or false" if value.lower() in ("true", "false") else "text"
    if NUMBER.fullmatch(value):
        return "whole number"
    if DECIMAL.fullmatch(value):
        return "number"
    return "date" if DATE.fullmatch(value) else "text"


def survey(rows: Iterable[Mapping[str, Any]]) -> dict[str, Column]:
    """The columns of rows, by name, in the order in which they first come."""
    columns: dict[str, Column] = {}
    for row in rows:
        add(columns, row)
    return columns


def add(columns: dict[str, Column], row: Mapping[str, Any]) -> None:
    """Count a row."""
    for name, value in row.items():
        column = columns.get(name)
        if column is None:
            column = columns[name] = Column(name)
        column.add(value)


@dataclass(frozen=True)
class Roles:
    """What the columns of a file are for, as far as their names and values show it.

    Attributes:
        texts: the columns that are read, one or a pair.
        label: the column that holds a label of few; None where there is none.
        answer: the column that holds a text to be written, where there is no label.
        of_words: the text is a list of words, and the label a list of their labels.
    """

    texts: tuple[str, ...]
    label: str | None = None
    answer: str | None = None
    of_words: bool = False


def roles_of(
    columns: Mapping[str, Column], text: str | None = None, label: str | None = None
) -> Roles:
    """The columns with the texts and that with the label: those that are named, else those that
    look like them; a column without a name cannot be written into a template, and is neither.

    A label is a column of a usual name, else the first of ``label_candidates``; a text is a column
    of a usual name, else the one with the longest values.
    """
    names = [name for name in columns if name]
    answer = None
    if label is None:
        label = _label_column(columns, [name for name in names if name != text])
    rest = [name for name in names if name != label]
    if label is None and (answer := _usual(ANSWER_NAMES, rest)):
        rest.remove(answer)
        if text == answer or not any(columns[name].mean_length >= SHORTEST_TEXT for name in rest):
            rest, answer = [*rest, answer], None
    if text is not None:
        return Roles((text,), label, answer)
    return Roles(_text_columns(columns, rest), label, answer)


def listed(columns: Mapping[str, Column]) -> str:
    """The columns with how many values each has, and what to do with one without a name."""
    shown = ", ".join(
        f"{repr(name) if name else 'one without a name'} ({column.variety} values)"
        for name, column in columns.items()
    )
    naming = " Give that one a name in the first line of the file." if "" in columns else ""
    return f"Its columns: {shown}.{naming}"


def repeated_headers(columns: Mapping[str, Column]) -> int:
    """How many rows only repeat the names of the columns, as where files were put together."""
    named = [column.named_itself for name, column in columns.items() if name]
    return min(named, default=0) if len(named) > 1 else 0


def first_line_is_a_row(columns: Mapping[str, Column], roles: Roles) -> bool:
    """Whether the names of the columns are a row: the label's name is one of its labels, and the
    text's name a sentence."""
    if roles.label is None or not roles.texts or repeated_headers(columns):
        return False
    is_label = columns[roles.label].named_itself > 0
    return is_label and any(is_sentence(name) for name in roles.texts)


def is_sentence(name: str) -> bool:
    """Whether a column's name looks like a text of a row."""
    return len(name) >= SENTENCE and (len(name.split()) > 2 or not name.isascii())


def _may_be_read(column: Column) -> bool:
    """Whether a column may hold the texts: it varies, where there are several rows, and most of its
    values are texts, and no dates, objects or lists of objects."""
    others = column.kinds["date"] + column.kinds["object"] + column.kinds["list"]
    varies = column.rows < 2 or column.is_open or len(column.values) > 1
    return varies and 2 * others <= column.filled


def _usual(wanted: Sequence[str], names: Sequence[str]) -> str | None:
    """The first of some names of columns that a file has, whatever the case and the spaces around
    it."""
    by_name: dict[str, str] = {}
    for name in names:
        by_name.setdefault(_plain(name), name)
    for name in names:  # Input.text, as crowd workers' tables have it
        by_name.setdefault(_plain(name).rpartition(".")[2], name)
    return next((by_name[name] for name in wanted if name in by_name), None)


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).strip().lower()


def _label_column(columns: Mapping[str, Column], names: Sequence[str]) -> str | None:
    short = [name for name in names if _is_single_and_short(columns[name])]
    named = [
        name
        for name in short
        if len(columns[name].labels) <= min(MOST_NAMED_LABELS, max(2, columns[name].rows - 1))
    ]
    with_several = [name for name in names if columns[name].label_sets]
    return (
        _usual(LABEL_NAMES, [*named, *with_several])
        or next(iter(label_candidates(columns, names)), None)
        or next(iter(with_several), None)
    )


def label_candidates(columns: Mapping[str, Column], names: Iterable[str]) -> list[str]:
    """The columns whose values may be labels, since each comes twice on average: first those
    without a gap, and of those the ones with the fewest values."""
    fitting = [
        name
        for name in names
        if _is_single_and_short(columns[name])
        and len(columns[name].labels) <= min(MOST_LABELS, max(2, columns[name].rows // 2))
        and _plain(name) not in TEXT_NAMES
    ]
    rows = max((column.rows for column in columns.values()), default=0)
    return sorted(
        fitting, key=lambda name: (columns[name].filled < rows, len(columns[name].labels))
    )


def is_called_a_label(name: str) -> bool:
    """Whether a column's name says that it holds labels."""
    return _plain(name) in LABEL_NAMES


def _is_single_and_short(column: Column) -> bool:
    """Whether a column has several values that may be labels."""
    single = not {"list", "object"} & column.kinds.keys()
    several = len(column.labels) >= 2 and not column.is_open
    return single and several and column.mean_length <= LONGEST_LABEL


def _text_columns(columns: Mapping[str, Column], names: Sequence[str]) -> tuple[str, ...]:
    names = [name for name in names if _may_be_read(columns[name])]
    plain_names = {_plain(name): name for name in names}
    for pair in PAIRS:
        if all(name in plain_names for name in pair):
            return tuple(plain_names[name] for name in pair)
    if usual := _usual(TEXT_NAMES, names):
        return (usual,)
    longest = max(names, key=lambda name: columns[name].mean_length, default=None)
    if longest is None or columns[longest].mean_length < SHORTEST_TEXT:
        return ()
    return (longest,)
