"""Secure sums: whoever is lost, the sum is the survivors'; and what a hostile server tries."""

import math
from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import hypergeom
from secret_sums import Clients, drawn, plain

from fedkd.errors import FederationError, MessageError
from fedkd.exchange.masking import graph, keys, shares, streams
from fedkd.exchange.masking.fixed_point import RESOLUTION, carries, fixed, floating
from fedkd.exchange.masking.keys import KeyPairs
from fedkd.exchange.masking.protocol import Circle, Sharing, mask_keys, own_key
from fedkd.exchange.masking.unmasking import unmask


def equal(found, wanted) -> None:
    for name, tensor in wanted.items():
        assert torch.equal(found[name], tensor)


@st.composite
def losses(draw):
    """Clients by any numbers, how many must be left, and who is lost at each of the steps."""
    clients = draw(st.lists(st.integers(0, 10**6), min_size=2, max_size=9, unique=True))
    count = len(clients)
    least = draw(st.integers(count // 2 + 1 + (count % 2 and count > 1), count))
    order = draw(st.permutations(clients))
    left = sorted(draw(st.integers(least, count)) for _ in range(3))
    return clients, least, [order[:size] for size in reversed(left)]


@settings(max_examples=40, deadline=None)
@given(losses(), st.integers(0, 2**31), st.sampled_from([1e-6, 1.0, 1e6]))
def test_whoever_is_lost_the_sum_is_the_survivors_to_the_bit(lost, seed, scale) -> None:
    clients, least, (sharers, survivors, opening) = lost
    parts = drawn(clients, seed, scale)
    found = Clients(clients, least).run(
        parts, sharers=sharers, survivors=survivors, opening=opening
    )
    equal(found, plain(parts, survivors))


def test_any_three_of_ten_may_be_lost_at_any_step() -> None:
    ten = range(10)
    for step in range(3):
        for first in range(0, 10, 3):
            kept = [c for c in ten if c not in {first, (first + 1) % 10, (first + 5) % 10}]
            sets = [ten] * step + [kept] * (3 - step)
            parts = drawn(ten, first)
            found = Clients(ten, 7).run(parts, sharers=sets[0], survivors=sets[1], opening=sets[2])
            equal(found, plain(parts, sets[1]))


def test_a_sparse_graph_ends_a_round_too() -> None:
    clients = range(0, 120, 3)
    many = Clients(clients, 36)
    assert many.circle.degree.neighbours < len(clients) - 1
    parts = drawn(clients, 1)
    sharers, survivors = clients[1:], clients[2:-1]
    found = many.run(parts, sharers=sharers, survivors=survivors, opening=survivors[1:])
    equal(found, plain(parts, survivors))


def test_a_server_that_drops_one_more_than_it_may_is_refused_and_reads_nothing() -> None:
    ten = Clients(range(10), 7)
    ten.share(range(10))
    with pytest.raises(MessageError, match=r"^6 clients are left: expected 7"):
        ten.sharing[0].receive(range(6), ten.passed_on(0, range(6)))
    ten.answer(range(10), drawn(range(10), 0), range(10))
    with pytest.raises(MessageError, match=r"^6 clients are left: expected 7"):
        ten.open([0], range(6))
    with pytest.raises(FederationError, match=r"0 neighbours of client 0 opened .*, and 6 must"):
        ten.total(range(10), range(8), ten.open(range(6), range(8)))


def test_two_sets_of_survivors_for_two_halves_open_nothing() -> None:
    """The server would take one client out of the sum by the one half, and off by the other."""
    ten = Clients(range(10), 6)
    ten.share(range(10))
    ten.answer(range(10), drawn(range(10), 0), range(10))
    without = [client for client in range(10) if client != 9]
    openings = ten.open(range(5), range(10)) | ten.open(range(5, 9), without)
    for survivors in (range(10), without):
        with pytest.raises(FederationError, match="0 neighbours of client 0 opened"):
            ten.total(range(10), survivors, openings)


def test_two_sets_of_sharers_leave_masks_on() -> None:
    ten, parts = Clients(range(10), 6), drawn(range(10), 0)
    ten.share(range(10))
    ten.answer(range(5), parts, range(10))
    ten.answer(range(5, 9), parts, range(9))
    openings = ten.open(range(5), range(9)) | ten.open(range(5, 9), range(9))
    with pytest.raises(FederationError, match="0 neighbours of client 0 opened"):
        ten.total(range(10), range(9), openings)


def test_a_late_answer_stays_under_its_own_mask() -> None:
    """Its neighbours gave its masks with them away: what is left is its own mask."""
    four, parts = Clients(range(4), 3), drawn(range(4), 0)
    four.share(range(4))
    four.answer(range(4), parts, range(4))
    openings = four.open(range(3), range(3))
    equal(four.total(range(4), range(3), openings), plain(parts, range(3)))
    late = four.total(range(4), range(3), openings, among=range(4))
    assert float((late["features"] - plain(parts, range(4))["features"]).abs().min()) > 1e3
    masked = four.sent[3].copy()
    # By the secret that its neighbours opened.
    found = mask_keys(four.circle, 3, four.pairs[3].masks, range(4), range(3))
    streams.add(masked, plus=found.values())
    streams.add(masked, minus=[own_key(four.circle, four.sharing[3].seed, range(4))])
    equal(floating(streams.shaped(masked, {"features": (17,), "labels": (4, 3), "one": ()})),
          plain(parts, [3]))  # fmt: skip


def test_neighbours_of_one_client_cannot_all_be_dropped() -> None:
    """In a sparse graph that would bare it: its masks with them would come off."""
    many = Clients(range(20), 15)
    vars(many.circle)["degree"] = graph.Degree(6, 5, 0)  # sparser than for so few
    many.share(range(20))
    many.answer([0], drawn(range(20), 0), range(20))
    for dropped in (2, 5):
        others = sorted({*range(20)} - {*many.circle.neighbours[0][:dropped]})
        with pytest.raises(MessageError, match="and of each one's neighbours 5"):
            many.open([0], others)


def two_circles():
    """An attempt whose keys the server kept, and a second one in which client 2 is played by it."""
    first, second = Clients(range(4), 3), Clients(range(4), 3)
    replayed = {**second.circle.roster, 2: first.circle.roster[2]}
    second.circle = replace(second.circle, roster=replayed)
    first.share(range(4))
    second.share([0, 1, 3])
    return first, second


def test_a_key_of_an_earlier_attempt_is_refused() -> None:
    first, second = two_circles()
    passed = {1: second.sealed[1][0], 3: second.sealed[3][0]}
    for made in (first.sealed[2][0], second.sealed[1][0], bytes(82)):
        with pytest.raises(MessageError, match="not sealed by the client"):
            second.sharing[0].receive(range(4), {**passed, 2: made})
    with pytest.raises(MessageError, match="does not pass on what each neighbour shared"):
        second.sharing[0].receive(range(4), passed)


def test_two_rosters_for_two_clients_are_refused() -> None:
    four = Clients(range(4), 3)
    other = replace(four.circle, roster={**four.circle.roster, 3: KeyPairs.new().public})
    four.share([0, 1, 2])
    lied, told = Sharing.begin(1, four.pairs[1], other)
    passed = {1: told[0], 2: four.sealed[2][0]}
    with pytest.raises(MessageError, match="not sealed by the client"):
        four.sharing[0].receive([0, 1, 2], passed)
    with pytest.raises(MessageError, match="not sealed by the client"):
        lied.receive([0, 1, 2], {0: four.sealed[0][1], 2: four.sealed[2][1]})


def test_shares_of_another_round_or_sent_back_are_refused() -> None:
    four = Clients(range(4), 3)
    other = Clients(range(4), 3)
    other.pairs, other.circle = four.pairs, replace(four.circle, context=b"tiny, 2")
    four.share(range(4))
    other.share(range(4))
    passed = four.passed_on(0, range(4))
    for made in (other.sealed[1][0], four.sealed[0][1], four.sealed[2][0]):
        with pytest.raises(MessageError, match="not sealed by the client"):
            four.sharing[0].receive(range(4), {**passed, 1: made})


@pytest.mark.parametrize(
    ("survivors", "why"),
    [
        ([0, 1, 2, 7], "names clients that did not take the step before"),
        ([1, 2, 3], "and not this client"),
        ([0, 1], "2 clients are left: expected 3"),
    ],
)
def test_a_set_that_could_bare_a_client_is_refused(survivors, why) -> None:
    four = Clients(range(4), 3)
    four.share(range(4))
    with pytest.raises(MessageError, match=why):
        four.sharing[0].receive(survivors, {})
    four.answer([0], drawn(range(4), 0), range(4))
    with pytest.raises(MessageError, match=why):
        four.open([0], survivors)


def test_a_roster_without_its_own_keys_or_with_a_key_twice_is_refused() -> None:
    three = Clients(range(3), 3)
    roster = three.circle.roster
    for changed, why in (
        ({**roster, 0: KeyPairs.new().public}, "has not the keys that this client made"),
        ({1: roster[1], 2: roster[2]}, "has not the keys that this client made"),
        ({**roster, 2: roster[1]}, "has one key twice"),
        ({**roster, 2: KeyPairs(roster[2].masks, roster[2].masks)}, "has one key twice"),
        ({**roster, 2: KeyPairs(bytes(32), bytes(32))}, "has one key twice"),
        ({**roster, 2: replace(roster[2], seals=bytes(32))}, "public key .* is none"),
    ):
        with pytest.raises(MessageError, match=why):
            Sharing.begin(0, three.pairs[0], replace(three.circle, roster=changed))


def test_what_a_hostile_client_opens_spoils_the_sum_and_bares_nobody() -> None:
    four, parts = Clients(range(4), 3), drawn(range(4), 0)
    four.share(range(4))
    four.answer(range(3), parts, range(4))
    openings = four.open(range(3), range(3))
    for field in ("shares", "parts", "pads"):
        changed = bytes(99 + 16) if field == "shares" else {each: bytes(33) for each in (0, 2)}
        with pytest.raises(FederationError, match=r"client 3 shared is not|opened what it shared"):
            four.total(
                range(4), range(3), {**openings, 1: replace(openings[1], **{field: changed})}
            )


def test_of_each_neighbour_one_share_is_opened_and_never_both() -> None:
    four = Clients(range(4), 3)
    four.share(range(4))
    four.answer(range(4), drawn(range(4), 0), range(4))
    held, opened = four.holding[0].shares, four.open([0], range(3))[0]
    assert {len(both) for both in held.values()} == {2 * shares.SHARE_BYTES}
    assert len(opened.shares) == 3 * shares.SHARE_BYTES + 16  # and the seal's tag


@pytest.mark.parametrize("value", [0.0, 1.0, -1e7])
def test_one_masked_tensor_looks_the_same_whatever_is_in_it(value: float) -> None:
    three, size = Clients([3, 5, 6], 3), 20_000
    three.share([3, 5, 6])
    words = streams.flat(fixed({"features": torch.full((size,), value).double()}, parties=3))
    three.sharing[5].mask(words, [3, 5, 6])
    numbers = torch.from_numpy(words.view(np.int64))
    signs = 2 * ((numbers[:, None] >> torch.arange(64)) & 1).double() - 1
    assert float(signs.mean(dim=0).abs().max()) < 6 / math.sqrt(size)
    together = (signs.T @ signs / size).fill_diagonal_(0)
    assert float(together.abs().max()) < 6 / math.sqrt(size)


def test_whole_numbers_of_16_bits_are_masked_in_16_bits_and_add_up_to_the_bit() -> None:
    three, draws = Clients([3, 5, 6], 3), torch.Generator().manual_seed(0)
    parts = {
        c: {"gradient": torch.randint(-(2**15), 2**15, (2**17 // 2 + 5,), generator=draws).short()}
        for c in [3, 5, 6]
    }
    three.share([3, 5, 6])
    three.answer([3, 5, 6], parts, [3, 5, 6])
    assert all(words.dtype == np.uint16 for words in three.sent.values())
    bits = np.unpackbits(three.sent[5].view(np.uint8)).mean()
    assert abs(bits - 0.5) < 6 * 0.5 / math.sqrt(16 * 2**16)
    words = sum(three.sent.values())
    unmask(words, three.circle, [3, 5, 6], [3, 5, 6], three.open([3, 5, 6], [3, 5, 6]))
    found = streams.shaped(words, {"gradient": (2**16 + 5,)})["gradient"]
    assert torch.equal(found, sum(each["gradient"] for each in parts.values()))
    assert torch.equal(floating({"sum": found})["sum"], found.double())
    assert not carries(found, parties=3)  # half of them are out of the range
    assert carries(found % 2**14, parties=3)


def test_streams_are_aes_128s_and_run_through_all_numbers() -> None:
    """By the block cipher alone, on counters 0 and 1; and past the part that is done at once."""
    key = bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c")
    block = Cipher(algorithms.AES(key), modes.ECB()).encryptor().update
    words = np.zeros(2**14 + 5, np.uint64)
    streams.add(words, plus=[key])
    whole = b"".join(block(count.to_bytes(16)) for count in range(2**13 + 3))
    assert words.tobytes() == whole[: 8 * len(words)]
    many = [sha256(b"%d" % i).digest()[:16] for i in range(70)]
    streams.add(words, plus=many, minus=[key, *many])
    assert not words.any()


@settings(max_examples=25, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.integers(1, 6), st.integers(0, 4), st.randoms())
def test_as_many_shares_as_were_said_are_the_secret(secret, threshold, more, draws) -> None:
    holders = draws.sample(range(1000), threshold + more)
    found = shares.split(secret, holders, threshold)
    some = draws.sample(holders, threshold)
    assert shares.combine({holder: found[holder] for holder in some}) == secret
    if threshold > 1:  # of one share fewer any secret may be: another polynomial goes through them
        fewer = {holder: found[holder] for holder in some[1:]}
        assert shares.combine(fewer) != secret


def test_the_prime_is_one() -> None:
    """By Miller and Rabin, to bases for which no composite of this size is known to pass."""
    assert shares.PRIME > 2**256
    odd, twos = shares.PRIME - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37):
        power = pow(base, odd, shares.PRIME)
        passes = {pow(power, 2**i, shares.PRIME) for i in range(twos)}
        assert power == 1 or shares.PRIME - 1 in passes


@pytest.mark.parametrize(("clients", "least"), [(2, 2), (10, 7), (32, 20), (50, 45), (100, 90)])
def test_the_graph_is_as_even_as_it_says(clients: int, least: int) -> None:
    degree = graph.degree(clients, least)
    found = graph.neighbours(range(clients), degree.neighbours, b"any")
    for client, around in found.items():
        assert len(around) == len(set(around)) == degree.neighbours
        assert client not in around
        assert all(client in found[other] for other in around)
    assert degree.neighbours < 2 * degree.threshold <= 2 * degree.neighbours
    honest = degree.threshold - degree.colluders
    assert 2 * honest > degree.neighbours
    if clients <= 32:  # a round then ends whoever is lost
        assert degree == graph.Degree(clients - 1, least - 1, least - 1 - clients // 2)
    else:
        assert 3 * honest > 2 * degree.neighbours + 1
        assert found != graph.neighbours(range(clients), degree.neighbours, b"other")


def test_the_sparse_graph_bears_what_it_says() -> None:
    """Drawn at random, far more often than not; the bounds themselves are 2^-20 and 2^-40."""
    degree = graph.degree(100, 90)
    assert degree == graph.Degree(48, 38, colluders=5)
    draws = np.random.default_rng(0)
    for seed in range(50):
        found = graph.neighbours(range(100), degree.neighbours, b"%d" % seed)
        left = draws.permutation(100)[:90].tolist()
        assert graph.holds(found, left, threshold=degree.threshold, least=90)
        some = set(draws.permutation(100)[:5].tolist())
        assert max(len(some & {*around}) for around in found.values()) <= degree.colluders


@pytest.mark.parametrize(
    ("others", "marked", "k"), [(99, 90, 32), (99, 5, 32), (40, 0, 6), (9, 7, 4)]
)
def test_chances_of_a_draw_are_the_hypergeometric_ones(others: int, marked: int, k: int) -> None:
    wanted = hypergeom.pmf(np.arange(k + 1), others, marked, k)
    np.testing.assert_allclose(graph._chances(others, marked, k), wanted, rtol=1e-9, atol=1e-300)


@pytest.mark.parametrize(("clients", "least"), [(4, 2), (10, 5), (3, 2), (2, 1), (5, 6)])
def test_two_groups_that_could_each_have_a_sum_are_refused(clients: int, least: int) -> None:
    with pytest.raises(ValueError, match=f"more than half of {clients} clients .* got {least}"):
        graph.degree(clients, least)


@pytest.mark.parametrize("value", [1.001 * 2**28 / 4, -1.001 * 2**28 / 4, math.inf, math.nan])
def test_what_a_sum_could_not_carry_is_refused(value: float) -> None:
    with pytest.raises(FederationError, match=r"field 'features' holds .* over 4 clients carries"):
        fixed({"features": torch.tensor([1.0, value]).double()}, parties=4)


def test_a_type_whose_steps_would_show_through_the_sum_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Expected field 'z' in float64 .* torch.float32"):
        fixed({"z": torch.zeros(2)}, parties=2)


@given(st.floats(-(2.0**28) / 3, 2.0**28 / 3))
def test_all_numbers_are_finer_than_the_step(value: float) -> None:
    """So that a sum's last bits are as random as its noise, however large some parts are."""
    assert math.ulp(value) < RESOLUTION


def test_keys_of_two_clients_and_two_directions_are_others() -> None:
    one, other = KeyPairs.new(), KeyPairs.new()
    ours = keys.Between.of(1, one.seals, 2, other.public.seals, b"t")
    theirs = keys.Between.of(2, other.seals, 1, one.public.seals, b"t")
    assert (ours.outward, ours.inward, ours.agreed) == (
        theirs.inward,
        theirs.outward,
        theirs.agreed,
    )
    assert len({ours.outward, ours.inward, ours.agreed}) == 3
    assert keys.Between.of(1, one.seals, 2, other.public.seals, b"u").agreed != ours.agreed
    for key in (bytes(32), b"short"):
        with pytest.raises(MessageError, match=r"public key .* is none"):
            keys.check_key(key)
    assert Circle({1: one.public, 2: other.public}, 2, b"a").transcript != (
        Circle({1: one.public, 2: other.public}, 2, b"b").transcript
    )
