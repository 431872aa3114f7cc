"""Images of a file in CIFAR-10's format, normalised as ours are."""

import numpy
import torch
from torch import Tensor


def load(path: str) -> tuple[Tensor, Tensor]:
    records = numpy.fromfile(path, dtype=numpy.uint8).reshape(-1, 3073)
    labels = torch.from_numpy(records[:, 0].astype(numpy.int64))
    images = torch.from_numpy(records[:, 1:].reshape(-1, 3, 32, 32).astype(numpy.float32)) / 255
    mean, std = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2023, 0.1994, 0.2010])
    return (images - mean[:, None, None]) / std[:, None, None], labels
