"""Run a model, its kernels and its cuts, and keep the times."""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Self

from numpy.typing import NDArray

from actors.kernel_times import kernel_times
from actors.sessions import Settings
from dataflow.clock import now_s
from dataflow.errors import UnderstudyError
from graphs.cuts import Cut
from graphs.external import SharedWeights
from graphs.footprint import weight_bytes
from graphs.kernels import marked, owners
from graphs.onnx_model import Model
from graphs.split import Segment, split, whole
from understudy.memory import available_mb, peak_mb, reset_peak, resident_mb
from understudy.profile_file import Memory, SessionFacts
from understudy.timing import (
    PERIOD_S,
    TimedSegment,
    at_a_pace,
    in_turn,
    probe,
    runs_alone,
)

ROUNDS_MIN, ROUNDS_MAX = 12, 40
_BUDGET_S = 6.0
"""What the rounds may take together, beyond the least number of them."""
_KERNEL_RUNS_MIN, _KERNEL_RUNS_MAX = 5, 30
_KERNEL_BUDGET_S = 2.0
_PACED_RUNS_MIN, _PACED_RUNS_MAX = 6, 20
_PACED_BUDGET_S = 1.0
_ARENA = 3
"""A session holds about so many times its weights: as read, packed, and to work."""
_MEMORY_SHARE = 0.25
_WEIGHTS = "weights.bin"
_TAPPED_BYTES = 64_000_000
"""Tensors that are taken out of the model at one time."""

Array = NDArray[Any]
Tell = Callable[[str], None]


@dataclass(slots=True)
class Times:
    """Seconds that the whole, the probe, and head and tail of some cuts took.

    On the wall, or of the processor, where `runs_alone`; `wall_s` is the whole's, too.
    """

    wall_s: list[float] = field(default_factory=list)
    whole_s: list[float] = field(default_factory=list)
    probe_s: list[float] = field(default_factory=list)
    cuts_s: dict[Cut, tuple[list[float], list[float]]] = field(default_factory=dict)

    @property
    def whole_ms(self) -> float:
        return min(self.whole_s) * 1e3


