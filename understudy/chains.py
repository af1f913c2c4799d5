"""Finding the best partition along a chain of devices, by dynamic programming.

A state is a device and what arrives there: a place and the codec it crossed with. What
the rest costs from there does not depend on what went before, whether costs add up
(latency, bytes, energy) or the slowest stage counts (throughput). So one pass from the
last device to the second finds the best rest of every state: O(C^2 D) for C ways to
cross and D devices. The first crossing is left open: there is one row for each.

Source:
    Held, Karp, "A Dynamic Programming Approach to Sequencing Problems", 1962, for the
    principle; Neurosurgeon (Kang et al., 2017) looks at the case of two devices.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from understudy.candidates import REMOTE, Device, Place, crossings
from understudy.costs import (
    Crossing,
    Exit,
    Link,
    Partition,
    Power,
    air_ms,
    cost,
    score,
)

MISPLACED = 1e12
"""What a node on another device than it is pinned to costs: more than any time."""


@dataclass(frozen=True, slots=True)
class Found:
    """A partition, and the places at which it crosses."""

    partition: Partition
    places: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class _Rest:
    """The best that can follow a state: what it costs, and through which states.

    Attributes:
        cost: What the weights make of it; then its latency, which decides where the
            slowest stage is somewhere else.
    """

    cost: tuple[float, float]
    ways: tuple["_Way", ...] = ()


@dataclass(frozen=True, slots=True)
class _Way:
    """One way to cross a link."""

    place: Place
    crossing: Crossing


# No slots: cached_property needs an instance dictionary.
@dataclass(frozen=True, eq=False)
class Search:
    """A search for partitions.

    Attributes:
        devices: From the one with the input on.
        links: Between them.
        weights: Objective -> weight. Throughput stands alone where there are more than
            two devices: a maximum and sums are not bounded by the same rest.
        pins: Node -> index of the device that must run it.
    """

    places: Sequence[Place]
    devices: Sequence[Device]
    links: Sequence[Link]
    weights: Mapping[str, float]
    codecs: Collection[str]
    power: Power | None = None
    exit: Exit | None = None
    pins: Mapping[int, int] = field(default_factory=dict)

    def rows(self) -> list[Found]:
        """Return the best partition for each place of the first crossing, in order.

        A deployment has one codec for a model, on all its links.
        """
        if len(self.devices) == 2 or len(self.codecs) == 1:
            return [self._best(place) for place in self.places]
        each = [replace(self, codecs=(codec,)).rows() for codec in self.codecs]
        return [min(found, key=self._score) for found in zip(*each, strict=True)]

    def variants(self, found: Found) -> Iterator[Found]:
        """Yield a partition with each codec it may have; of one of a chain, itself."""
        if len(found.places) != 1:
            yield found
            return
        for way in self._ways[0]:
            if way.place is found.places[0]:
                yield self._partition((way,))

    def misplaced(self, index: int, start: Place | None, end: Place | None) -> int:
        """Return how many nodes that are pinned elsewhere device `index` would run."""
        return sum(
            1
            for node, device in self.pins.items()
            if device != index
            and (end is None or node in end.nodes)
            and (start is None or node not in start.nodes)
        )

    def _best(self, place: Place) -> Found:
        if place.kind == "local":
            return Found(self._local(), ())
        ways = [w for w in self._ways[0] if w.place is place]
        found = [self._partition((w, *self._rests[1][w].ways)) for w in ways]
        return min(found, key=self._score)  # the first of equals: the plainest codec

    def _local(self) -> Partition:
        """Return all on the first device, what is behind its exit for some frames."""
        here, early = self.devices[0], self.exit
        whole = here.part(None, None)
        at = [p for p in self.places if early and p.tensors == (early.tensor,)]
        if early is None or not at:
            return Partition((whole,))
        head, tail = here.part(None, at[0]), here.part(at[0], None)
        ms = head.ms + (1 - early.share) * tail.ms
        return Partition((replace(whole, ms=ms),), exit=early)

    def _score(self, found: Found) -> tuple[float, float]:
        bad = sum(
            self.misplaced(index, start, end)
            for index, (start, end) in enumerate(_bounds(found.places))
        )
        paid = cost(found.partition, self.power)
        return score(self.weights, paid) + bad * MISPLACED, paid.total_ms

    def _partition(self, ways: Sequence[_Way]) -> Found:
        places = tuple(way.place for way in ways)
        used = self.devices[: len(ways) + 1]
        parts = tuple(
            device.part(start, end)
            for device, (start, end) in zip(used, _bounds(places), strict=True)
        )
        early = self.exit
        if early is not None and not places[0].makes(early.tensor):
            early = None
        crossed = tuple(way.crossing for way in ways)
        links = tuple(self.links[: len(ways)])
        return Found(Partition(parts, crossed, links, early), places)

    @cached_property
    def _ways(self) -> list[list[_Way]]:
        """The ways to cross each link."""
        return [
            [
                _Way(place, crossing)
                for place in self.places
                if place.kind != "local"
                for crossing in crossings(place, near, far, self.codecs)
            ]
            for near, far in zip(self.devices, self.devices[1:], strict=False)
        ]

    @cached_property
    def _rests(self) -> list[dict[_Way, _Rest]]:
        """For each device, what follows best on each way in which a frame arrives."""
        last = len(self.devices) - 1
        rests: list[dict[_Way, _Rest]] = [{} for _ in self.devices]
        for index in range(last, 0, -1):
            for way in self._ways[index - 1]:
                rests[index][way] = min(
                    self._rests_of(index, way, rests), key=lambda rest: rest.cost
                )
        return rests

    def _rests_of(
        self, index: int, way: _Way, rests: Sequence[Mapping[_Way, _Rest]]
    ) -> Iterator[_Rest]:
        """Yield what can follow: all is computed here, or the next device gets it."""
        yield _Rest(self._device(index, way, None))
        if index + 1 == len(self.devices):
            return
        for onward in self._ways[index]:
            if _follows(way.place, onward.place):
                here = self._device(index, way, onward)
                over = self._link(index, onward)
                rest = rests[index + 1][onward]
                join = max if self._slowest else sum
                costs, times = zip(here, over, rest.cost, strict=True)
                yield _Rest((join(costs), sum(times)), (onward, *rest.ways))

    @property
    def _slowest(self) -> bool:
        return set(self.weights) == {"throughput"}

    @cached_property
    def _per_ms(self) -> float:
        """What a millisecond counts behind the first device, where it waits."""
        idle_w = 0.0 if self.power is None else self.power.idle_w or 0.0
        energy = self.weights.get("endpoint-energy", 0.0)
        return self.weights.get("latency", 0.0) + energy * idle_w

    def _device(
        self, index: int, way: _Way, onward: _Way | None
    ) -> tuple[float, float]:
        end = None if onward is None else onward.place
        device = self.devices[index]
        part = device.part(way.place, end)
        ms = way.crossing.decode_ms + part.ms + part.around_ms
        if onward is not None:
            ms += onward.crossing.encode_ms
        wrong = self.misplaced(index, way.place, end) * MISPLACED
        return wrong + (ms if self._slowest else ms * self._per_ms), ms

    def _link(self, index: int, way: _Way) -> tuple[float, float]:
        link, crossing = self.links[index], way.crossing
        there = air_ms(crossing.wire_bytes, link.there_mbit_s, len(crossing.tensors))
        back = air_ms(crossing.answer_bytes, link.back_mbit_s)
        near, far = self.devices[index : index + 2]
        ms = there + back + link.rtt_ms + 2 * (near.message_ms + far.message_ms)
        if self._slowest:
            return max(there, back), ms
        kilobytes = crossing.wire_bytes / 1e3 * self.weights.get("bytes", 0.0)
        return ms * self._per_ms + kilobytes, ms


def _bounds(
    places: Sequence[Place],
) -> list[tuple[Place | None, Place | None]]:
    """Return where the part of each device begins and ends."""
    return list(zip((None, *places), (*places, None), strict=True))


def _follows(near: Place, far: Place) -> bool:
    """Say whether a device that was handed `near` can hand on `far`.

    As a deployment can: nobody in a chain passes on answers that were made in front of
    it; who gets a frame as it is prepares it.
    """
    if near.carried or far.carried:
        return False
    if far.kind in REMOTE:
        return near.kind == "raw" and far.kind == "input"
    return far is near or near.nodes <= far.nodes
