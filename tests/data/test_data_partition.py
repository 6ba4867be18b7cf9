import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor

from fedkd import config
from fedkd.data import partition
from fedkd.errors import ConfigError

DIRICHLET = ("dirichlet", "dirichlet-balanced", "dirichlet-client")


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def scheme(name: str, **parameters: object) -> config.Partition:
    return config.validate(config.Data, {"partition": {"scheme": name, **parameters}}).partition


def split(
    name: str, labels: Tensor, clients: int, seed: int = 0, **parameters: object
) -> list[Tensor]:
    return partition.split(
        scheme(name, **parameters),
        count=len(labels),
        strata=labels,
        groups=None,
        clients=clients,
        generator=generator(seed),
    )


def balanced(classes: int, each: int) -> Tensor:
    return torch.arange(classes).repeat(each)


def table(parts: list[Tensor], labels: Tensor) -> Tensor:
    classes = int(labels.max()) + 1
    return torch.stack([labels[part].bincount(minlength=classes) for part in parts])


def assert_partition(parts: list[Tensor], count: int, clients: int) -> None:
    """Every index exactly once, sorted at each client."""
    assert len(parts) == clients
    for part in parts:
        assert part.dtype == torch.int64
        assert torch.equal(part, part.sort().values)
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(count))


LABELS = st.lists(st.integers(0, 6), min_size=1, max_size=120).map(torch.tensor)


@given(labels=LABELS, clients=st.integers(1, 12), seed=st.integers(0, 99))
def test_iid_deals_every_sample_in_equal_shares(labels: Tensor, clients: int, seed: int) -> None:
    if clients > len(labels):
        with pytest.raises(ConfigError, match=f"clients.count is {clients}.*only {len(labels)}"):
            split("iid", labels, clients, seed)
        return
    parts = split("iid", labels, clients, seed)
    assert_partition(parts, len(labels), clients)
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


