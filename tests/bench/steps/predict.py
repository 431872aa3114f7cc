"""Times of predicting a batch with all members of a network of `networks.py`: prints them as JSON: seconds
of the clock and of processor time.

A time is that of everything from one batch to the next: the batch is taken out of memory, forward, softmax, the mean over members.
"""

import argparse
import json
import sys

import torch

import data
import networks
from clocks import Clocks


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("method", choices=("deterministic", "batch-ensemble", "lp-bnn"))
    for name in ("steps", "warm_up", "threads", "batch", "members", "depth", "widen"):
        parser.add_argument("--" + name.replace("_", "-"), type=int, required=True)
    parser.add_argument("--images", required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_num_interop_threads(1)
    torch.manual_seed(0)
    images, _ = data.load(options.images)
    network = networks.WideResNet(networks.Method(options.method, options.members), options.depth, options.widen)
    network.eval()
    clocks, kept = Clocks(), []
    with torch.inference_mode():
        for step in range(options.warm_up + options.steps + 1):
            clocks.begin()
            batch = images[step * options.batch % (len(images) - options.batch + 1):][:options.batch]
            logits = network(torch.cat([batch] * network.members))
            members = logits.softmax(-1).view(network.members, options.batch, -1)
            kept.append(members.mean(0))
    json.dump(clocks.times(options.warm_up), sys.stdout)


if __name__ == "__main__":
    main()
