"""A Ray cluster to run cells on: joined or started, and which actors live on which of its nodes."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from harness.measure import available_threads
from harness.support import UsageError

_CONNECT_SECONDS = 10.0

_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is reported to Ray's makers
    "RAY_memory_monitor_refresh_ms": "0",  # the harness has its own limits, and tells a kill by the kernel from a crash
    "RAY_worker_niceness": "0",  # at Ray's own 15, all other processes come first, and cells are very slow
    "RAY_DEDUP_LOGS_SKIP_REGEX": "^A worker died or was killed",  # the run reports it itself
}
"""Environment variables for Ray, set before it is imported unless the user has set them."""


@dataclass(frozen=True)
class Place:
    """The place of one actor.

    Attributes:
        node: Ray's name of the node.
        address: the node's address, for messages.
        device: `cpu` or `cuda`.
        n_threads: number of cores of the actor.
        n_here: number of actors on the node.
    """

    node: str
    address: str
    device: Literal["cpu", "cuda"]
    n_threads: int
    n_here: int


def connect(address: str | None) -> tuple[Any, bool]:
    """Return the module `ray`, connected, and whether to disconnect it in the end: not if it was connected before.

    Args:
        address: `auto`, `HOST:PORT`, or None to start a cluster on this machine, which ends with this process.

    Raises:
        UsageError: Ray is not installed, or there is no such cluster.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError:
        raise UsageError("Ray is not installed. Try pip install 'adaptation-harness[ray]'.") from None
    if ray.is_initialized():
        return ray, False
    quietly: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        ray.init(address="local", num_cpus=available_threads(), include_dashboard=False, **quietly)
        return ray, True
    try:
        _knock(address)
        ray.init(address=address, **quietly)
    except (OSError, RuntimeError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise UsageError(
            f"There is no Ray cluster at '{address}' that can be joined: {reason}. Start one with `ray start --head` "
            "and name its HOST:PORT, or leave out --ray-address to start one here."
        ) from None
    return ray, True


def _knock(address: str) -> None:
    """Fail at once if no cluster answers: Ray would go on trying for minutes.

    Raises:
        OSError: no cluster answers.
        ValueError: a kind of address that cannot be used.
    """
    if "://" in address:  # Ray Client, which has no streams
        raise ValueError("expected 'auto' or HOST:PORT of a node that the run is started on")
    host, _, port = address.rpartition(":")
    if port.isdigit():
        socket.create_connection((host, int(port)), _CONNECT_SECONDS).close()


def plan_places(
    nodes: Sequence[Mapping[str, Any]], device: str, n_workers: int | None = None, cores_per_worker: int | None = None
) -> tuple[list[Place], list[str]]:
    """Return the places of the actors, and remarks for the user.

    Args:
        nodes: nodes as `ray.nodes()` lists them.
        device: `auto`, `cpu` or `cuda`; `auto` uses nodes with GPUs only, where there are any.
        n_workers: number of actors, spread evenly; None is one per GPU, or per so many cores.
        cores_per_worker: cores of each actor; None divides a node's among the actors on it.

    Raises:
        UsageError: there is no room, or no GPU where `cuda` is asked for.
    """
    for name, given in (("n_workers", n_workers), ("cores_per_worker", cores_per_worker)):
        if given is not None and given < 1:
            raise UsageError(f"{name}={given} was given; expected a whole number from 1.")
    usable = [(node, _count(node, "CPU"), _count(node, "GPU")) for node in nodes if node["Alive"]]
    usable = sorted((item for item in usable if item[1]), key=lambda item: (_address(item[0]), item[0]["NodeID"]))
    with_gpus = [item for item in usable if item[2]]
    places: list[Place] = []
    if device != "cpu" and with_gpus:
        for node, n_cores, n_gpus in with_gpus:
            n_threads = cores_per_worker or max(1, n_cores // n_gpus)
            n_here = min(n_gpus, n_cores // n_threads)
            places += [Place(node["NodeID"], _address(node), "cuda", n_threads, n_here)] * n_here
    elif device == "cuda":
        raise UsageError("Device 'cuda' was asked for and the Ray cluster has no GPU; try --device cpu.")
    else:
        evenly = None if n_workers is None else max(1, n_workers // max(1, len(usable)))
        for node, n_cores, _ in usable:
            n_here = n_cores // cores_per_worker if cores_per_worker else evenly or 1
            n_here = min(n_here, evenly or n_here, n_cores)
            n_threads = cores_per_worker or n_cores // max(1, n_here)
            places += [Place(node["NodeID"], _address(node), "cpu", n_threads, n_here)] * n_here
    places = places[:n_workers]
    if not places:
        wanted = f"{cores_per_worker} cores" if cores_per_worker else "cores"
        raise UsageError(f"No node of the Ray cluster has {wanted} for a worker; its nodes: {_listed(nodes)}.")
    if n_workers is not None and len(places) < n_workers:
        return places, [f"{n_workers} workers were asked for; {len(places)} fit evenly on the nodes: {_listed(nodes)}."]
    return places, []


def _count(node: Mapping[str, Any], resource: str) -> int:
    return int(node["Resources"].get(resource, 0))


def _address(node: Mapping[str, Any]) -> str:
    return str(node["NodeManagerAddress"])


def _listed(nodes: Sequence[Mapping[str, Any]]) -> str:
    said = [f"{_address(node)} with {_count(node, 'CPU')} cores" for node in nodes if node["Alive"]]
    return ", ".join(said) or "none"
