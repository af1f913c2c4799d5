"""The clock. Everything that decides gets time as an argument instead."""

import time

now_s = time.monotonic
"""Return monotonic seconds, comparable between the processes of one host. It is read a
dozen times a frame, so it is the clock itself and no function around it."""


def epoch_s() -> float:
    """Return what to add to `now_s` to get seconds since 1970."""
    return time.time() - time.monotonic()
