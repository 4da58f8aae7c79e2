"""A call that may hang, with a deadline."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, wait
from threading import Thread
from typing import TypeVar

_T = TypeVar("_T")


def within(seconds: float, call: Callable[[], _T]) -> _T:
    """Return what a call returns; one that takes longer is left to its thread, which keeps no process from exiting.

    Raises:
        TimeoutError: If there is no answer in time.
    """
    outcome: Future[_T] = Future()

    def work() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:  # wandb has its ways to call sys.exit
            outcome.set_exception(error)

    Thread(target=work, daemon=True).start()
    if not wait([outcome], seconds).done:
        raise TimeoutError(f"no answer in {seconds:g} s")
    return outcome.result()