@given(
    labels=LABELS, clients=st.integers(1, 8), per_client=st.integers(1, 4), seed=st.integers(0, 99)
)
def test_shards_are_equal_runs_of_the_sorted_labels(
    labels: Tensor, clients: int, per_client: int, seed: int
) -> None:
    count = clients * per_client
    if count > len(labels):
        with pytest.raises(ConfigError, match=f"= {count} shards, but only {len(labels)}"):
            split("shards", labels, clients, seed, per_client=per_client)
        return
    parts = split("shards", labels, clients, seed, per_client=per_client)
    assert_partition(parts, len(labels), clients)
    ranks = labels.argsort(stable=True).argsort()
    for part in parts:
        # In the order of labels, a client holds at most `per_client` runs without a gap.
        jumps = ranks[part].sort().values.diff() > 1
        assert int(jumps.sum()) <= per_client - 1
        assert per_client * (len(labels) // count) <= len(part)
        assert len(part) <= per_client * -(-len(labels) // count)


def test_one_shard_a_client_gives_one_class_each() -> None:
    counts = table(split("shards", balanced(10, 8), 10, per_client=1), balanced(10, 8))
    assert (counts > 0).sum(1).tolist() == [1] * 10


@given(
    name=st.sampled_from(DIRICHLET),
    labels=LABELS,
    clients=st.integers(1, 9),
    alpha=st.sampled_from([1e-300, 1e-6, 0.05, 0.5, 5.0, 1e6]),
    min_size=st.integers(1, 12),
    seed=st.integers(0, 99),
)
@settings(max_examples=200, deadline=None)
def test_dirichlet_draws_end_and_respect_the_smallest_size(
    name: str, labels: Tensor, clients: int, alpha: float, min_size: int, seed: int
) -> None:
    def draw() -> list[Tensor]:
        return split(name, labels, clients, seed, alpha=alpha, min_size=min_size)

    if clients * min_size > len(labels):
        with pytest.raises(ConfigError, match=f"clients.count is {clients} .*least {min_size}"):
            draw()
        return
    parts = draw()
    assert_partition(parts, len(labels), clients)
    sizes = [len(part) for part in parts]
    assert min(sizes) >= min_size
    if name == "dirichlet-client":
        assert max(sizes) - min(sizes) <= 1
    assert all(torch.equal(a, b) for a, b in zip(parts, draw(), strict=True))


@pytest.mark.parametrize("name", ["iid", "shards", *DIRICHLET])
def test_another_seed_gives_another_split(name: str) -> None:
    one, other = (split(name, balanced(5, 40), 4, seed) for seed in (1, 2))
    assert any(len(a) != len(b) or not torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("name", DIRICHLET)
def test_a_large_alpha_is_near_uniform_and_a_small_one_is_not(name: str) -> None:
    labels = balanced(10, 500)
    even = table(split(name, labels, 5, alpha=1e5), labels)
    assert (even - 100).abs().max() < 50  # five standard deviations of a hypergeometric count
    skewed = table(split(name, labels, 5, alpha=0.05), labels)
    assert skewed.max(1).values.float().mean() > 300


def test_plain_dirichlet_has_the_variance_of_its_name() -> None:
    # A share of Dir(alpha) over n clients has mean 1/n and variance (1/n)(1 - 1/n) / (n alpha + 1).
    labels, clients, alpha, stream = balanced(20, 500), 4, 0.5, generator()
    shares = torch.cat(
        [
            table(
                partition.dirichlet(labels, clients, alpha=alpha, min_size=0, generator=stream),
                labels,
            )
            / 500
            for _ in range(50)
        ]
    )
    assert float(shares.mean()) == pytest.approx(1 / clients, abs=1e-6)
    expected = (1 / clients) * (1 - 1 / clients) / (clients * alpha + 1)
    assert float(shares.var()) == pytest.approx(expected, rel=0.1)


@given(seed=st.integers(0, 10_000), alpha=st.sampled_from([0.05, 0.3, 1.0]))
@example(seed=0, alpha=1e-300)  # all mass on one client, which is soon full
def test_balanced_dirichlet_gives_a_full_client_nothing_more(seed: int, alpha: float) -> None:
    labels, clients = balanced(10, 30), 5
    parts = partition.dirichlet_balanced(
        labels, clients, alpha=alpha, min_size=0, generator=generator(seed)
    )
    counts = table(parts, labels)
    before = counts.cumsum(1) - counts  # classes are dealt in the order of labels
    assert not ((before >= 300 / clients) & (counts > 0)).any()


def test_plain_dirichlet_does_give_a_full_client_more() -> None:
    counts = table(split("dirichlet", balanced(10, 30), 5, alpha=0.3), balanced(10, 30))
    assert (((counts.cumsum(1) - counts) >= 60) & (counts > 0)).any()


def test_client_priors_are_unlike_although_sizes_are_equal() -> None:
    labels = balanced(10, 200)
    counts = table(split("dirichlet-client", labels, 10, alpha=0.1), labels)
    assert counts.sum(1).tolist() == [200] * 10
    # Clients take turns, so that no client is left with the leftovers of all others alone.
    assert (counts.max(1).values > 60).all()


def test_what_cannot_be_balanced_by_drawing_is_topped_up_from_the_largest() -> None:
    labels = torch.zeros(40, dtype=torch.int64)  # one class, and all of it to one client
    parts = split("dirichlet", labels, 4, alpha=1e-300, min_size=5)
    assert sorted(len(part) for part in parts) == [5, 5, 5, 25]


GOLDEN: dict[str, list[list[int]]] = {
    "iid": [[3, 8, 9, 12, 13, 17], [5, 6, 7, 10, 11, 16], [0, 1, 2, 4, 14, 15]],
    "shards": [[2, 5, 8, 10, 13, 16], [0, 1, 3, 4, 6, 7], [9, 11, 12, 14, 15, 17]],
    "dirichlet": [[0, 4, 6, 9, 12, 14], [2, 7, 8, 10, 15, 17], [1, 3, 5, 11, 13, 16]],
    "dirichlet-balanced": [[2, 5, 8, 11, 14, 17], [1, 3, 4, 10, 13, 15], [0, 6, 7, 9, 12, 16]],
    "dirichlet-client": [[4, 7, 10, 14, 15, 16], [0, 1, 3, 6, 9, 13], [2, 5, 8, 11, 12, 17]],
}


@pytest.mark.parametrize("name", GOLDEN)
def test_a_seed_gives_the_same_split_on_every_machine(name: str) -> None:
    parts = split(name, balanced(3, 6), 3, seed=8, **({"min_size": 1} if "dir" in name else {}))
    assert [part.tolist() for part in parts] == GOLDEN[name]


def test_natural_clients_keep_their_own() -> None:
    groups = torch.tensor([2, 0, 1, 0, 2, 2])
    for clients in (None, 3):
        parts = partition.natural(groups, clients)
        assert [part.tolist() for part in parts] == [[1, 3], [2], [0, 4, 5]]


def test_natural_needs_groups_and_their_number() -> None:
    with pytest.raises(ConfigError, match="does not say whose a sample is; give client_train"):
        split("natural", balanced(2, 2), 2)
    with pytest.raises(ConfigError, match=r"clients.count is 4 but .* 3 natural clients; set"):
        partition.natural(torch.tensor([0, 1, 2]), 4)


def test_a_drawn_split_needs_the_number_of_clients() -> None:
    with pytest.raises(ConfigError, match=r"clients.count is missing"):
        partition.split(
            scheme("iid"),
            count=4,
            strata=balanced(2, 2),
            groups=None,
            clients=None,
            generator=generator(),
        )
