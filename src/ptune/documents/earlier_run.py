"""An earlier run of ``ptune distil``, from which the same documents go on (``--previous``)."""

import hashlib
import pathlib
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ptune.base import files
from ptune.base.file_names import file_name
from ptune.documents import read_documents
from ptune.documents.teaching.lessons import prompt_of
from ptune.errors import StoreError
from ptune.lm.language_model import LanguageModel
from ptune.prompts import encoders
from ptune.reports.trial_results import DocumentResult
from ptune.runs.trials import JsonResults, Trial
from ptune.storage import prompt_folder

RESULTS = JsonResults(DocumentResult)


@dataclass(frozen=True)
class EarlierDocument:
    """What an earlier run made of a document.

    Attributes:
        prompt: the folder of its saved prompt.
        vectors: its prefix [P, W].
        record: what decided its result.
    """

    prompt: pathlib.Path
    vectors: torch.Tensor
    result: DocumentResult
    record: Mapping[str, Any]

    @property
    def identity(self) -> str:
        """A hash of its prefix."""
        return hashlib.sha256(self.vectors.numpy().tobytes()).hexdigest()

    def is_of(self, record: Mapping[str, Any]) -> bool:
        """Whether the same text was learned with the same settings, whatever it began as."""
        return _decides(self.record) == _decides(record)


def read(
    folder: pathlib.Path, names: Collection[str], lm: LanguageModel
) -> dict[str, EarlierDocument]:
    """The documents of an earlier run that have these names and a prompt.

    Raises:
        StoreError: the folder is no run of ptune distil, or of another LM, or is damaged.
    """
    earlier = {}
    for name in [saved.name for saved in read_documents.saved_in(folder)]:
        prompt, file = prompt_of(folder, name), folder / "results" / f"{file_name(name)}.json"
        if name not in names or not (prompt / "prompt.json").exists() or not file.exists():
            continue
        result, record = RESULTS.read(file)
        model = prompt_folder.load(prompt, lm)
        vectors = encoders.bake(model.bank.prefixes[model.tasks[0].prompt].encoder)
        earlier[name] = EarlierDocument(prompt, vectors.cpu(), result, record or {})
    if not earlier:
        raise StoreError(
            f"{folder} has a prompt of none of these documents ({', '.join(sorted(names))}): give "
            "the --out of the earlier run, or leave --previous out."
        )
    return earlier


def keep(earlier: EarlierDocument, trial: Trial, out: pathlib.Path) -> None:
    """Take a document's prompt and result over as they are, byte for byte."""
    if (out / trial.file).exists():
        return
    source = earlier.prompt

    def fill(temporary: str) -> None:
        shutil.copytree(source, temporary, dirs_exist_ok=True)

    files.write_folder(prompt_of(out, trial.task), fill)
    RESULTS.write(out / trial.file, earlier.result, trial.record)


def _decides(record: Mapping[str, Any]) -> dict[str, Any]:
    """What decides a result, without the versions of libraries and without its beginning."""
    settings = {**record.get("settings", {}), "begins": None}
    return {**record, "settings": settings, "versions": None}
