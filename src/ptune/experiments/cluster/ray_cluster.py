"""A Ray cluster, and the connection to it."""

import contextlib
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass

from ptune.errors import ConfigError


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster, and what a worker takes of it.

    Attributes:
        address: "local" for one of this machine alone; None where none is to be used.
    """

    address: str | None
    cpus: int
    gpus: float


@dataclass(frozen=True)
class RayOptions:
    """What the options of a command say of workers on a cluster.

    Attributes:
        ray: the cluster's address; None for none.
        workers: how many there are.
        ray_cpus, ray_gpus: what each of them takes.
    """

    ray: str | None
    workers: int
    ray_cpus: int
    ray_gpus: float

    @property
    def cluster(self) -> Cluster:
        """The cluster."""
        return Cluster(self.ray, self.ray_cpus, self.ray_gpus)


def check(cluster: Cluster, without: str) -> None:
    """Refuse options of Ray's workers without a cluster, and a cluster without Ray.

    Args:
        without: what the command can do without Ray, as a sentence.

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
            f"leave it out. {without}"
        )


@contextlib.contextmanager
def joined(cluster: Cluster) -> Iterator[None]:
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
