"""Fact probing (LAMA, Petroni et al. 2019): relations, their facts, the allowed answers, and how
answers are counted."""

import hashlib
import json
import pathlib
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch

from ptune.base import plain_files, terminal
from ptune.data.formats.header import field_hint
from ptune.data.formats.json_rows import written
from ptune.data.row import FileRow, is_missing
from ptune.data.rows import read_rows
from ptune.errors import ConfigError, DataError, nearest
from ptune.metrics.labels import mean, most_frequent, rank, ranked
from ptune.model.prompt_model import Example
from ptune.template.tokenizer import Tokens

BUILTIN = pathlib.Path(__file__).parents[2] / "builtin" / "facts"
SPLITS = ("train", "dev", "test")
SENTENCES, GAP = "masked_sentences", "[MASK]"  # of LAMA's files whose rows bring their sentence
AROUND = "{before} {mask}{after}"  # how such a row is asked
Fact = dict[str, str]


@dataclass(frozen=True)
class Relation:
    """A relation and its facts, rows of ``subject`` and ``object``.

    Attributes:
        template: LAMA's manual wording with [X] and [Y], or None where there is none.
        wordings: other wordings of it (ParaRel's for LAMA).
        dropped: how many rows of each split were left out because their answer is not allowed.
    """

    name: str
    label: str
    template: str | None
    wordings: tuple[str, ...]
    facts: dict[str, list[Fact]]
    dropped: dict[str, int] = field(default_factory=dict)

    @property
    def majority(self) -> float:
        """The share of test rows whose answer is the most frequent one in training; of equally
        frequent ones the mean. Of facts that are only asked the most frequent one of the test rows
        (the frequency baseline of LAMA, section 4.3)."""
        learned = self.facts["test" if self.is_only_asked else "train"]
        most = most_frequent(fact["object"] for fact in learned)
        return (
            mean(
                [mean([fact["object"] == answer for fact in self.facts["test"]]) for answer in most]
            )
            if most
            else 0.0
        )

    @property
    def is_only_asked(self) -> bool:
        """Whether its rows bring their sentence, and there are none to learn from."""
        return self.template == AROUND

    def others(self, fact: Fact) -> set[str]:
        """The other right answers for a fact's subject, in any split."""
        return self._known[fact["subject"]] - {fact["object"]}

    @cached_property
    def _known(self) -> dict[str, set[str]]:
        known: dict[str, set[str]] = defaultdict(set)
        for facts in self.facts.values():
            for fact in facts:
                known[fact["subject"]].add(fact["object"])
        return known


def read_facts(
    source: str,
    names: Sequence[str] = (),
    manual: str | None = None,
    report: Callable[[str], None] = terminal.print_line,
) -> list[Relation]:
    """Read facts: "builtin", a folder in LAMA's T-REx layout, a table (.csv, .tsv, .jsonl) with the
    columns subject, object, and if there are several relations, relation; or JSON lines whose rows
    bring their sentence (masked_sentences, obj_label), as LAMA's of ConceptNet, Google-RE and SQuAD
    do, which are only asked.

    Args:
        names: the relations to take; all that have test rows by default.
        manual: the manual wording, with [X] and [Y]; of a folder's relations one alone can have it.

    Raises:
        DataError, ConfigError: nothing to read there, a bad row, or an unknown relation.
    """
    path = folder(source)
    if path.is_dir():
        return _worded(_read_folder(path, names, report), manual)
    if not path.exists():
        raise DataError(
            f"There are no facts at {path}: give a folder in LAMA's layout, a table with the "
            "columns subject,object, or builtin."
        )
    return _read_table(path, names, manual, report)


def _worded(relations: list[Relation], manual: str | None) -> list[Relation]:
    """A folder's relation, asked by the given wording instead of its own.

    Raises:
        ConfigError: a wording is given for several relations.
    """
    if manual is None:
        return relations
    if len(relations) > 1:
        raise ConfigError(
            f"--manual is the wording of one relation, and {len(relations)} are asked for: "
            f"name one with --relations, such as --relations {relations[0].name}."
        )
    return [replace(relations[0], template=manual)]


def folder(source: str) -> pathlib.Path:
    """The folder of a set of facts."""
    return BUILTIN if source == "builtin" else pathlib.Path(source).expanduser()


