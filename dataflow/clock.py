"""The clock. Everything that decides gets time as an argument instead."""

import time


def now_s() -> float:
    """Return monotonic seconds, comparable between the processes of one host."""
    return time.monotonic()


def epoch_s() -> float:
    """Return what to add to `now_s` to get seconds since 1970."""
    return time.time() - time.monotonic()
