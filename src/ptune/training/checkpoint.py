"""The checkpoint of a training: everything that is needed to resume it, in one file; and the same
sent from one process to those that train with it."""

import json
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import load, save

from ptune.base import files
from ptune.base.ranks import Ranks
from ptune.errors import ConfigError, StoreError
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
        """Write the state of all trainings, with the run's identity."""
        tensors, notes = _state(jobs)
        files.write_tensors(self.file, tensors, {"jobs": notes, "identity": self.identity})

    def restore(self, jobs: Sequence[PromptTraining]) -> None:
        """Bring the trainings to the state in the file.

        Raises:
            StoreError: the file is of another run, or cannot be read.
        """
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
        _restore(jobs, tensors, note["jobs"])


def agree(jobs: Sequence[PromptTraining], whole: dict[str, Any], ranks: Ranks) -> None:
    """Let the trainings of all processes begin as those of the first one stand.

    Args:
        whole: everything that determines the result.

    Raises:
        ConfigError: a process would train something else.
    """
    for number, text in enumerate(identities := ranks.gather(json.dumps(whole).encode())):
        if changed := identity.differing(json.loads(identities[0]), json.loads(text)):
            raise ConfigError(
                f"Process {number} of {ranks.count} has another {', '.join(changed)} than the "
                "first one: start all of them with the same."
            )
    tensors, notes = _state(jobs)
    apart = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    notes = ranks.from_first(lambda: notes)
    payload = ranks.send_from_first(save(apart) if ranks.is_first else b"")
    if not ranks.is_first:
        _restore(jobs, load(payload), notes)


def _state(jobs: Sequence[PromptTraining]) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    """The tensors of all trainings and of the random numbers, and the trainings' notes."""
    tensors, notes = {"torch": torch.get_rng_state()}, []
    if (device := jobs[0].lm.device).type == "cuda":
        tensors["cuda"] = torch.cuda.get_rng_state(device)
    for number, job in enumerate(jobs):
        values, note = job.state()
        tensors |= {f"{number}.{name}": value for name, value in values.items()}
        if shared := job.shared_training:
            values, note["shared"] = shared.state()
            tensors |= {f"{number}.shared.{name}": value for name, value in values.items()}
        notes.append(note)
    return tensors, notes


def _restore(
    jobs: Sequence[PromptTraining],
    tensors: dict[str, torch.Tensor],
    notes: Sequence[dict[str, Any]],
) -> None:
    for number, (job, note) in enumerate(zip(jobs, notes)):
        prefix = f"{number}."
        job.load_state(_named(prefix, tensors), note)
        if shared := job.shared_training:
            shared.load_state(_named(f"{prefix}shared.", tensors), note["shared"])
    torch.set_rng_state(tensors["torch"])
    if "cuda" in tensors and (device := jobs[0].lm.device).type == "cuda":
        torch.cuda.set_rng_state(tensors["cuda"], device)


def _named(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Those whose name begins so, without that beginning."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
