import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedkd import models, rng
from fedkd.config import ModelSpec

NAMES = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**40),
        "round": st.integers(0, 1000),
        "client": st.none() | st.integers(0, 1000),
        "purpose": st.text("abc:0123456789-", min_size=1, max_size=8),
    }
)


def draw(names: dict[str, Any], many: int = 4) -> list[int]:
    return torch.randint(2**62, (many,), generator=rng.stream(**names)).tolist()


@settings(deadline=None)
@given(names=NAMES, seed=st.integers(0, 9))
def test_the_seed_is_the_documented_hash(names: dict[str, Any], seed: int) -> None:
    client = "server" if names["client"] is None else names["client"]
    text = f"fedkd:{names['seed']}:{names['round']}:{client}:{names['purpose']}"
    expected = int(hashlib.sha256(text.encode()).hexdigest()[:16], 16) // 2
    assert rng.derive(**names) == expected < 2**63


@settings(max_examples=50, deadline=None)
@given(first=NAMES, other=NAMES)
def test_different_names_are_different_streams_and_equal_ones_the_same(
    first: dict[str, Any], other: dict[str, Any]
) -> None:
    assert (draw(first) == draw(other)) == (first == other)


@settings(max_examples=50, deadline=None)
@given(names=NAMES, key=st.sampled_from(["seed", "round", "client", "purpose"]))
def test_each_name_counts(names: dict[str, Any], key: str) -> None:
    value = names[key]
    other = f"{value}0" if key == "purpose" else 0 if value is None else value + 1
    assert draw(names) != draw({**names, key: other})


@settings(max_examples=50, deadline=None)
@given(all_names=st.lists(NAMES, min_size=2, max_size=4, unique_by=str), data=st.data())
def test_a_stream_does_not_depend_on_what_was_drawn_before(
    all_names: list[dict[str, Any]], data: st.DataObject
) -> None:
    alone = [draw(names, many=6) for names in all_names]
    streams = [rng.stream(**names) for names in all_names]
    found: list[list[int]] = [[] for _ in streams]
    for i in data.draw(st.permutations([i for i in range(len(streams)) for _ in range(6)])):
        found[i].append(int(torch.randint(2**62, (), generator=streams[i])))
    assert found == alone


def test_the_streams_of_this_version_stay_what_they_are() -> None:
    golden = rng.stream(7, purpose="batches", round=2, client=3)
    assert rng.derive(7, purpose="batches", round=2, client=3) == GOLDEN_SEED
    assert torch.randperm(8, generator=golden).tolist() == GOLDEN_ORDER
    assert rng.derive(0, purpose="student") == GOLDEN_SERVER


GOLDEN_SEED = 3535506207947657791
GOLDEN_ORDER = [0, 6, 4, 3, 5, 2, 1, 7]
GOLDEN_SERVER = 2653098422425729594


def weights(seed: int) -> Tensor:
    model = models.build(
        ModelSpec(name="mlp", hidden=(5,)),
        shape=(3,),
        classes=2,
        generator=rng.stream(seed, purpose="teacher"),
    )
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_the_global_generator_is_put_back_even_after_an_error() -> None:
    before = torch.get_rng_state()
    with rng.torch_default(rng.stream(0, purpose="a")):
        torch.rand(3)
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(RuntimeError), rng.torch_default(rng.stream(0, purpose="a")):
        torch.rand(3).reshape(2)
    assert torch.equal(torch.get_rng_state(), before)


def test_what_is_drawn_inside_follows_the_generator_alone() -> None:
    drawn = []
    for purpose in ("a", "a", "b"):
        with torch.random.fork_rng(devices=[]), rng.torch_default(rng.stream(0, purpose=purpose)):
            drawn.append(torch.rand(3))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_it_may_be_borrowed_again_by_who_has_it() -> None:
    with rng.torch_default(rng.stream(0, purpose="outer")):
        alone = torch.rand(4)
    with rng.torch_default(rng.stream(0, purpose="outer")):
        first = torch.rand(2)
        with rng.torch_default(rng.stream(0, purpose="inner")):
            torch.rand(9)
        assert torch.equal(torch.cat([first, torch.rand(2)]), alone)


def test_many_threads_build_the_models_that_one_would() -> None:
    before = torch.get_rng_state()
    alone = [weights(seed) for seed in range(20)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(weights, range(20)))
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))
    assert torch.equal(torch.get_rng_state(), before)
