"""Times of steps of two ranks under torchrun, DistributedDataParallel over Gloo, or of all-reduces of 25 MB; rank 0 prints them as JSON."""

import argparse
import json
import os
import sys

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import data
import networks
from clocks import Clocks


class WithLoss(torch.nn.Module):
    """The loss is a part of what is parallel, so that every parameter takes part in it."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return networks.loss_of(self.network, images, labels)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("method", choices=("deterministic", "batch-ensemble", "lp-bnn", "all-reduce"))
    for name in ("steps", "warm_up", "threads", "batch", "members", "depth", "widen"):
        parser.add_argument("--" + name.replace("_", "-"), type=int, required=True)
    parser.add_argument("--clip", type=float)
    parser.add_argument("--images", required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_num_interop_threads(1)
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)
    if options.method == "all-reduce":
        gradients = torch.ones(25_000_000 // 4)

        def step(_: int) -> None:
            dist.all_reduce(gradients, op=dist.ReduceOp.SUM)
            gradients.mul_(1 / world)
    else:
        images, labels = data.load(options.images)
        network = networks.WideResNet(networks.Method(options.method, options.members), options.depth, options.widen)
        # Running statistics are each rank's own, as ours.
        parallel = DistributedDataParallel(WithLoss(network), broadcast_buffers=False)
        optimizer = networks.optimizer_of(network)
        local = options.batch // world

        def step(number: int) -> None:
            first = number * options.batch % (len(images) - options.batch + 1) + rank * local
            optimizer.zero_grad()
            parallel(images[first:first + local], labels[first:first + local]).backward()
            if options.clip is not None:
                torch.nn.utils.clip_grad_norm_(network.parameters(), options.clip)
            optimizer.step()

    clocks = Clocks()
    for number in range(options.warm_up + options.steps + 1):
        clocks.begin()
        step(number)
    if rank == 0:
        json.dump(clocks.times(options.warm_up), sys.stdout)
        sys.stdout.flush()
    dist.destroy_process_group()
    os._exit(0)


if __name__ == "__main__":
    main()
