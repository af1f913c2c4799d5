"""Send hostile messages for as long as there is time.

    python -m tests.fuzz [--seconds 60] [--messages N] [--seed S] [--target NAME]

Targets take turns, each from a new seed every `ROUND` messages, counted up from S; a
seed and a target repeat a round exactly. A failure prints both and ends with status 1;
so do a message that takes longer than `HANG_S` and memory that grows beyond `GROWTH_MB`
after the first rounds. At the end: how many messages, and the reasons of those without
effect.
"""

import argparse
import faulthandler
import itertools
import os
import sys
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.fuzz.targets import DEEP_EVERY, TARGETS

ROUND = 50_000
HANG_S = 60
"""Longer than a whole round of messages takes."""
GROWTH_MB = 64


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def play(name: str, seed: int, messages: int) -> tuple[int, Counter[str]]:
    """Send `messages` to a fresh target; return how many, and why they had no effect.

    Raises:
        Exception: Whatever the target raised, with its seed and the message's number.
    """
    target = TARGETS[name](seed)
    number = 0
    try:
        for number in range(1, messages + 1):
            target.step()
            if number % DEEP_EVERY == 0:
                target.deep()
        target.deep()
    except BaseException as error:
        error.add_note(f"--target {name} --seed {seed}, message {number}")
        raise
    return number, target.rejected


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--messages", type=float, default=float("inf"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", choices=TARGETS, action="append")
    chosen = parser.parse_args(arguments)
    np.seterr(all="ignore")  # what hostile tensors hold overflows
    end_s = time.monotonic() + chosen.seconds
    sent: Counter[str] = Counter()
    rejected: dict[str, Counter[str]] = {name: Counter() for name in TARGETS}
    first_mb = 0.0
    for seed in itertools.count(chosen.seed):
        if time.monotonic() >= end_s or sent.total() >= chosen.messages:
            break
        for name in chosen.target or TARGETS:
            faulthandler.dump_traceback_later(HANG_S, exit=True, file=sys.__stderr__)
            try:
                count, why = play(name, seed, int(min(ROUND, chosen.messages)))
            except KeyboardInterrupt:
                raise
            except BaseException:
                traceback.print_exc()
                return 1
            finally:
                faulthandler.cancel_dump_traceback_later()
            sent[name] += count
            rejected[name] += why
        if seed == chosen.seed + 1:
            first_mb = resident_mb()
        grown_mb = resident_mb() - first_mb
        if first_mb and grown_mb > GROWTH_MB:
            print(f"memory grew by {grown_mb:.0f} MB until seed {seed}")
            return 1
    print(f"{sent.total():,} messages, seeds {chosen.seed} to {seed - 1}: none failed")
    for name, counts in rejected.items():
        if sent[name]:
            print(f"\n{name}: {sent[name]:,} messages, without effect:")
            for why, count in counts.most_common():
                print(f"  {count:12,}  {why}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