def _read_folder(
    path: pathlib.Path, names: Sequence[str], report: Callable[[str], None]
) -> list[Relation]:
    if not (path / "relations.jsonl").exists():
        raise DataError(f"{path} is no folder of LAMA's layout: it has no relations.jsonl.")
    known = {row["relation"]: row for row in read_rows(path / "relations.jsonl")}
    relations, lacking = [], []
    for name in names or known:
        if name not in known:
            raise ConfigError(f"There is no relation {name!r} in {path}. {nearest(name, known)}")
        files = {split: path / "original" / name / f"{split}.jsonl" for split in SPLITS}
        if not files["test"].exists():
            lacking.append(name)
            continue
        facts = {
            split: [_fact(row) for row in read_rows(file)]
            for split, file in files.items()
            if file.exists()
        }
        wordings = known[name].get("wordings") or _pararel(path, name)
        relations.append(
            Relation(
                name,
                known[name].get("label", name),
                template=known[name]["template"],
                wordings=tuple(wordings),
                facts={split: facts.get(split, []) for split in SPLITS},
            )
        )
    if names and lacking:
        raise DataError(f"{', '.join(lacking)} has no test.jsonl in {path / 'original'}.")
    if not relations:
        raise DataError(f"No relation in {path / 'original'} has a test.jsonl.")
    if lacking:
        report(f"Left out, since they have no test.jsonl: {', '.join(sorted(lacking))}")
    return relations


def _fact(row: FileRow) -> Fact:
    for name in ("sub_label", "obj_label"):
        if not isinstance(row.get(name), str) or not row[name].strip():
            raise DataError(f"{row.place}: the field {name!r} is missing or empty.")
    return {"subject": row["sub_label"], "object": row["obj_label"]}


def _pararel(path: pathlib.Path, name: str) -> list[str]:
    file = path / "pararel" / "graphs_json" / f"{name}.jsonl"
    return [row["pattern"] for row in read_rows(file)] if file.exists() else []


def _read_table(
    path: pathlib.Path, names: Sequence[str], manual: str | None, report: Callable[[str], None]
) -> list[Relation]:
    groups: dict[str, dict[str, list[Fact]]] = defaultdict(lambda: {split: [] for split in SPLITS})
    notes: list[str] = []
    rows = read_rows(path, notes=notes)
    if rows and SENTENCES in rows[0]:
        return _read_sentences(path, rows, names, manual)
    for row in rows:
        for name in ("subject", "object"):
            if name not in row:
                raise DataError(f"{path} has no column {name!r}. {field_hint(name, row)}")
        subject, object_ = (_text(row, name) for name in ("subject", "object"))
        split = row.get("split") or _split_of(subject)
        if split not in SPLITS:
            raise DataError(f"{row.place}: the split is {split!r}. {nearest(str(split), SPLITS)}")
        name = (
            path.stem
            if is_missing(row.get("relation")) or row["relation"] == ""
            else _text(row, "relation")
        )
        groups[name][split].append({"subject": subject, "object": object_})
    for note in notes:
        report(note)
    _check_names(path, names, groups)
    relations = [
        Relation(name, name, template=manual, wordings=(), facts=facts)
        for name, facts in groups.items()
        if not names or name in names
    ]
    for relation in relations:
        if empty := [split for split in SPLITS if not relation.facts[split]]:
            raise DataError(
                f"{relation.name} in {path} has too few subjects for {' and '.join(empty)} rows; "
                "add rows, or a column "
                f"split that says train, dev or test."
            )
    return relations


