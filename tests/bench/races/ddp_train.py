"""One rank of a data-parallel training under torchrun: checkpoints, restores, and writes down when each step ended."""

import datetime
import os
import sys
import time

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

STEPS = 1_000_000
EVERY = 50


def model() -> torch.nn.Module:
    return torch.nn.Sequential(
        torch.nn.Linear(64, 600), torch.nn.ReLU(),
        torch.nn.Linear(600, 600), torch.nn.ReLU(),
        torch.nn.Linear(600, 10),
    )


def write(path: str, text: str) -> None:
    with open(path + ".part", "w") as file:
        file.write(text)
    os.rename(path + ".part", path)


def main(folder: str, timeout: float) -> None:
    torch.set_num_threads(1)
    limit = datetime.timedelta(seconds=timeout) if timeout > 0 else None
    dist.init_process_group("gloo", timeout=limit)
    rank, world = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)
    network = DistributedDataParallel(model())
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    checkpoint = os.path.join(folder, "checkpoint.pt")
    step = 0
    if os.path.exists(checkpoint):
        state = torch.load(checkpoint, weights_only=True)
        network.module.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    images, labels = torch.randn(1024, 64), torch.randint(0, 10, (1024,))
    write(os.path.join(folder, f"pid-{rank}"), str(os.getpid()))
    with open(os.path.join(folder, "steps"), "a", buffering=1) as steps:
        while step < STEPS:
            rows = torch.arange(rank, 32, world) + step * 32
            loss = torch.nn.functional.cross_entropy(network(images[rows % 1024]), labels[rows % 1024])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            if rank == 0:
                steps.write(f"{time.time()} {step} {os.getpid()}\n")
                if step % EVERY == 0:
                    state = {"model": network.module.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
                    torch.save(state, checkpoint + ".part")
                    os.rename(checkpoint + ".part", checkpoint)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
