"""Workers of a sweep on the machines of a Ray cluster. Each stays for the whole sweep, so that the
LM is loaded once, and finds its work in the sweep's folder, which all machines share."""

import contextlib
import importlib.util
import pathlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ptune.base import terminal
from ptune.base.interrupts import Interrupted, stoppable
from ptune.errors import ConfigError
from ptune.experiments.sweep.sweep_worker import work_on

SECONDS_BETWEEN_LOOKS = 0.5


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster, and what a worker takes of it.

    Attributes:
        address: "local" for one of this machine alone; None where none is to be used.
    """

    address: str | None
    cpus: int
    gpus: float


def check(cluster: Cluster) -> None:
    """Refuse options of Ray's workers without a cluster, and a cluster without Ray.

    Raises:
        ConfigError: it is so.
    """
    if cluster.address is None:
        if cluster.cpus != 1 or cluster.gpus:
            raise ConfigError(
                "--ray-cpus and --ray-gpus are what a worker on a Ray cluster takes: name the "
                "cluster by --ray, or leave them out."
            )
    elif importlib.util.find_spec("ray") is None:
        raise ConfigError(
            "--ray needs the package ray, which is not installed: pip install 'ptune[ray]', or "
            "leave it out. Processes that share a folder (--workers) need none."
        )


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

    with stoppable() as stopped, _joined(cluster):
        worker = ray.remote(num_cpus=cluster.cpus, num_gpus=cluster.gpus, max_retries=-1)(_work)
        pending = [worker.remote(file, dict(options), cluster.cpus) for _ in range(workers)]
        while pending and not stopped():
            _, pending = ray.wait(pending, timeout=SECONDS_BETWEEN_LOOKS)
        for task in pending:
            ray.cancel(task)
        if pending:
            ray.wait(pending, num_returns=len(pending))
        return stopped()


@contextlib.contextmanager
def _joined(cluster: Cluster) -> Iterator[None]:
    """A connection to the cluster, or a cluster of this machine alone, while this is open.

    Raises:
        ConfigError: there is no cluster at the address.
    """
    import ray

    is_here = cluster.address == "local"
    try:
        ray.init(
            address=None if is_here else cluster.address,
            include_dashboard=False if is_here else None,
        )
    except ConnectionError as error:
        raise ConfigError(
            f"There is no Ray cluster at {cluster.address}: start one by `ray start --head`, or "
            "take --ray local."
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _work(file: pathlib.Path, options: Mapping[str, Any], threads: int) -> None:
    """What a worker does."""
    import torch

    torch.set_num_threads(threads)
    with contextlib.suppress(KeyboardInterrupt, Interrupted):
        work_on(file, options, terminal.print_line)
