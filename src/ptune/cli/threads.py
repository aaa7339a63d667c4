"""How many threads torch computes with where a container may use a part of its machine's CPUs."""

import os
from collections.abc import Sequence

VARIABLE = "OMP_NUM_THREADS"


def keep_to_limit(arguments: Sequence[str]) -> None:
    """Let torch, which is not imported yet, take as many threads as the container has CPUs.

    Torch counts the machine's cores. In a container that is limited to two of sixty-four (``docker
    run --cpus 2``, ``limits: {cpu: 2}``) its threads wait for each other. A number that the user
    set by ``OMP_NUM_THREADS`` stays.

    Args:
        arguments: those of the command; one that asks for help computes nothing.
    """
    if VARIABLE in os.environ or {"-h", "--help"} & set(arguments):
        return
    import joblib

    count, allowed = os.cpu_count(), joblib.cpu_count()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else count
    if usable and allowed < usable:
        os.environ[VARIABLE] = str(allowed)
