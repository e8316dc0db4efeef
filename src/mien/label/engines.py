"""How the units of a job are divided among workers: processes of this machine, or actors of a Ray cluster.

Both run `mien.label.job.Worker`, one unit at a time. A worker that is killed is replaced, and its unit is done again. A unit
that kills its worker three times is written as an error, and the job continues.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import signal
import threading
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any

from mien.errors import DataError, MienError, UnknownNameError, reason, require
from mien.label.job import Result, Work, Worker, write_failed
from mien.label.sources import Unit
from mien.provenance import available_cores

MAX_KILLS = 3
"""How many workers a unit may kill."""


def check_engine(engine: str) -> None:
    """Raise the errors of an engine that can be known before any work.

    Raises:
        UnknownNameError: There is no such engine.
        MissingExtraError: Its package is not installed.
    """
    if engine not in ("local", "ray"):
        raise UnknownNameError(f"unknown engine {engine!r}; choose local or ray")
    if engine == "ray":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no telemetry; Ray reads these when it is imported
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        require("ray.data", "label")


def run_engine(engine: str, work: Work, units: Sequence[Unit], workers: int | None) -> Iterator[Result]:
    """Yield the result of each unit when it is done, in any order.

    Args:
        engine: `local` or `ray`.
        work: What to do with the units.
        units: The units.
        workers: Number of workers; None takes every core, and 0 works in this process.

    Raises:
        MienError: A worker cannot continue, for example because credentials have expired.
    """
    if not units:
        return iter(())
    if engine == "ray":
        return _run_ray(work, units, workers)
    return map(Worker(work), units) if workers == 0 else _run_local(work, units, workers or available_cores())


# Processes of this machine ----------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class _Process:
    """A worker process: whether its model is loaded, and the unit that it is doing."""

    process: Any
    ready: bool = False
    unit: Unit | None = None


def _run_local(work: Work, units: Sequence[Unit], workers: int) -> Iterator[Result]:
    context = multiprocessing.get_context("spawn")
    todo, kills, lost_starts = deque(units), Counter[int](), 0
    crew: dict[Any, _Process] = {}
    try:
        while busy := sum(each.unit is not None for each in crew.values()) + len(todo):
            while len(crew) < min(workers, busy):
                begin, end = context.Pipe()
                process = context.Process(target=_serve, args=(work, end), daemon=True)
                process.start()
                end.close()  # so that the pipe ends with the process
                crew[begin] = _Process(process)
            pipe: Any
            for pipe, each in crew.items():
                if each.ready and each.unit is None and todo:
                    each.unit = todo.popleft()
                    with suppress(OSError):  # it was killed while it waited, which the next lines notice
                        pipe.send(each.unit)
            for pipe in wait(list(crew)):
                each, answer = crew[pipe], _receive(pipe)
                if isinstance(answer, MienError):
                    raise answer
                if isinstance(answer, Result):
                    each.unit = None
                    yield answer
                if answer is not None:
                    each.ready, lost_starts = True, 0
                    continue
                each.process.join()
                pipe.close()
                del crew[pipe]
                unit, why = each.unit, _end_of(each.process.exitcode)
                if unit is not None:
                    kills[unit.number] += 1
                    if kills[unit.number] < MAX_KILLS:
                        todo.appendleft(unit)
                    else:
                        yield write_failed(work, unit, f"its worker {why} {MAX_KILLS} times; perhaps memory ran out")
                elif not each.ready:
                    lost_starts += 1
                    if lost_starts == MAX_KILLS:
                        raise DataError(
                            f"a worker {why} {MAX_KILLS} times while it started; perhaps memory ran out: try fewer --workers"
                        )
    finally:
        for each in crew.values():
            each.process.kill()
        for each in crew.values():
            each.process.join()


def _receive(pipe: Any) -> Any:
    """Return the next message of a process; None if the process has ended."""
    try:
        return pipe.recv()
    except (EOFError, OSError):
        return None


def _end_of(status: int) -> str:
    """Return how a process ended.

    >>> _end_of(1), _end_of(-9)
    ('ended with status 1', 'was killed (SIGKILL)')
    """
    return f"was killed ({signal.Signals(-status).name})" if status < 0 else f"ended with status {status}"


def _serve(work: Work, pipe: Any) -> None:
    """Do units in a process of its own: send True when the model is loaded, then a `Result` for each `Unit`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the job, which then ends this process
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        worker = Worker(work)
        pipe.send(True)
        while True:
            pipe.send(worker(pipe.recv()))
    except MienError as error:
        pipe.send(error)


def _end_with_parent() -> None:
    """End this process as soon as the job ends, even if that was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


# Actors of a Ray cluster ------------------------------------------------------------------------------------------------


def _run_ray(work: Work, units: Sequence[Unit], workers: int | None) -> Iterator[Result]:
    ray, data = require("ray", "label"), require("ray.data", "label")
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    joined = ray.is_initialized()
    if not joined:  # the cluster of RAY_ADDRESS, or one of this machine that ends with the job
        try:
            ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        except Exception as error:
            raise DataError(f"Ray cannot be started or reached ({reason(error)}); check RAY_ADDRESS and its cluster") from None
    try:
        context = data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        size = workers or int(ray.cluster_resources().get("CPU", 1))
        begins = ray.remote(_Begins).options(num_cpus=0, max_restarts=-1, max_task_retries=-1).remote()
        answers = data.from_items([{"unit": pickle.dumps(unit)} for unit in units], override_num_blocks=len(units)).map_batches(
            _Actor,
            fn_constructor_args=(work, begins),
            batch_size=1,
            num_cpus=1,
            compute=data.ActorPoolStrategy(size=min(size, len(units)), max_tasks_in_flight_per_actor=1),
        )
        for batch in answers.iter_batches(batch_size=1, prefetch_batches=0):
            (answer,) = batch["answer"]
            answer = pickle.loads(answer)
            if isinstance(answer, MienError):
                raise answer
            yield answer
    finally:
        if not joined:
            ray.shutdown()


class _Begins:
    """Counts how often each unit was begun; an actor of its own, because it outlives the workers."""

    def __init__(self) -> None:
        self.counts = Counter[int]()

    def add(self, number: int) -> int:
        """Count a beginning of a unit, and return how many there were."""
        self.counts[number] += 1
        return self.counts[number]


class _Actor:
    """A worker in an actor of Ray Data, which calls it with batches of one unit.

    It returns a `MienError` instead of raising it: Ray would try the unit again.
    """

    def __init__(self, work: Work, begins: Any) -> None:
        self.work, self.begins = work, begins
        try:
            self.worker: Worker | MienError = Worker(work)
        except MienError as error:
            self.worker = error

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        import ray

        (packed,) = batch["unit"]
        unit: Unit = pickle.loads(packed)
        answer: Result | MienError
        try:
            if isinstance(self.worker, MienError):
                answer = self.worker
            elif ray.get(self.begins.add.remote(unit.number)) > MAX_KILLS:
                answer = write_failed(self.work, unit, f"its worker was killed {MAX_KILLS} times; perhaps memory ran out")
            else:
                answer = self.worker(unit)
        except MienError as error:
            answer = error
        return {"answer": [pickle.dumps(answer)]}
