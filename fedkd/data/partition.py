"""How training data is split among clients.

Every function returns one sorted int64 tensor of indices a client; together they hold every index
exactly once.
"""

import torch
from torch import Generator, Tensor

from fedkd import config
from fedkd.data.dirichlet import dirichlet, dirichlet_balanced, dirichlet_client, enough
from fedkd.errors import ConfigError

_DIRICHLET = {
    "dirichlet": dirichlet,
    "dirichlet-balanced": dirichlet_balanced,
    "dirichlet-client": dirichlet_client,
}


def split(
    partition: config.Iid | config.Shards | config.Natural | config.Dirichlet,
    *,
    count: int,
    strata: Tensor | None,
    groups: Tensor | None,
    clients: int | None,
    generator: Generator,
) -> list[Tensor]:
    """Split as the experiment says.

    Args:
        partition: the scheme and its parameters.
        count: N, how many samples there are.
        strata: int64 (N,), from 0, such as classes; None where the task has none.
        groups: int64 (N,), the natural client of each sample; None if the data brings none.
        clients: how many; may be None for the natural split alone, which knows.
        generator: of every draw.

    Raises:
        ConfigError: the data cannot be split so.
    """
    if isinstance(partition, config.Natural):
        return natural(groups, clients)
    if clients is None:
        raise ConfigError("clients.count is missing: how many clients share the data?")
    if isinstance(partition, config.Iid):
        return iid(count, clients, generator)
    if strata is None:
        raise ConfigError(
            f"data.partition.scheme is {partition.scheme!r}, which deals by class, and the task's "
            "records have none: expected 'iid' or 'natural'"
        )
    match partition:
        case config.Shards(per_client=per_client):
            return shards(strata, clients, per_client=per_client, generator=generator)
        case config.Dirichlet(scheme=scheme, alpha=alpha, min_size=size):
            draw = _DIRICHLET[scheme]
            return draw(strata, clients, alpha=alpha, min_size=size, generator=generator)


def iid(count: int, clients: int, generator: Generator) -> list[Tensor]:
    """`count` samples in random shares whose sizes differ by at most one.

    Raises:
        ConfigError: there are more clients than samples.
    """
    enough(count, clients, 1)
    order = torch.randperm(count, generator=generator)
    return [part.sort().values for part in order.tensor_split(clients)]


def shards(labels: Tensor, clients: int, *, per_client: int, generator: Generator) -> list[Tensor]:
    """Sort by label, cut into equal shards, deal each client `per_client` of them.

    The pathological split of McMahan et al. 2017, arXiv:1602.05629. Shard sizes differ by at most
    one.

    Raises:
        ConfigError: there are more shards than samples.
    """
    count = clients * per_client
    if count > len(labels):
        raise ConfigError(
            f"data.partition: {clients} clients x {per_client} shards = {count} shards, but only "
            f"{len(labels)} training samples; lower clients.count or data.partition.per_client"
        )
    pieces = labels.argsort(stable=True).tensor_split(count)
    dealt = torch.randperm(count, generator=generator).view(clients, per_client)
    return [torch.cat([pieces[i] for i in hand]).sort().values for hand in dealt.tolist()]


def natural(groups: Tensor | None, clients: int | None = None) -> list[Tensor]:
    """Each client gets the samples that are its own by nature.

    Args:
        groups: int64 (N,), the client of each sample, 0..G-1.
        clients: G, if the experiment names it.

    Raises:
        ConfigError: the data brings no groups, or not `clients` of them.
    """
    if groups is None:
        raise ConfigError(
            "data.partition.scheme is 'natural' but the data does not say whose a sample is; give "
            "client_train in the .npz or data.client for a CSV, or choose another scheme"
        )
    present = torch.unique(groups)
    if clients not in (None, len(present)):
        raise ConfigError(
            f"clients.count is {clients} but the data has training samples of {len(present)} "
            f"natural clients; set clients.count = {len(present)} or leave it out"
        )
    return [torch.nonzero(groups == group)[:, 0] for group in present]
