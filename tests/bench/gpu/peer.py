"""Training steps of a network of `networks.py` in plain PyTorch, eager or compiled: prints seconds of a step, the operations of one,
the most memory that tensors had and the number of parameters, as JSON.

A step is forward, backward, the limit of the gradient's norm where there is one, and the optimizer's update. Images lie on the
device, normalised; those of a batch are taken by their numbers. A trial of ours has the same batch size, recipe and precision.
"""

import argparse
import json

import torch
from torch import nn

import flops
from device import PRECISIONS, autocast, prepare, windows

# isort: split
import networks

IMAGES = 4096


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("method", choices=("deterministic", "batch-ensemble", "lp-bnn"))
    parser.add_argument("--device", required=True)
    parser.add_argument("--precision", choices=PRECISIONS, required=True)
    for name in ("threads", "windows", "window-ms", "warm-up", "batch", "members", "depth", "widen"):
        parser.add_argument("--" + name, type=int, required=True)
    parser.add_argument("--clip", type=float)
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    device = prepare(options.device, options.precision, options.threads)
    torch.manual_seed(0)
    layout = torch.channels_last if options.channels_last else torch.contiguous_format
    network = networks.WideResNet(networks.Method(options.method, options.members), options.depth, options.widen)
    network = network.to(device, memory_format=layout)
    optimizer = networks.optimizer_of(network)
    images = torch.randn(IMAGES, 3, 32, 32, device=device).contiguous(memory_format=layout)
    labels = torch.randint(10, (IMAGES,), device=device)
    loss_of = torch.compile(networks.loss_of) if options.compile else networks.loss_of

    def step() -> None:
        some = torch.randint(IMAGES, (options.batch,), device=device)
        optimizer.zero_grad()
        with autocast(device, options.precision):
            loss = loss_of(network, images[some], labels[some])
        loss.backward()
        if options.clip is not None:
            nn.utils.clip_grad_norm_(network.parameters(), options.clip)
        optimizer.step()

    times = windows(step, device, options.warm_up, options.windows, options.window_ms / 1e3)
    # From the first step on, as ours: what cuDNN takes to try its algorithms is in it.
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    # With the vectors that LP-BNN's VAEs encode, as ours counts.
    parameters = sum(parameter.numel() for parameter in network.parameters())
    shape = flops.Shape(options.method, options.members, options.batch, options.depth, options.widen)
    print(json.dumps({"seconds": times, "flops": flops.of_step(shape), "peak_bytes": peak, "parameters": parameters}))


if __name__ == "__main__":
    main()
