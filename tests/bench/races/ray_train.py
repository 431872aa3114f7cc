"""Data-parallel training under Ray Train: two CPU workers, a checkpoint every 50 steps, restarts after a failure."""

import os
import sys
import tempfile
import time

import ray
import ray.train
import torch
from ray.train import Checkpoint, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer, prepare_model

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


def loop(config: dict) -> None:
    folder = config["folder"]
    torch.set_num_threads(1)
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    torch.manual_seed(0)
    network = prepare_model(model())
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    step = 0
    restored = ray.train.get_checkpoint()
    if restored:
        with restored.as_directory() as path:
            state = torch.load(os.path.join(path, "state.pt"), weights_only=True)
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
                with tempfile.TemporaryDirectory() as path:
                    checkpoint = None
                    if rank == 0:
                        state = {"model": network.module.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
                        torch.save(state, os.path.join(path, "state.pt"))
                        checkpoint = Checkpoint.from_directory(path)
                    ray.train.report({"step": step}, checkpoint=checkpoint)


def main(folder: str, timeout: float) -> None:
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    torch_config = TorchConfig(backend="gloo", timeout_s=int(timeout)) if timeout > 0 else TorchConfig(backend="gloo")
    trainer = TorchTrainer(
        loop,
        train_loop_config={"folder": folder},
        torch_config=torch_config,
        scaling_config=ScalingConfig(num_workers=2, use_gpu=False),
        run_config=RunConfig(
            name="race", storage_path=os.path.join(folder, "ray"), failure_config=FailureConfig(max_failures=3)
        ),
    )
    trainer.fit()


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
