"""Masks: what all send is the plain sum, what one sends is noise, and the stream is AES's own."""

import math
import struct
from hashlib import sha256

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedkd.errors import FederationError, MessageError
from fedkd.exchange import masks
from fedkd.exchange.masks import RESOLUTION, fixed, floating, masked, total

SHAPES = {"features": (17,), "labels": (4, 3), "one": ()}


def drawn(parties: int, seed: int, scale: float) -> list[dict[str, Tensor]]:
    draws = torch.Generator().manual_seed(seed)
    return [
        {n: scale * torch.randn(s, generator=draws, dtype=torch.float64) for n, s in SHAPES.items()}
        for _ in range(parties)
    ]


class Parties:
    """Clients with a secret each; their numbers need not be 0, 1, 2."""

    def __init__(self, clients: list[int]) -> None:
        self.secrets = {client: masks.new_secret() for client in clients}
        self.roster = {c: masks.public_key(secret) for c, secret in self.secrets.items()}

    def mask(self, client: int, numbers: dict[str, Tensor], round: int = 1) -> dict[str, Tensor]:
        return masked(
            numbers,
            client=client,
            secret=self.secrets[client],
            roster=self.roster,
            experiment="tiny",
            round=round,
        )

    def send(self, parts: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
        count = len(self.secrets)
        return [
            self.mask(client, fixed(part, parties=count))
            for client, part in zip(self.secrets, parts, strict=True)
        ]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(0, 10**6), min_size=2, max_size=9, unique=True),
    st.integers(0, 2**31),
    st.sampled_from([1e-6, 1.0, 1e3, 1e6]),
)
def test_what_all_send_adds_up_to_the_plain_sum(
    clients: list[int], seed: int, scale: float
) -> None:
    parts = drawn(len(clients), seed, scale)
    found = floating(total(Parties(clients).send(parts)))
    for name, shape in SHAPES.items():
        assert found[name].shape == shape
        plain = torch.stack([part[name] for part in parts]).sum(dim=0)
        # Half a step of each, and the rounding of float64 itself.
        most = len(clients) * RESOLUTION / 2 + 1e-15 * len(clients) * float(plain.abs().max() + 1)
        torch.testing.assert_close(found[name], plain, rtol=1e-15, atol=most)


def test_all_but_one_of_them_add_up_to_noise() -> None:
    parties = Parties([0, 1, 2, 3])
    sent = parties.send(drawn(4, 0, 1.0))
    partial = floating(total(sent[:3]))
    assert float(partial["features"].abs().min()) > 1e3  # of up to 2^39
    assert float(partial["features"].abs().median()) > 1e8


@pytest.mark.parametrize("value", [0.0, 1.0, -1e8])
def test_one_masked_tensor_looks_the_same_whatever_is_in_it(value: float) -> None:
    parties, size = Parties([3, 5]), 20_000
    data = fixed({"features": torch.full((size,), value).double()}, parties=2)
    sent = parties.mask(5, data)["features"]
    signs = 2 * ((sent[:, None] >> torch.arange(64)) & 1).double() - 1
    assert float(signs.mean(dim=0).abs().max()) < 6 / math.sqrt(size)
    together = (signs.T @ signs / size).fill_diagonal_(0)
    assert float(together.abs().max()) < 6 / math.sqrt(size)


def test_under_the_same_keys_two_data_sets_differ_by_their_difference_alone() -> None:
    parties = Parties([0, 1, 2])
    first, second = (fixed(part, parties=3) for part in drawn(2, 1, 10.0))
    sent = [parties.mask(1, numbers) for numbers in (first, second)]
    for name in SHAPES:
        assert torch.equal(sent[0][name] - sent[1][name], first[name] - second[name])


def mask_of(parties: Parties, client: int, round: int = 1) -> list[int]:
    return parties.mask(client, {"z": torch.zeros(50).long()}, round)["z"].tolist()