class Measuring:
    """A model that is being measured, while it is entered.

    Args:
        model: What to measure.
        feed: Input -> token.
        session: How it computes.
        folder: For files, and empty.
        tell: Is told now and then what is done.

    Attributes:
        memory: What the session of the whole took.

    Raises:
        UnderstudyError: When it is entered: the model cannot be run, or not so.
    """

    def __init__(
        self,
        model: Model,
        feed: Mapping[str, Array],
        session: SessionFacts,
        folder: Path,
        tell: Tell,
    ) -> None:
        self._model = model
        self._feed = feed
        self._session = session
        self._folder = folder
        self._tell = tell
        self._files = 0
        self._segment = whole(model)
        self._close = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            # One file of weights for all segments: most of what there is to write.
            file = opened.enter_context((self._folder / _WEIGHTS).open("wb"))
            self._flush = file.flush
            self._weights = SharedWeights(file, _WEIGHTS, self._model.folder)
            self._tell("running the model")
            before_mb = resident_mb()
            reset_peak()
            self._whole = self._timed(self._segment, self._feed)
            opened.callback(self._whole.close)
            self._run_once()
            added_mb = max(0.0, resident_mb() - before_mb)
            self.memory = Memory(round(added_mb, 1), round(peak_mb(), 1))
            self._close = opened.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._close.close()

    def _run_once(self) -> None:
        try:
            self._whole.values()
        except UnderstudyError as error:
            raise UnderstudyError(
                f"model {self._model.where}: does not run on the frame to measure with "
                f"({error}); give one that it takes with --input"
                f"{self._model.to_choose_sizes}"
            ) from None

    def _timed(self, segment: Segment, given: Mapping[str, Array]) -> TimedSegment:
        file = self._written(segment.referring(self._weights))
        timed = TimedSegment(segment, file, self._session, given)
        file.unlink()  # it is loaded
        return timed

    def _written(self, data: bytes) -> Path:
        """Return a new file: a session is known by the name of its own."""
        self._files += 1
        file = self._folder / f"{self._files}.onnx"
        file.write_bytes(data)
        self._flush()
        return file

    def shares(self) -> dict[int, float]:
        """Return node of the model -> its share of the time of the whole."""
        self._tell("timing its kernels")
        file = self._written(marked(self._segment, self._weights))
        settings = Settings(self._session.threads, self._session.providers)
        start_s = now_s()
        kernel_times(file, settings, self._feed, 1)
        runs = int(_KERNEL_BUDGET_S * 4 / (now_s() - start_s))
        runs = max(_KERNEL_RUNS_MIN, min(_KERNEL_RUNS_MAX, runs))
        kernels = kernel_times(file, settings, self._feed, runs)
        file.unlink()
        owned = owners(self._model, [(k.name, k.operator) for k in kernels])
        total_us = sum(kernel.us for kernel in kernels) or 1
        shares: dict[int, float] = {}
        for owner, kernel in zip(owned, kernels, strict=True):
            shares[owner] = shares.get(owner, 0.0) + kernel.us / total_us
        return shares

    def times(self, chosen: Sequence[Cut], rounds: int | None) -> Times:
        """Return the times of the whole and of `chosen`.

        As many sessions at a time are open as memory allows: those take turns.

        Args:
            chosen: Cuts.
            rounds: None: as many as a few seconds allow.
        """
        times = Times()
        calls: list[Callable[[], object]] = [probe(), self._whole]
        weights_mb = sum(weight_bytes(self._model).values()) / 1e6
        most = max(1, int(available_mb() * _MEMORY_SHARE / (_ARENA * weights_mb + 1)))
        left, done = iter(chosen), 0
        while (together := [*islice(left, most)]) or not done:
            if together:
                last = done + len(together)
                self._tell(f"cuts {done + 1} to {last} of {len(chosen)}")
            share = len(together) / max(1, len(chosen)) or 1.0
            self._measure(together, rounds, _BUDGET_S * share, calls, times)
            done += len(together) or 1
        return times

    def _measure(
        self,
        together: Sequence[Cut],
        rounds: int | None,
        budget_s: float,
        calls: Sequence[Callable[[], object]],
        times: Times,
    ) -> None:
        opened: list[TimedSegment] = []
        try:
            for cut in together:
                for timed in self._head_and_tail(cut):
                    opened.append(timed)
            found = in_turn(
                [*calls, *opened],
                rounds or ROUNDS_MAX,
                enough=rounds or ROUNDS_MIN,
                budget_s=budget_s,
            )
        finally:
            for timed in opened:
                timed.close()
        alone = runs_alone(self._session)
        probe_s, whole_s, *parts_s = (
            [took.processor_s if alone else took.wall_s for took in each]
            for each in found
        )
        times.wall_s += [took.wall_s for took in found[1]]
        times.probe_s += probe_s
        times.whole_s += whole_s
        for place, cut in enumerate(together):
            times.cuts_s[cut] = (parts_s[2 * place], parts_s[2 * place + 1])

    def _head_and_tail(self, cut: Cut) -> Iterator[TimedSegment]:
        parts = split(self._model, cut.tensors, self._model.outputs)
        values = dict(self._feed)
        for segment in (parts.head, parts.tail):
            timed = self._timed(segment, values)
            yield timed
            values |= timed.values()

    def paced(self) -> float:
        """Return the median of what the whole takes when it runs now and then, s."""
        self._tell("running the model at a pace")
        return _paced_s(self._whole)

    def paced_parts(self, cut: Cut) -> float:
        """Return the same of head and tail of a cut, one after the other, summed."""
        self._tell("running parts of the model at a pace")
        with ExitStack() as opened:
            parts = []
            for timed in self._head_and_tail(cut):
                opened.callback(timed.close)
                parts.append(timed)
            return sum(map(_paced_s, parts))

    def answer(self) -> list[Array]:
        """Return what the model makes of the frame, in the order of its outputs."""
        made = self._whole.values()
        return [made[name] for name in self._model.outputs]

    def tensors(self, names: Sequence[str]) -> Iterator[tuple[str, Array]]:
        """Yield tensors of the model with their values, a few at a time."""
        yield from ((name, self._feed[name]) for name in names if name in self._feed)
        together: list[str] = []
        size = 0
        for name in names:
            if name not in self._feed:
                together.append(name)
                size += self._model.tensor(name).token.nbytes
            if size > _TAPPED_BYTES:
                yield from self._tapped(together)
                together, size = [], 0
        if together:
            yield from self._tapped(together)

    def _tapped(self, names: Sequence[str]) -> Iterator[tuple[str, Array]]:
        timed = self._timed(whole(self._model, names), self._feed)
        try:
            yield from timed.values().items()
        finally:
            timed.close()


def _paced_s(call: Callable[[], object]) -> float:
    (first_s,) = at_a_pace(call, 1)
    left = int(_PACED_BUDGET_S / (first_s + PERIOD_S))
    count = max(_PACED_RUNS_MIN, min(_PACED_RUNS_MAX, left))
    return statistics.median(at_a_pace(call, count))