def _check_names(path: pathlib.Path, names: Sequence[str], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            raise ConfigError(f"There is no relation {name!r} in {path}. {nearest(name, known)}")


def _read_sentences(
    path: pathlib.Path, rows: Sequence[FileRow], names: Sequence[str], manual: str | None
) -> list[Relation]:
    """Relations whose rows bring their sentence; all are test rows.

    Raises:
        DataError, ConfigError: a bad row, an unknown relation, or a wording beside the sentences.
    """
    if manual is not None:
        raise ConfigError(
            f"--manual is a wording for all rows, and those of {path} bring their sentences "
            f"({SENTENCES}): leave it out."
        )
    groups: dict[str, list[Fact]] = defaultdict(list)
    for row in rows:
        groups[row["pred"] if row.get("pred") else path.stem].append(_asked(row))
    _check_names(path, names, groups)
    return [
        Relation(name, name, AROUND, wordings=(), facts={"train": [], "dev": [], "test": facts})
        for name, facts in groups.items()
        if not names or name in names
    ]


def _asked(row: FileRow) -> Fact:
    """A fact that brings its sentence, which is its subject too: other right answers are those to
    the same sentence.

    Raises:
        DataError: it lacks its sentence or its answer.
    """
    sentences = row.get(SENTENCES)
    sentence = sentences[0] if isinstance(sentences, list) and len(sentences) == 1 else None
    if not isinstance(sentence, str) or len(parts := sentence.split(f" {GAP}")) != 2:
        raise DataError(
            f"{row.place}: {SENTENCES} should be a list of one sentence with one {GAP} behind a "
            f"space, and it is {written(sentences)[:60]}."
        )
    if "obj_label" not in row:
        raise DataError(f"{row.place}: the field 'obj_label' is missing.")
    answer = _text(row, "obj_label")
    before, after = parts
    subject = f"{before} ...{after}"
    return {"subject": subject, "object": answer, "before": before, "after": after}


def _text(row: FileRow, name: str) -> str:
    """A field's text without the white space around it, or its number as the file spells it.

    Raises:
        DataError: it is missing, empty, or neither.
    """
    value = row[name]
    if is_missing(value) or isinstance(value, str) and not value.strip():
        raise DataError(f"{row.place}: {name} is empty.")
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise DataError(f"{row.place}: {name} should be a text, and it is {written(value)[:60]}.")
    return str(value).strip()


def _split_of(subject: str) -> str:
    """A subject's split, by its name alone: 45 : 15 : 40."""
    share = int(hashlib.sha256(subject.encode()).hexdigest(), 16) % 100
    return "train" if share < 45 else "dev" if share < 60 else "test"


def read_vocabulary(path: pathlib.Path, tokens: Tokens) -> list[str]:
    """Allowed answers from a text file of words, or from a JSON list, or from JSON lists for
    several kinds of LM, of which the one that this LM's tokenizer knows best is taken (the paper's
    29k-vocab.json).

    Raises:
        DataError: the file is missing or holds no words.
    """
    try:
        text = plain_files.read_text(path, "utf-8-sig")
        content = json.loads(text) if path.suffix.lower() == ".json" else text.split("\n")
    except OSError as error:
        raise DataError(f"The vocabulary {path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise DataError(
            f"The vocabulary {path} is neither JSON nor UTF-8 text: {error}."
        ) from error
    if (
        isinstance(content, dict)
        and content
        and all(isinstance(pieces, list) for pieces in content.values())
    ):
        vocabulary = tokens.tokenizer.get_vocab()
        content = max(
            content.values(), key=lambda pieces: sum(piece in vocabulary for piece in pieces)
        )
    if not isinstance(content, list) or not all(isinstance(word, str) for word in content):
        raise DataError(
            f"The vocabulary {path} should be a list of words, or lists of words for several "
            "kinds of LM."
        )
    words = [re.sub("^[\u0120\u2581 ]+", "", word).strip() for word in content]
    words = [word for word in words if word and not word.startswith("##")]
    if not words:
        raise DataError(f"The vocabulary {path} holds no words.")
    return words


def whole_words(tokens: Tokens) -> list[str]:
    """Every word of letters that is one token of the LM behind a space."""
    tokenizer = tokens.tokenizer
    pieces = [
        tokenizer.convert_tokens_to_string([piece]).strip()
        for piece in tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    ]
    words = list(dict.fromkeys(piece for piece in pieces if piece.isalpha()))
    return [word for word, ids in zip(words, tokens.words(words, "spaced")) if len(ids) == 1]


def restrict(relation: Relation, names: dict[str, str], tokens: Tokens) -> Relation:
    """Leave out facts whose answer is not allowed, and write answers as the labels that stand for
    them. Where the LM ignores case, so does the look-up.

    Args:
        names: for each allowed word, its label (``verbalizer.allowed``).
    """
    fold: Callable[[str], str] = str.lower if tokens.plain("A") == tokens.plain("a") else str
    labels = {fold(word): label for word, label in reversed(names.items())}
    kept = {
        split: [
            {**fact, "object": labels[fold(fact["object"])]}
            for fact in facts
            if fold(fact["object"]) in labels
        ]
        for split, facts in relation.facts.items()
    }
    return replace(
        relation,
        facts=kept,
        dropped={split: len(relation.facts[split]) - len(kept[split]) for split in kept},
    )


def figures(
    relation: Relation,
    scores: Sequence[torch.Tensor],
    examples: Sequence[Example],
    numbers: dict[str, int],
) -> dict[str, float]:
    """P@1, P@10 and MRR of the rows' own answers among all allowed words; and filtered: a subject's
    other right answers leave the ranking (LAMA, section 4.2).

    Args:
        numbers: the number of each label in the scores.
    """
    plain = [rank(row_scores, example.label or 0) for row_scores, example in zip(scores, examples)]
    filtered = [
        rank(
            row_scores, example.label or 0, [numbers[o] for o in relation.others(dict(example.row))]
        )
        if r > 1
        else 1
        for row_scores, example, r in zip(scores, examples, plain)
    ]
    return {
        **ranked(plain),
        **{f"filtered {name}": value for name, value in ranked(filtered).items()},
    }
