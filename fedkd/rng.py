"""Random streams: every draw in fedkd comes from `stream(seed, round, client, purpose)`.

A stream depends on its four names alone, never on which thread, process or machine asks for it or
on what was drawn before. That is what makes a run resume, and every engine agree, bit for bit.
Noise for differential privacy is the one exception: it is seeded from the operating system.
"""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fedkd.devices import CPU

_GLOBAL = threading.RLock()  # a user's factory may build models of its own


def derive(seed: int, *, purpose: str, round: int = 0, client: int | None = None) -> int:
    """A 63-bit seed for one purpose, by SHA-256 of the four names."""
    text = f"fedkd:{seed}:{round}:{'server' if client is None else client}:{purpose}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1


def stream(
    seed: int, *, purpose: str, round: int = 0, client: int | None = None
) -> torch.Generator:
    """A fresh generator for (seed, round, client, purpose).

    Args:
        seed: the experiment's seed.
        purpose: what is drawn, such as `"batches"`; two purposes never share a stream.
        round: the round, from 1; 0 for what happens once, before the first.
        client: the client's index, from 0; None for the server.
    """
    generator = torch.Generator()
    generator.manual_seed(derive(seed, purpose=purpose, round=round, client=client))
    return generator


@contextmanager
def torch_default(generator: torch.Generator, device: torch.device = CPU) -> Iterator[None]:
    """Let torch's global generator follow `generator` for a moment, then put it back.

    Layers initialise themselves from the global generator and take no other, so it is borrowed
    under a lock; nothing outside sees a change. Of a `device` with a generator of its own, by
    which dropout there is drawn, the same holds for that one.
    """
    seed = int(torch.randint(2**62, (), generator=generator))
    with _GLOBAL, torch.random.fork_rng(devices=[]), _of_device(device, seed):
        torch.default_generator.manual_seed(seed)
        yield


@contextmanager
def _of_device(device: torch.device, seed: int) -> Iterator[None]:
    """Let the global generator of a device start from a seed; the CPU has its own way."""
    if device.type == "cpu":
        yield
        return
    index, module = device.index or 0, torch.get_device_module(device)
    with torch.random.fork_rng(devices=[index], device_type=device.type):
        with torch.accelerator.device_index(index):
            module.manual_seed(seed)
        yield
