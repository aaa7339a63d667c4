"""Workers of a sweep on the machines of a Ray cluster. Each stays for the whole sweep, so that the
LM is loaded once, and finds its work in the sweep's folder, which all machines share."""

import contextlib
import pathlib
from collections.abc import Mapping
from typing import Any

from ptune.base import terminal
from ptune.base.interrupts import Interrupted, stoppable
from ptune.experiments.cluster.ray_cluster import Cluster, joined
from ptune.experiments.sweep.sweep_worker import work_on

SECONDS_BETWEEN_LOOKS = 0.5


def work_on_cluster(
    file: pathlib.Path, options: Mapping[str, Any], workers: int, cluster: Cluster
) -> bool:
    """Let workers on a cluster do the runs of a sweep's file until all have their results; return
    whether this process was asked to end before. Then the workers have saved their trainings and
    ended.

    Args:
        options: those of ``Sweep``, the runs aside.
    """
    import ray

    with stoppable() as stopped, joined(cluster):
        worker = ray.remote(num_cpus=cluster.cpus, num_gpus=cluster.gpus, max_retries=-1)(_work)
        pending = [worker.remote(file, dict(options), cluster.cpus) for _ in range(workers)]
        while pending and not stopped():
            _, pending = ray.wait(pending, timeout=SECONDS_BETWEEN_LOOKS)
        for task in pending:
            ray.cancel(task)
        if pending:
            ray.wait(pending, num_returns=len(pending))
        return stopped()


def _work(file: pathlib.Path, options: Mapping[str, Any], threads: int) -> None:
    """What a worker does."""
    import torch

    torch.set_num_threads(threads)
    with contextlib.suppress(KeyboardInterrupt, Interrupted):
        work_on(file, options, terminal.print_line)
