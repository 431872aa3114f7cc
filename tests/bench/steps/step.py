"""Times of training steps of a network of `networks.py`, or of torch-uncertainty's LP-BNN: prints them as JSON: seconds
of the clock and of processor time.

A step is everything from one batch to the next: the batch is taken out of memory, forward, backward, the gradient's norm where it is
clipped, the optimizer's update. A trial of ours has the same batch size, recipe and number of threads.
"""

import argparse
import json
import sys

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import data
import networks
from clocks import Clocks


def torch_uncertainty(members: int) -> nn.Module:
    from torch_uncertainty.layers.bayesian.lpbnn import LPBNNConv2d, LPBNNLinear
    from torch_uncertainty.models.classification.resnet import lpbnn_resnet
    from torch_uncertainty.models.classification.resnet.utils import ResNetStyle

    network = lpbnn_resnet(in_channels=3, num_classes=10, arch=18, num_estimators=members, style=ResNetStyle.CIFAR)
    layers = [layer for layer in network.modules() if isinstance(layer, (LPBNNConv2d, LPBNNLinear))]

    def latent_loss() -> Tensor:
        return sum(layer.log_variational_posterior for layer in layers) / len(layers)

    # Its model repeats the batch by itself.
    network.members = members
    network.latent_loss = latent_loss
    return network


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("method", choices=("deterministic", "batch-ensemble", "lp-bnn", "torch-uncertainty"))
    for name in ("steps", "warm_up", "threads", "batch", "members", "depth", "widen"):
        parser.add_argument("--" + name.replace("_", "-"), type=int, required=True)
    parser.add_argument("--clip", type=float)
    parser.add_argument("--images", required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_num_interop_threads(1)
    torch.manual_seed(0)
    images, labels = data.load(options.images)
    if options.method == "torch-uncertainty":
        network = torch_uncertainty(options.members)

        def loss_of(images: Tensor, labels: Tensor) -> Tensor:
            logits = network(images)
            return F.cross_entropy(logits, labels.repeat(options.members)) + network.latent_loss()
    else:
        network = networks.WideResNet(networks.Method(options.method, options.members), options.depth, options.widen)

        def loss_of(images: Tensor, labels: Tensor) -> Tensor:
            return networks.loss_of(network, images, labels)
    optimizer = networks.optimizer_of(network)
    order = torch.randperm(len(images))
    clocks = Clocks()
    for step in range(options.warm_up + options.steps + 1):
        clocks.begin()
        some = order[torch.arange(options.batch) + step * options.batch % (len(images) - options.batch + 1)]
        batch, targets = images[some], labels[some]
        optimizer.zero_grad()
        loss_of(batch, targets).backward()
        if options.clip is not None:
            nn.utils.clip_grad_norm_(network.parameters(), options.clip)
        optimizer.step()
    json.dump(clocks.times(options.warm_up), sys.stdout)


if __name__ == "__main__":
    main()
