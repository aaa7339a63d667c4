"""The readers, by the word that a task's YAML file has for each (``reading.by``)."""

from ptune.answers.readers.linear_reader import LinearReader
from ptune.answers.readers.next_sentence import RelationReader
from ptune.answers.readers.reader import Reader
from ptune.answers.readers.token_head import TokenHead
from ptune.answers.readers.trained_heads import Head, Prototypes, SoftWords
from ptune.answers.readers.weighted_words import WeightedWords
from ptune.answers.readers.word_reader import WordReader
from ptune.settings import ReaderName

READERS: dict[ReaderName, type[Reader]] = {
    "words": WordReader,
    "weighted-words": WeightedWords,
    "soft": SoftWords,
    "prototypes": Prototypes,
    "head": Head,
    "linear": LinearReader,
    "pair": RelationReader,
    "token-head": TokenHead,
}
"""How the labels of a task can be read. The names are those of ``settings.ReaderName``."""
