"""Texts that stand twice, within a split and in two of them, in constant memory: of each text a
hash goes to one of some temporary files, and each of these is looked through by itself."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import combinations
from typing import IO, Self

import numpy as np

from ptune.template.fields import same_text

PARTS = 64
EXAMPLES = 3
RECORD = np.dtype([("text", "i8"), ("label", "i8"), ("split", "i4"), ("line", "i8")])
WAITING = 4096
"""So many texts are written at once."""


@dataclass
class Duplicates:
    """What stands twice.

    Attributes:
        within: for each split how many rows have a text that stands before them in it.
        between: for each pair of splits, how many rows of the second have a text of the first.
        lines: for each split with itself, and for each pair, the lines of the first pairs of rows.
        contradicting: how many texts stand there with several labels.
        contradicting_lines: of the first texts with several labels, two rows: each by split and
            line.
    """

    within: dict[str, int] = field(default_factory=dict)
    between: dict[tuple[str, str], int] = field(default_factory=dict)
    lines: dict[tuple[str, str], list[tuple[int, int]]] = field(default_factory=dict)
    contradicting: int = 0
    contradicting_lines: list[tuple[str, int, str, int]] = field(default_factory=list)


class SeenTexts:
    """The texts of several splits, by their hashes; texts that differ only in case and white space
    are the same."""

    def __init__(self) -> None:
        self._files: dict[int, IO[bytes]] = {}
        self._stack = ExitStack()
        self._splits: list[str] = []
        self._waiting: list[tuple[int, int, int, int]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def add(self, text: str, label: str, split: str, line: int) -> None:
        """Note a text.

        Args:
            split: the name of the rows among which it stands; line: its line in their file.
        """
        if split not in self._splits:
            self._splits.append(split)
        same = hash(same_text(text))
        self._waiting.append((same, hash(label), self._splits.index(split), line))
        if len(self._waiting) == WAITING:
            self._write()

    def _write(self) -> None:
        records = np.array(self._waiting, RECORD)
        self._waiting.clear()
        parts = records["text"] % PARTS
        for part in np.unique(parts):
            if part not in self._files:
                self._files[part] = self._stack.enter_context(
                    tempfile.TemporaryFile()  # noqa: SIM115
                )
            records[parts == part].tofile(self._files[part])

    def duplicates(self) -> Duplicates:
        """What stands twice among all texts so far."""
        self._write()
        counted = Duplicates(within=dict.fromkeys(self._splits, 0))
        for file in self._files.values():
            file.seek(0)
            records = np.fromfile(file, RECORD)
            for same in _groups(records):
                _count(same, self._splits, counted)
        return counted


def _groups(records: np.ndarray) -> Iterator[list[tuple[int, int, int, int]]]:
    """The records of each text that stands there more than once, in the order of their splits and
    lines."""
    ordered = np.sort(records, order=("text", "split", "line"))
    starts = np.flatnonzero(np.r_[True, ordered["text"][1:] != ordered["text"][:-1]])
    ends = np.r_[starts[1:], len(ordered)]
    several = ends - starts > 1
    for start, end in zip(starts[several], ends[several]):
        yield ordered[start:end].tolist()


def _count(
    same: Sequence[tuple[int, int, int, int]], splits: Sequence[str], counted: Duplicates
) -> None:
    """Count the records of one text."""
    lines: dict[int, list[int]] = {}
    for _, _, split, line in same:
        lines.setdefault(split, []).append(line)
    for split, lines_of_split in lines.items():
        counted.within[splits[split]] += len(lines_of_split) - 1
        for line in lines_of_split[1 : EXAMPLES + 1]:
            _example(counted, (splits[split], splits[split]), lines_of_split[0], line)
    for split, other in combinations(lines, 2):
        pair = (splits[split], splits[other])
        counted.between[pair] = counted.between.get(pair, 0) + len(lines[other])
        _example(counted, pair, lines[split][0], lines[other][0])
    _, label, split, line = same[0]
    if different := next((record for record in same if record[1] != label), None):
        counted.contradicting += 1
        counted.contradicting_lines.append(
            (splits[split], line, splits[different[2]], different[3])
        )
        counted.contradicting_lines.sort(key=lambda pair: (splits.index(pair[0]), *pair[1:]))
        del counted.contradicting_lines[EXAMPLES:]


def _example(counted: Duplicates, pair: tuple[str, str], line: int, other: int) -> None:
    """Keep the first pairs by their lines, whatever the order in which texts are counted."""
    lines = counted.lines.setdefault(pair, [])
    lines.append((line, other))
    lines.sort()
    del lines[EXAMPLES:]
