"""When steps begin: seconds of the clock, and of the processor time of all threads."""

import time


class Clocks:
    def __init__(self) -> None:
        self.wall: list[float] = []
        self.processor: list[float] = []

    def begin(self) -> None:
        self.wall.append(time.perf_counter())
        self.processor.append(time.process_time())

    def times(self, warm_up: int) -> dict[str, list[float]]:
        """Of each step after those that warm up, from its beginning to that of the next."""
        steps = {"wall": self.wall, "processor": self.processor}
        return {name: [after - before for before, after in zip(begun, begun[1:])][warm_up:] for name, begun in steps.items()}
