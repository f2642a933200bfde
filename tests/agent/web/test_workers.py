"""Worker threads: in order, bounded, at their priority, and no hindrance to the end of the process."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from http import HTTPStatus

import psutil
import pytest

from agent.web.budget import Budget
from agent.web.problem import Problem
from agent.web.workers import Worker, Workers


def niceness() -> int:
    return psutil.Process(threading.get_native_id()).nice()


def test_pictures_give_way_and_inference_does_not() -> None:
    async def scenario() -> list[int]:
        workers = Workers()
        found = [await worker.do(niceness) for worker in (workers.pictures, workers.live, workers.inference)]
        workers.close()
        return found

    usual = niceness()
    assert asyncio.run(scenario()) == [usual + 10, usual + 10, usual]


def test_jobs_are_done_in_order_and_their_errors_reach_who_waits() -> None:
    async def scenario() -> None:
        worker = Worker("w", 0)
        done: list[int] = []
        await asyncio.gather(*(worker.do(done.append, number) for number in range(20)))
        assert done == list(range(20))
        with pytest.raises(ZeroDivisionError):
            await worker.do(lambda: 1 / 0)
        assert await worker.do(lambda: "still at work") == "still at work"
        worker.close()

    asyncio.run(scenario())


def test_too_much_that_waits_is_refused_and_what_nobody_waits_for_is_left_out() -> None:
    async def scenario() -> None:
        worker = Worker("w", 0)
        release, begun = threading.Event(), threading.Event()
        done: list[str] = []

        def block() -> None:
            begun.set()
            release.wait(10)

        first = asyncio.create_task(worker.do(block))
        await asyncio.to_thread(begun.wait)
        waiting = [asyncio.create_task(worker.do(done.append, "waited")) for _ in range(64)]
        await asyncio.sleep(0)
        with pytest.raises(Problem) as refused:
            await worker.do(done.append, "too much")
        assert refused.value.status == HTTPStatus.SERVICE_UNAVAILABLE
        for task in waiting[1:]:
            task.cancel()
        release.set()
        await first
        await waiting[0]
        assert await worker.do(lambda: list(done)) == ["waited"]
        worker.close()

    asyncio.run(scenario())


def test_a_job_that_hangs_does_not_keep_the_process_from_ending() -> None:
    code = (
        "import asyncio, threading\n"
        "from agent.web.workers import Worker\n"
        "async def main():\n"
        "    hung = asyncio.ensure_future(Worker('w', 0).do(threading.Event().wait))\n"
        "    await asyncio.sleep(0.1)\n"
        "asyncio.run(main())\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


def test_memory_is_given_in_turn_and_all_of_it_comes_back() -> None:
    async def scenario() -> None:
        budget = Budget(100)
        order: list[str] = []

        async def use(name: str, count: int, until: asyncio.Event) -> None:
            async with budget.reserved(count):
                order.append(name)
                await until.wait()

        ends = {name: asyncio.Event() for name in "abcd"}
        tasks = [
            asyncio.create_task(use(name, count, ends[name]))
            for name, count in {"a": 60, "b": 60, "c": 10, "d": 1000}.items()
        ]
        await asyncio.sleep(0)
        assert order == ["a"], "c would fit, but b came before it"
        ends["a"].set()
        await asyncio.sleep(0.01)
        assert order == ["a", "b", "c"]
        ends["b"].set()
        ends["c"].set()
        await asyncio.sleep(0.01)
        assert order == ["a", "b", "c", "d"], "more than there is at all: it gets all"
        ends["d"].set()
        await asyncio.gather(*tasks)
        budget.take(100)
        with pytest.raises(Problem):
            budget.take(1)

    asyncio.run(scenario())


def test_one_who_goes_while_waiting_leaves_nothing_behind() -> None:
    async def scenario() -> None:
        budget = Budget(100)
        budget.take(90)

        async def use(count: int) -> None:
            async with budget.reserved(count):
                pass

        large, small = asyncio.create_task(use(50)), asyncio.create_task(use(10))
        await asyncio.sleep(0)
        assert not small.done(), "it waits behind the large one"
        large.cancel()
        await small
        waiting = [asyncio.create_task(use(50)) for _ in range(32)]
        await asyncio.sleep(0)
        with pytest.raises(Problem):
            await use(50)
        budget.give_back(90)
        await asyncio.gather(*waiting)
        budget.take(100)

    asyncio.run(scenario())
