"""Places at the turnstile: no more than there are, in the order of asking, and none kept by who stands in the way."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from pacs.net.turnstile import Turnstile

LONG_S = 3600.0


def test_no_more_are_inside_than_there_are_places() -> None:
    turnstile, lock = Turnstile(3, lease_s=LONG_S), threading.Lock()
    inside, most, done = 0, 0, 0

    def pass_through(_number: int) -> None:
        nonlocal inside, most, done
        for _turn in range(200):
            who = turnstile.enter()
            with lock:
                inside += 1
                most = max(most, inside)
            with lock:
                inside, done = inside - 1, done + 1
            turnstile.leave(who)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(pass_through, range(16)))
    assert (done, inside) == (3200, 0)
    assert 1 <= most <= 3
    assert [turnstile.enter() for _place in range(3)], "all places are free again"


def test_who_waits_is_let_in_when_a_place_is_left() -> None:
    turnstile = Turnstile(1, lease_s=LONG_S)
    first = turnstile.enter()
    let_in = threading.Event()
    waiting = threading.Thread(target=lambda: (turnstile.enter(), let_in.set()))
    waiting.start()
    assert not let_in.wait(0.2)
    turnstile.leave(first)
    assert let_in.wait(10)
    waiting.join()


def test_who_stands_in_the_way_keeps_no_place() -> None:
    turnstile = Turnstile(2, lease_s=0.01)
    stalled = [turnstile.enter(), turnstile.enter()]
    others = [turnstile.enter(), turnstile.enter()]  # returns at all
    for who in stalled:
        turnstile.leave(who)  # was written off: frees nothing
    let_in = threading.Event()
    turnstile.lease_s = LONG_S
    threading.Thread(target=lambda: (turnstile.enter(), let_in.set()), daemon=True).start()
    assert not let_in.wait(0.2), "both places belong to the others"
    turnstile.leave(others[0])
    assert let_in.wait(10)
