"""Optuna's grid sampler, several processes on one SQLite file.

    optuna_grid.py make FOLDER SIDE           makes the study
    optuna_grid.py work FOLDER SIDE HEARTBEAT runs cells until the grid is exhausted; 0 for no heartbeat
    optuna_grid.py count FOLDER SIDE          prints cells, those that are missing, those that are done more than once
"""

import collections
import json
import os
import sys
import time
import warnings

warnings.simplefilter("ignore")  # Heartbeats are announced as experimental at every use.

import optuna  # noqa: E402
from optuna.samplers import GridSampler  # noqa: E402
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback  # noqa: E402

SECONDS = 0.5


def storage(folder: str, heartbeat: float) -> RDBStorage:
    url = "sqlite:///" + os.path.join(folder, "study.db")
    arguments = {"engine_kwargs": {"connect_args": {"timeout": 60}}}
    if heartbeat > 0:
        arguments |= {
            "heartbeat_interval": int(heartbeat),
            "grace_period": int(heartbeat) * 3,
            "heartbeat_stale_trial_callback": RetryHeartbeatStaleTrialCallback(),
        }
    return RDBStorage(url, **arguments)


def space(side: int) -> dict:
    return {name: list(range(side)) for name in ("x", "y")}


def objective(trial: optuna.Trial) -> float:
    x = trial.suggest_categorical("x", list(range(int(sys.argv[3]))))
    y = trial.suggest_categorical("y", list(range(int(sys.argv[3]))))
    time.sleep(SECONDS)
    return x + y


def main() -> None:
    task, folder, side = sys.argv[1], sys.argv[2], int(sys.argv[3])
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if task == "make":
        optuna.create_study(study_name="race", storage=storage(folder, 0), sampler=GridSampler(space(side), seed=0))
    elif task == "work":
        study = optuna.load_study(
            study_name="race", storage=storage(folder, float(sys.argv[4])), sampler=GridSampler(space(side), seed=0)
        )
        study.optimize(objective)
    else:
        study = optuna.load_study(study_name="race", storage=storage(folder, 0))
        done = [trial for trial in study.trials if trial.state == optuna.trial.TrialState.COMPLETE]
        cells = collections.Counter((trial.params["x"], trial.params["y"]) for trial in done)
        missing = side * side - len(cells)
        double = sum(1 for count in cells.values() if count > 1)
        print(json.dumps({"cells": side * side, "lost": missing, "double": double, "executions": len(study.trials)}))


if __name__ == "__main__":
    main()
