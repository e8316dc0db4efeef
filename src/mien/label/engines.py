"""How the units of a job are divided among workers: processes of this machine, or actors of a Ray cluster.

Both run `mien.label.work.Worker`, one unit at a time. A worker that is killed is replaced, and its unit is done again. A unit
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
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import wait
from typing import Any

from mien.errors import DataError, MienError, UnknownNameError, reason, require
from mien.label.plan import Unit
from mien.label.work import Work, Worker, write_failed
from mien.provenance import available_cores

MAX_KILLS = 3
"""How many workers a unit may kill."""


Engine = Callable[[Work, Sequence[Unit], int | None], Iterator[None]]
"""Does units with so many workers, or with all cores, and yields when one is done; raises the `MienError` of a worker that
cannot continue, for example because credentials have expired."""


def find_engine(name: str) -> Engine:
    """Return an engine by its name, before any work.

    Raises:
        UnknownNameError: The engine is unknown.
        MissingExtraError: Its package is not installed.
    """
    if name == "local":
        return _run_local
    if name != "ray":
        raise UnknownNameError(f"unknown engine {name!r}; choose local or ray")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no telemetry; Ray reads these when it is imported
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    require("ray.data", "label")
    return _run_ray


# Processes of this machine ----------------------------------------------------------------------------------------------


def _run_local(work: Work, units: Sequence[Unit], workers: int | None) -> Iterator[None]:
    """Do units in processes of this machine, each of which says True when it is free; or in this process, if `workers` is 0."""
    if workers == 0:
        yield from map(Worker(work), units)
        return
    context, size = multiprocessing.get_context("spawn"), workers or available_cores()
    todo, left = deque(units), len(units)
    processes: dict[Any, Any] = {}  # by their pipes, as the next two
    free: set[Any] = set()
    doing: dict[Any, Unit] = {}
    kills, lost_starts = Counter[int](), 0
    pipe: Any
    try:
        while left:
            while len(processes) < min(size, left):
                pipe, end = context.Pipe()
                process = context.Process(target=_serve, args=(work, end), daemon=True)
                process.start()
                end.close()  # so that the pipe ends with the process
                processes[pipe] = process
            while free and todo:
                pipe = free.pop()
                doing[pipe] = todo.popleft()
                with suppress(OSError):  # it was killed while it waited, which the next lines notice
                    pipe.send(doing[pipe])
            for pipe in wait(list(processes)):
                unit = doing.pop(pipe, None)
                try:
                    answer = pipe.recv()
                except (EOFError, OSError):
                    process = processes.pop(pipe)
                    process.join()
                    pipe.close()
                    free.discard(pipe)
                    how = _end_of(process.exitcode)
                    if unit is None:
                        lost_starts += 1
                        if lost_starts == MAX_KILLS:
                            advice = "perhaps memory ran out: try fewer --workers"
                            raise DataError(f"a worker {how} {MAX_KILLS} times while it started; {advice}") from None
                        continue
                    kills[unit.number] += 1
                    if kills[unit.number] < MAX_KILLS:
                        todo.appendleft(unit)
                        continue
                    write_failed(work, unit, f"its worker {how} {MAX_KILLS} times; perhaps memory ran out")
                else:
                    if isinstance(answer, MienError):
                        raise answer
                    free.add(pipe)
                    lost_starts = 0
                if unit is not None:
                    left -= 1
                    yield
    finally:
        for process in processes.values():
            process.kill()
        for process in processes.values():
            process.join()


def _end_of(status: int) -> str:
    """Return how a process ended.

    >>> _end_of(1), _end_of(-9)
    ('ended with status 1', 'was killed (SIGKILL)')
    """
    return f"was killed ({signal.Signals(-status).name})" if status < 0 else f"ended with status {status}"


def _serve(work: Work, pipe: Any) -> None:
    """Do units in a process of its own: send True when the model is loaded and after each unit, or the error that stops it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the job, which then ends this process
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        worker = Worker(work)
        pipe.send(True)
        while True:
            worker(pipe.recv())
            pipe.send(True)
    except MienError as error:
        pipe.send(error)


def _end_with_parent() -> None:
    """End this process as soon as the job ends, even if that was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


# Actors of a Ray cluster ------------------------------------------------------------------------------------------------


def _run_ray(work: Work, units: Sequence[Unit], workers: int | None) -> Iterator[None]:
    """Do units in actors of the cluster of RAY_ADDRESS, or of one on this machine that ends with the job."""
    ray, data = require("ray", "label"), require("ray.data", "label")
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    joined = ray.is_initialized()
    if not joined:
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
            (stop,) = map(pickle.loads, batch["error"])
            if stop is not None:
                raise stop
            yield
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
        self.worker: Worker | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        (unit,) = map(pickle.loads, batch["unit"])
        error: MienError | None = None
        try:
            self._do(unit)
        except MienError as caught:
            error = caught
        return {"error": [pickle.dumps(error)]}

    def _do(self, unit: Unit) -> None:
        import ray

        if self.worker is None:
            enter_folder(self.work.folder)
            self.worker = Worker(self.work)
        if ray.get(self.begins.add.remote(unit.number)) > MAX_KILLS:
            write_failed(self.work, unit, f"its worker was killed {MAX_KILLS} times; perhaps memory ran out")
        else:
            self.worker(unit)


def enter_folder(folder: str) -> None:
    """Make relative paths mean the same as where the job was started."""
    try:
        if folder:
            os.chdir(folder)
    except OSError as error:
        raise DataError(
            f"{folder}: the worker's machine cannot enter it ({reason(error)}); share it, or name sources by absolute paths"
        ) from None
