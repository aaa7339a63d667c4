"""The checkpoint of a training: everything that is needed to resume it, in one file."""

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ptune.base import files
from ptune.errors import StoreError
from ptune.runs import identity
from ptune.training.prompt_training import PromptTraining


@dataclass(frozen=True)
class Checkpoint:
    """The file from which a training is resumed.

    Attributes:
        identity: everything that determines the result of the training.
        at_end: also write the file when the training has ended, so that it is not repeated if a
            later stage of the run is interrupted.
    """

    file: pathlib.Path
    identity: dict[str, Any]
    at_end: bool

    def save(self, jobs: Sequence[PromptTraining]) -> None:
        tensors, notes = {"torch": torch.get_rng_state()}, []
        if (device := jobs[0].lm.device).type == "cuda":
            tensors["cuda"] = torch.cuda.get_rng_state(device)
        for number, job in enumerate(jobs):
            values, note = job.state()
            tensors |= {f"{number}.{name}": value for name, value in values.items()}
            notes.append(note)
        files.write_tensors(self.file, tensors, {"jobs": notes, "identity": self.identity})

    def restore(self, jobs: Sequence[PromptTraining]) -> None:
        tensors, note = files.read_noted(self.file)
        if not isinstance(note, dict) or "identity" not in note:
            raise StoreError(
                f"{self.file} belongs to another run, of an older ptune: start without resuming."
            )
        if changed := identity.differing(note["identity"], self.identity):
            raise StoreError(
                f"{self.file} belongs to another run, with another {', '.join(changed)}: go on "
                "with the same, or start without "
                f"resuming."
            )
        for number, (job, state) in enumerate(zip(jobs, note["jobs"])):
            prefix = f"{number}."
            job.load_state(
                {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)},
                state,
            )
        torch.set_rng_state(tensors["torch"])
        if "cuda" in tensors and (device := jobs[0].lm.device).type == "cuda":
            torch.cuda.set_rng_state(tensors["cuda"], device)
