"""Floating-point operations of one training step of a WideResNet of `networks.py`, by a formula.

Counted are products of matrices and convolutions, a multiplication and an addition as two; normalisations, member-wise scales and
the optimizer are not, as is usual for model FLOPs. With J members and a batch of B images, for each layer

    forward = 2 · J·B · (pixels of its output) · (channels in) · (channels out) · (pixels of its kernel)

and backward the same for the weight's gradient and the same for the input's. Only the stem of a deterministic network needs no
gradient of its input, which is the image. A layer of LP-BNN adds its VAE on J rows (C → L, twice L → L, L → C), whose
encoder's input needs no gradient. `python flops.py` compares this with what torch counts in a step, to the last one.
"""

import sys
from dataclasses import dataclass

import torch

import device  # noqa: F401  (finds networks.py)
import networks


@dataclass
class Shape:
    method: str
    members: int
    batch: int
    depth: int
    widen: int
    side: int = 32
    channels: int = 3
    classes: int = 10
    latent: int = 32


def layers(shape: Shape) -> list[tuple[int, int, int, int]]:
    """Pixels of the output, channels in and out, pixels of the kernel."""
    side, inputs = shape.side, 16
    found = [(side * side, shape.channels, inputs, 9)]
    for width, stride in networks.GROUPS:
        outputs = width * shape.widen
        for block in range((shape.depth - 4) // 6):
            step = stride if block == 0 else 1
            found.append((side * side, inputs, outputs, 9))
            side //= step
            found.append((side * side, outputs, outputs, 9))
            if step != 1 or inputs != outputs:
                found.append((side * side, inputs, outputs, 1))
            inputs = outputs
    return [*found, (1, inputs, shape.classes, 1)]


def of_step(shape: Shape) -> int:
    rows = shape.batch * (1 if shape.method == "deterministic" else shape.members)
    total = 0
    for index, (pixels, inputs, outputs, kernel) in enumerate(layers(shape)):
        forward = 2 * rows * pixels * inputs * outputs * kernel
        of_an_image = index == 0 and shape.method == "deterministic"
        total += forward * (2 if of_an_image else 3)
        if shape.method == "lp-bnn":
            per = 2 * shape.members * shape.latent
            total += 2 * per * inputs + 3 * per * (2 * shape.latent + inputs)
    return total


def counted(shape: Shape) -> int:
    """What torch counts in a step."""
    from torch.utils.flop_counter import FlopCounterMode

    method = networks.Method(shape.method, shape.members, latent=shape.latent)
    network = networks.WideResNet(method, shape.depth, shape.widen, shape.classes)
    images = torch.randn(shape.batch, shape.channels, shape.side, shape.side)
    labels = torch.zeros(shape.batch, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        networks.loss_of(network, images, labels).backward()
    return counter.get_total_flops()


def main() -> None:
    for method in ("deterministic", "batch-ensemble", "lp-bnn"):
        for shape in (Shape(method, 4, 2, 10, 1), Shape(method, 2, 3, 16, 2, classes=7)):
            formula, torchs = of_step(shape), counted(shape)
            if formula != torchs:
                sys.exit(f"{shape}: the formula says {formula}, torch counts {torchs}")
            print(f"{shape}: {formula}")


if __name__ == "__main__":
    main()
