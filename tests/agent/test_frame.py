"""The mailbox keeps the newest frame of each camera and loses count of none."""

from __future__ import annotations

import threading
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.frame import Frame, Mailbox

IMAGE = np.zeros((2, 2, 3), np.uint8)
NOW = 0.0  # take(NOW) does not wait
LONG = 10.0  # a limit that only a broken mailbox reaches


def frame(camera_id: str = "a", frame_id: int = 1) -> Frame:
    return Frame(camera_id, frame_id, IMAGE, float(frame_id), frame_id, float(frame_id))


def test_the_newest_frame_wins_and_the_replaced_one_is_counted() -> None:
    mailbox = Mailbox(["a", "b"])
    mailbox.put(frame(frame_id=1))
    mailbox.put(frame(frame_id=2))
    taken = mailbox.take(NOW)
    assert taken is not None
    assert taken.id == 2
    assert mailbox.dropped == {"a": 1, "b": 0}
    assert mailbox.take(NOW) is None


def test_a_fast_camera_cannot_starve_a_slow_one() -> None:
    mailbox = Mailbox(["fast", "slow"])
    taken = []
    for number in range(1, 7):
        mailbox.put(frame("fast", 2 * number))
        mailbox.put(frame("slow", number))
        mailbox.put(frame("fast", 2 * number + 1))
        taken.append(mailbox.take(NOW))
    assert Counter(one.camera_id for one in taken if one is not None) == {"fast": 3, "slow": 3}


def test_a_replaced_frame_keeps_its_cameras_turn() -> None:
    mailbox = Mailbox(["a", "b"])
    for one in (frame("a", 1), frame("b", 1), frame("a", 2)):
        mailbox.put(one)
    first = mailbox.take(NOW)
    assert first is not None
    assert (first.camera_id, first.id) == ("a", 2)


def test_take_waits_for_a_frame_that_comes_later() -> None:
    mailbox = Mailbox(["a"])
    later = threading.Timer(0.01, mailbox.put, [frame()])
    later.start()
    assert mailbox.take(LONG) is not None
    later.join()


@pytest.mark.parametrize("ending", ["finish", "close"])
def test_a_waiting_taker_wakes_when_nothing_will_come(ending: str) -> None:
    mailbox = Mailbox(["a"])
    later = threading.Timer(0.01, mailbox.close if ending == "close" else lambda: mailbox.finish("a"))
    later.start()
    assert mailbox.take(LONG) is None
    later.join()


def test_lockstep_drops_nothing_and_keeps_the_order() -> None:
    mailbox = Mailbox(["a"])

    def produce() -> None:
        for number in range(1, 101):
            assert mailbox.put_wait(frame(frame_id=number))
        mailbox.finish("a")

    producer = threading.Thread(target=produce)
    producer.start()
    taken = []
    while (one := mailbox.take(LONG)) is not None:
        taken.append(one.id)
    producer.join(LONG)
    assert taken == list(range(1, 101))
    assert mailbox.dropped == {"a": 0}
    assert mailbox.exhausted


@pytest.mark.parametrize("ending", ["finish", "close"])
def test_a_producer_in_lockstep_wakes_when_its_camera_stops(ending: str) -> None:
    mailbox = Mailbox(["a"])
    mailbox.put(frame(frame_id=1))
    accepted: list[bool] = []
    producer = threading.Thread(target=lambda: accepted.append(mailbox.put_wait(frame(frame_id=2))))
    producer.start()
    if ending == "close":
        mailbox.close()
    else:
        mailbox.finish("a")
    producer.join(LONG)
    assert accepted == [False]
    assert mailbox.dropped == {"a": 1}


def test_a_frame_that_waits_can_be_taken_after_its_camera_has_finished() -> None:
    mailbox = Mailbox(["a"])
    mailbox.put(frame(frame_id=7))
    mailbox.finish("a")
    assert not mailbox.exhausted
    taken = mailbox.take(NOW)
    assert taken is not None
    assert taken.id == 7
    assert mailbox.exhausted


def test_a_frame_put_after_the_end_is_a_counted_drop() -> None:
    mailbox = Mailbox(["a", "b"])
    mailbox.finish("a")
    mailbox.put(frame("a"))
    mailbox.close()
    mailbox.put(frame("b"))
    assert mailbox.dropped == {"a": 1, "b": 1}
    assert mailbox.take(NOW) is None


def test_a_camera_that_was_not_announced_is_a_bug() -> None:
    with pytest.raises(KeyError):
        Mailbox(["a"]).put(frame("z"))


@given(st.lists(st.tuples(st.sampled_from(["put", "take", "finish"]), st.sampled_from("abc")), max_size=60))
def test_every_frame_is_taken_dropped_or_waiting(steps: list[tuple[str, str]]) -> None:
    mailbox = Mailbox("abc")
    put: Counter[str] = Counter()
    taken: Counter[str] = Counter()
    newest: dict[str, int] = {}
    finished: set[str] = set()
    for action, camera_id in steps:
        if action == "put":
            put[camera_id] += 1
            mailbox.put(frame(camera_id, put[camera_id]))
            if camera_id not in finished:
                newest[camera_id] = put[camera_id]
        elif action == "finish":
            mailbox.finish(camera_id)
            finished.add(camera_id)
        elif (one := mailbox.take(NOW)) is not None:
            taken[one.camera_id] += 1
            assert one.id == newest.pop(one.camera_id), "only the newest frame may come out"
        waiting = Counter(newest.keys())
        for name in "abc":
            assert put[name] == taken[name] + mailbox.dropped[name] + waiting[name]
        assert mailbox.exhausted == (finished == set("abc") and not newest)