def test_the_mask_of_each_pair_round_and_attempt_is_another() -> None:
    two, again = Parties([0, 1]), Parties([0, 1])
    three = Parties([0, 1, 2])
    three.secrets |= two.secrets
    three.roster |= two.roster
    found = [mask_of(two, 0), mask_of(two, 0, round=2), mask_of(again, 0), mask_of(three, 0)]
    found += [mask_of(three, 1), mask_of(three, 2)]
    # A larger roster is bound into a pair's key: client 2's mask is not what the others differ by.
    found.append([a - b for a, b in zip(mask_of(three, 0), mask_of(two, 0), strict=True)])
    words = [word for each in found for word in each]
    assert len(set(words)) == len(words)


def test_one_stream_runs_through_the_tensors_in_the_order_of_their_names() -> None:
    parties = Parties([4, 9])
    numbers = {"b": torch.zeros(2, 3).long(), "a": torch.zeros(5).long()}
    sent = parties.mask(4, numbers)
    agreed = X25519PrivateKey.from_private_bytes(parties.secrets[9]).exchange(
        X25519PublicKey.from_public_bytes(parties.roster[4])
    )
    told = b"".join(struct.pack("<Q", client) + parties.roster[client] for client in (4, 9))
    info = b"fedkd masks\0" + struct.pack("<QQQ", 1, 4, 9) + b"tiny"
    key = HKDF(SHA256(), length=32, salt=sha256(told).digest(), info=info).derive(agreed)
    stream = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor().update(bytes(88))
    words = list(struct.unpack("<11q", stream))
    assert sent["a"].tolist() == words[:5]
    assert sent["b"].flatten().tolist() == words[5:]
    assert parties.mask(9, numbers)["a"].tolist() == [-word for word in words[:5]]


def test_the_stream_is_that_of_aes_256() -> None:
    """By the block cipher alone, on counters 0 and 1."""
    key = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
    block = Cipher(algorithms.AES(key), modes.ECB()).encryptor().update
    assert masks.stream(key, 20) == (block(bytes(16)) + block(bytes(15) + b"\1"))[:20]


@pytest.mark.parametrize("value", [1.001 * 2**28 / 4, -1.001 * 2**28 / 4, math.inf, math.nan])
def test_what_a_sum_could_not_carry_is_refused(value: float) -> None:
    almost = {"features": torch.tensor([1.0, 0.999 * 2**28 / 4], dtype=torch.float64)}
    assert floating(total([fixed(almost, parties=4)] * 4))["features"][1] > 0.99 * 2**28
    with pytest.raises(FederationError, match=r"field 'features' holds .* over 4 clients carries"):
        fixed({"features": torch.tensor([1.0, value]).double()}, parties=4)


def test_a_type_whose_steps_would_show_through_the_sum_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Expected field 'z' in float64 .* torch.float32"):
        fixed({"z": torch.zeros(2)}, parties=2)


@given(st.floats(-(2.0**28) / 3, 2.0**28 / 3))
def test_all_numbers_are_finer_than_the_step(value: float) -> None:
    """So that a sum's last bits are as random as its noise, however large some parts are."""
    assert math.ulp(value) < RESOLUTION


def test_a_key_that_is_none_and_a_roster_without_the_client_are_refused() -> None:
    parties, numbers = Parties([0, 1]), {"z": torch.zeros(1).long()}
    secret = parties.secrets[0]
    for key in (bytes(32), b"short"):
        with pytest.raises(MessageError, match=r"public key .* is none"):
            masked(numbers, client=0, secret=secret, roster={**parties.roster, 1: key},
                   experiment="tiny", round=1)  # fmt: skip
    alone = {0: parties.roster[0]}
    for client, roster in ((0, alone), (2, parties.roster), (1, parties.roster)):
        with pytest.raises(ValueError, match="Expected a roster of two or more"):
            masked(numbers, client=client, secret=secret, roster=roster,
                   experiment="tiny", round=1)  # fmt: skip
