"""How many operations a second the device does in products of square matrices, at most, as libtorch calls them: prints JSON.

The best of a few sizes counts, each by the median of its windows.
"""

import argparse
import json

import torch

from device import PRECISIONS, median, name_of, prepare, windows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", required=True)
    parser.add_argument("--precision", choices=PRECISIONS, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--windows", type=int, required=True)
    parser.add_argument("--window-ms", type=int, required=True)
    options = parser.parse_args()
    device = prepare(options.device, options.precision, options.threads)
    sizes = (4096, 8192, 16384) if device.type == "cuda" else (256, 512)
    flops = {}
    for size in sizes:
        left, right = (torch.randn(size, size, device=device).to(PRECISIONS[options.precision]) for _ in range(2))
        out = torch.empty_like(left)
        with torch.no_grad():
            times = windows(lambda: torch.mm(left, right, out=out), device, 3, options.windows, options.window_ms / 1e3)
        flops[size] = 2 * size**3 / median(times)
    best = max(flops, key=flops.__getitem__)
    print(json.dumps({"device": name_of(device), "size": best, "flops_per_second": flops[best]}))


if __name__ == "__main__":
    main()
