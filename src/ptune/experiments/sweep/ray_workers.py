"""Workers of a sweep on the machines of a Ray cluster. Each stays for the whole sweep, so that the
LM is loaded once, and finds its work in the sweep's folder, which all machines share."""

import contextlib
import importlib.util
import pathlib
from collections.abc import Mapping
from typing import Any

from ptune.base import terminal
from ptune.base.interrupts import Interrupted, stoppable
from ptune.errors import ConfigError
from ptune.experiments.options import SweepConfig
from ptune.experiments.sweep.sweep_file import read_sweep
from ptune.experiments.sweep.sweep_worker import Sweep, work

SECONDS_BETWEEN_LOOKS = 0.5


def check(config: SweepConfig) -> None:
    """Refuse options of Ray's workers without Ray.

    Raises:
        ConfigError: there is no cluster to work on, or Ray is not installed.
    """
    if config.ray is None:
        if config.ray_cpus != 1 or config.ray_gpus:
            raise ConfigError(
                "--ray-cpus and --ray-gpus are what a worker on a Ray cluster takes: name the "
                "cluster by --ray, or leave them out."
            )
    elif importlib.util.find_spec("ray") is None:
        raise ConfigError(
            "--ray needs the package ray, which is not installed: pip install 'ptune[ray]', or "
            "leave it out. Processes that share a folder (--workers) need none."
        )


def work_on_cluster(config: SweepConfig, options: Mapping[str, Any]) -> bool:
    """Let workers on a cluster do the runs until all have their results; return whether this
    process was asked to end before. Then the workers have saved their trainings and ended.

    Args:
        options: those of ``Sweep``, the runs aside.
    """
    import ray

    with stoppable() as stopped, _joined(config):
        remote = ray.remote(num_cpus=config.ray_cpus, num_gpus=config.ray_gpus, max_retries=-1)(
            _work
        )
        pending = [
            remote.remote(config.file, dict(options), config.ray_cpus)
            for _ in range(config.workers)
        ]
        while pending and not stopped():
            _, pending = ray.wait(pending, timeout=SECONDS_BETWEEN_LOOKS)
        for worker in pending:
            ray.cancel(worker)
        if pending:
            ray.wait(pending, num_returns=len(pending))
        return stopped()


@contextlib.contextmanager
def _joined(config: SweepConfig) -> Any:
    """A connection to the cluster, or a cluster of this machine alone while this is open.

    Raises:
        ConfigError: there is no cluster at the address.
    """
    import ray

    address = None if config.ray == "local" else config.ray
    try:
        ray.init(address=address, include_dashboard=None if address else False)
    except ConnectionError as error:
        raise ConfigError(
            f"There is no Ray cluster at {config.ray}: start one by `ray start --head`, or take "
            "--ray local."
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
        work(Sweep(read_sweep(file), **options), terminal.print_line)
