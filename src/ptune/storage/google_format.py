"""Prompts as google-research/prompt-tuning publishes them: one ``.npy`` file of soft tokens [P, E],
float32 or float64, which stand before the embedded input of the T5 that they were trained for
(Prompt Tuning, section 2).
"""

import os

import numpy as np
import torch

from ptune.base import files, plain_files
from ptune.errors import StoreError


def read(path: files.Path) -> torch.Tensor:
    """The soft tokens of a file: [P, E], float32. Nothing is unpickled.

    Raises:
        StoreError: the file is missing, damaged or pickled, or holds something else.
    """
    path = os.fspath(path)
    try:
        plain_files.check(path)
        with np.errstate(over="ignore"):  # where the shape is false
            array = np.load(
                path, mmap_mode="r", allow_pickle=False
            )  # mapped, so that a false shape asks for no memory
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}.") from error
    except Exception as error:  # numpy raises every kind over a damaged header
        raise StoreError(
            f"{path} is damaged (cut short, or its header is wrong), pickled, or no .npy file. "
            "What is pickled is never read, since it may run code."
        ) from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise StoreError(f"{path} is an archive of arrays, and should be one array.")
    if array.dtype not in (np.float32, np.float64):
        raise StoreError(f"{path} should hold float32 or float64, and holds {array.dtype}.")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused
        vectors = torch.from_numpy(np.array(array, dtype=np.float32, order="C"))
    if fault := _fault(vectors):
        raise StoreError(f"{path} holds {fault}.")
    return vectors


def write(path: files.Path, vectors: torch.Tensor) -> None:
    """Write soft tokens [P, E] as float32, whole or not at all.

    Raises:
        StoreError: they are no soft tokens, or the file cannot be written.
    """
    values = vectors.detach().float().cpu()
    if fault := _fault(values):
        raise StoreError(f"{os.fspath(path)} was not written: it would hold {fault}.")

    def fill(temporary: str) -> None:
        with open(temporary, "wb") as stream:
            np.save(stream, values.numpy(), allow_pickle=False)

    files.write(path, fill)


def _fault(vectors: torch.Tensor) -> str:
    """Why these are no soft tokens, or nothing."""
    if vectors.dim() != 2 or not vectors.numel():
        return f"an array of shape {list(vectors.shape)}, and soft tokens are [P, E]"
    return "" if bool(torch.isfinite(vectors).all()) else "values that are not numbers"
