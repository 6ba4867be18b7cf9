"""A plain loop: one client after the other, torch's own threads in it."""

import copy

import torch
from work import job, shards, train


def main() -> None:
    """Train."""
    asked = job()
    torch.set_num_threads(asked.threads)
    student, clients, draws = asked.model(), shards(), torch.Generator().manual_seed(0)
    for _ in range(asked.rounds):
        total = {name: torch.zeros_like(each) for name, each in student.state_dict().items()}
        for x, y in clients:
            own = copy.deepcopy(student)
            train(own, x, y, draws)
            for name, each in own.state_dict().items():
                total[name] += each / len(clients)
        student.load_state_dict(total)
        asked.round_ends()
    asked.ends(student)


if __name__ == "__main__":
    main()
