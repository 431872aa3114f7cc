"""What the scripts of this folder share: the device, the precision, and times of work that is queued."""

import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch

# One definition of the networks for every bench.
sys.path.insert(0, str(Path(__file__).parent.parent / "steps"))

PRECISIONS = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}


def prepare(device: str, precision: str, threads: int) -> torch.device:
    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)
    tf32 = precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = True
    return torch.device(device)


def name_of(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "processor"


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def windows(work: Callable[[], None], device: torch.device, warm_up: int, count: int, seconds: float) -> list[float]:
    """Seconds of one `work`, as the mean over each of `count` windows of at least `seconds`.

    Nothing waits for the device within a window, as nothing does in training; at its end everything is done.
    """
    for _ in range(warm_up):
        work()
    wait(device)
    times, each = [], 1
    while len(times) < count:
        begun = time.perf_counter()
        for _ in range(each):
            work()
        wait(device)
        passed = time.perf_counter() - begun
        if passed < seconds:
            # A window that was too short does not count, but says how long one must be.
            each = max(each + 1, min(each * 10, int(each * 1.2 * seconds / max(passed, 1e-9))))
        else:
            times.append(passed / each)
    return times


def median(times: list[float]) -> float:
    return statistics.median(times)
