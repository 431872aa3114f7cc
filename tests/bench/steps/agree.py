"""Whether a network of `networks.py` and ours are the same: from a checkpoint of ours, the loss and the norm of the gradient at
each of the next steps, as JSON. The noise of LP-BNN is off on both sides, and every batch is the whole data set.
"""

import argparse
import json
import struct
import sys

import torch
from torch import Tensor, nn

import data
import networks


def tensors_of(path: str) -> dict[str, Tensor]:
    """A safetensors file of single precision."""
    with open(path, "rb") as file:
        content = file.read()
    (length,) = struct.unpack("<Q", content[:8])
    header, body = json.loads(content[8:8 + length]), bytearray(content[8 + length:])
    return {
        name: torch.frombuffer(body, dtype=torch.float32, offset=entry["data_offsets"][0],
                               count=(entry["data_offsets"][1] - entry["data_offsets"][0]) // 4).view(entry["shape"]).clone()
        for name, entry in header.items() if name != "__metadata__" and entry["dtype"] == "F32"
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("method")
    for name in ("steps", "threads", "members", "depth", "widen"):
        parser.add_argument("--" + name, type=int, required=True)
    parser.add_argument("--clip", type=float)
    parser.add_argument("--images", required=True)
    parser.add_argument("--checkpoint", required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    images, labels = data.load(options.images)
    method = networks.Method(options.method, options.members, std=0.0)
    network = networks.WideResNet(method, options.depth, options.widen)
    state = tensors_of(options.checkpoint)
    loaded = networks.members_of_checkpoint(state, "model/")
    missing, unexpected = network.load_state_dict(loaded, strict=False)
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or unexpected:
        sys.exit(f"the checkpoint is of another network: it lacks {missing} and has {unexpected}")
    optimizer = networks.optimizer_of(network)
    momentum = networks.members_of_checkpoint(state, "momentum/")
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            optimizer.state[parameter]["momentum_buffer"] = momentum[name]
    steps = []
    for _ in range(options.steps):
        optimizer.zero_grad()
        loss = networks.loss_of(network, images, labels)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(network.parameters(), options.clip if options.clip is not None else float("inf"))
        optimizer.step()
        steps.append({"loss": loss.item(), "grad_norm": norm.item()})
    json.dump(steps, sys.stdout)


if __name__ == "__main__":
    main()
