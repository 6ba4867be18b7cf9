"""A bare pool of threads, or with PEERS_PROCESSES=1 of forked processes: nothing around it."""

import copy
import ctypes
import os
import sys
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import torch
from torch import Tensor, nn
from work import job, shards, train

CLIENTS = shards()
KEPT: dict[str, nn.Module] = {}
"""What a forked worker builds once: the model of each cell."""


def tuned() -> None:
    """Have glibc keep the memory that it was given back."""
    if sys.platform == "linux":
        libc = ctypes.CDLL("libc.so.6")
        for option in (-1, -3, -2):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_TOP_PAD
            libc.mallopt(option, 2**29 if option != -2 else 2**26)


def learn(model: nn.Module, client: int, round: int) -> dict[str, Tensor]:
    """A client's new model."""
    torch.set_num_threads(1)
    own = copy.deepcopy(model)
    train(own, *CLIENTS[client], torch.Generator().manual_seed(round * 100 + client))
    return own.state_dict()


def learn_apart(state: dict[str, object], client: int, round: int) -> dict[str, object]:
    """As `learn`, with numpy's arrays there and back."""
    model = KEPT.setdefault("model", job().model())
    model.load_state_dict({name: torch.from_numpy(each) for name, each in state.items()})
    return {name: each.numpy() for name, each in learn(model, client, round).items()}


def main() -> None:
    """Train."""
    asked, apart = job(), os.environ.get("PEERS_PROCESSES") == "1"
    torch.set_num_threads(1)
    tuned()
    student = asked.model()
    pool: Executor = (
        ProcessPoolExecutor(asked.threads, mp_context=get_context("fork"))
        if apart
        else ThreadPoolExecutor(asked.threads)
    )
    with pool:
        for round in range(asked.rounds):
            state = student.state_dict()
            sent = {name: each.numpy().copy() for name, each in state.items()} if apart else student
            calls = [
                pool.submit(learn_apart if apart else learn, sent, client, round)
                for client in range(len(CLIENTS))
            ]
            total = {name: torch.zeros_like(each) for name, each in state.items()}
            for call in calls:
                for name, each in call.result().items():
                    total[name] += torch.as_tensor(each) / len(calls)
            student.load_state_dict(total)
            asked.round_ends()
    asked.ends(student)


if __name__ == "__main__":
    main()
