"""The turns of password verifications."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from argon2 import PasswordHasher

from flowhooks.web.admin import passwords
from flowhooks.web.admin.passwords import MAX_PARALLEL_VERIFICATIONS, PasswordVerifier, TooManyVerifications
from support.waiting import WAIT_TIMEOUT, until


class Slow:
    """A verifier whose verifications wait; knows the order in which they began."""

    def __init__(self, monkeypatch):
        self.verifier, self.begun, self.go = PasswordVerifier(), [], threading.Semaphore(0)

        def verify(_hasher, _known, password):
            self.begun.append(password)
            assert self.go.acquire(timeout=WAIT_TIMEOUT)
            return True

        monkeypatch.setattr(PasswordHasher, "verify", verify)

    def fill(self, pool, n):
        """Begin verifications one after the other, until n wait for their turn; return their results."""
        results = []
        for number in range(MAX_PARALLEL_VERIFICATIONS + n):
            results.append(pool.submit(self.verifier.verify, str(number), "hash"))
            waiting = max(0, number + 1 - MAX_PARALLEL_VERIFICATIONS)
            until(lambda waiting=waiting: len(self.verifier._waiting) == waiting)
            until(lambda number=number: len(self.begun) == min(number + 1, MAX_PARALLEL_VERIFICATIONS))
        return results


@pytest.fixture
def slow(monkeypatch):
    """Verifications that take as long as the test wants."""
    return Slow(monkeypatch)


def test_verifications_run_in_order_of_arrival(slow, monkeypatch):
    """Two are verified at once; the others wait in the order of their arrival."""
    monkeypatch.setattr(passwords, "MAX_WAIT_SECONDS", WAIT_TIMEOUT)
    with ThreadPoolExecutor(10) as pool:
        results = slow.fill(pool, 6)
        for number in range(8):
            until(lambda number=number: len(slow.begun) == min(number + 2, 8))
            slow.go.release()
        assert all(result.result() for result in results)
    assert sorted(slow.begun[:2]) == ["0", "1"]
    assert slow.begun[2:] == [str(number) for number in range(2, 8)]
    assert slow.verifier._running == 0


def test_a_queued_verification_that_times_out(slow, monkeypatch):
    """It is given up and leaves no trace, and so is a login beyond those that may wait."""
    entered = []

    @contextmanager
    def while_waiting():
        entered.append(True)
        yield

    with ThreadPoolExecutor(10) as pool:
        results = slow.fill(pool, 0)
        monkeypatch.setattr(passwords, "MAX_WAIT_SECONDS", 0.0)
        with pytest.raises(TooManyVerifications):
            slow.verifier.verify("late", "hash", while_waiting=while_waiting)
        assert entered == [True]
        assert not slow.verifier._waiting
        monkeypatch.setattr(passwords, "MAX_WAITING", 0)
        with pytest.raises(TooManyVerifications):
            slow.verifier.verify("one too many", "hash", while_waiting=while_waiting)
        assert entered == [True]
        slow.go.release(2)
        assert all(result.result() for result in results)
    assert slow.verifier._running == 0


@pytest.mark.parametrize("turn_comes", [False, True])
def test_a_failed_wait_frees_its_place(slow, monkeypatch, turn_comes):
    """An error before or after the turn comes, such as of a thread that cannot be started, keeps no place."""
    monkeypatch.setattr(passwords, "MAX_WAIT_SECONDS", WAIT_TIMEOUT)

    @contextmanager
    def while_waiting():
        if turn_comes:
            slow.go.release()
            until(lambda: not slow.verifier._waiting)
        raise RuntimeError("can't start new thread")
        yield

    with ThreadPoolExecutor(10) as pool:
        results = slow.fill(pool, 0)
        with pytest.raises(RuntimeError):
            slow.verifier.verify("failed", "hash", while_waiting=while_waiting)
        assert not slow.verifier._waiting
        slow.go.release(2)
        assert all(result.result() for result in results)
    assert slow.verifier._running == 0
