"""The actors of a device: made, started, and stopped in the end."""

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path

from dataflow.behaviour import Behaviour, Site
from dataflow.engine import Chain
from dataflow.errors import UnderstudyError
from dataflow.graph import Actor
from dataflow.parts import HostedPart, StreamPart, make_chain, several_firings
from dataflow.plan import Plan

DEFAULT_RATE_HZ = 100.0
"""Of a source that does not say; bounds how many frames come within a deadline."""

Library = Callable[[str], type[Behaviour]]
"""Actor type -> what it does."""


class Cast:
    """Makes the actors of one device.

    Args:
        device: Its name.
        library: Gives the actors' behaviours.
        run_folder: Where sinks write; None: nowhere.
    """

    def __init__(
        self,
        device: str,
        *,
        incarnation: int,
        library: Library,
        run_folder: Path | None,
    ) -> None:
        self._device = device
        self._incarnation = incarnation
        self._library = library
        self._run_folder = run_folder
        self._started: list[Behaviour] = []

    def stop(self) -> None:
        """Stop all that were started; one that raises does not keep the others."""
        self.dismiss(list(self._started))

    def dismiss(self, behaviours: Iterable[Behaviour]) -> None:
        """Stop some that are not played any more."""
        with ExitStack() as stopping:
            for behaviour in behaviours:
                self._started.remove(behaviour)
                stopping.callback(behaviour.stop)

    def of_stream(
        self, plan: Plan, part: StreamPart, kept: Mapping[str, Behaviour] | None = None
    ) -> dict[str, Behaviour]:
        """Make the actors of a stream that has its source here.

        Args:
            plan: Where the stream is from.
            part: What of it is played here.
            kept: Actors that play on from an earlier plan.

        Raises:
            UnderstudyError: One that plays on has too little memory for this plan.
        """
        local = {a for branch in part.branches for a in branch.chain.actors}
        names = {part.source, *part.prefix.actors, *part.suffix.actors, *local}
        window = part.region.window
        # A local branch may answer a whole window of frames, and again the next one,
        # while an older frame is waited for.
        slots = {
            name: (2 * window + 2 if name in local else window + 2)
            * part.firings.get(name, 1)
            for name in names
        }
        slots[part.source] += _fired_within_deadline(plan, part)
        actors, stream = plan.graph.actors, part.region.stream
        found = dict(kept or {})
        for name, behaviour in found.items():
            if slots[name] > behaviour.site.slots:
                raise UnderstudyError(
                    f"actor '{name}': would keep {slots[name]} outputs, and was "
                    f"started for {behaviour.site.slots}; a plan that follows has no "
                    "longer deadline and no larger window, or restart the device"
                )
        for name in sorted(names - found.keys()):
            found[name] = self._make(plan, actors[name], stream, slots[name])
        return found

    def chain_of(
        self, plan: Plan, hosted: HostedPart
    ) -> tuple[Chain, Collection[Behaviour]]:
        """Make the actors of a hosted branch; a batch is read before the next."""
        part = hosted.chain
        most = plan.devices[self._device].batching.most
        firings = several_firings(part.graph, part.actors[0])
        behaviours = {
            name: self._make(
                plan,
                part.graph.actors[name],
                hosted.region.stream,
                (most + 1) * firings.get(name, 1),
                most,
            )
            for name in part.actors
        }
        return make_chain(part, behaviours), behaviours.values()

    def _make(
        self, plan: Plan, actor: Actor, stream: str, slots: int, batch: int = 1
    ) -> Behaviour:
        site = Site(
            device=self._device,
            stream=stream,
            incarnation=self._incarnation,
            plan_folder=plan.folder,
            run_folder=self._run_folder,
            slots=slots,
            batch=batch,
            threads=plan.devices[self._device].threads,
            providers=plan.devices[self._device].providers,
        )
        behaviour = self._library(actor.type)(actor.params, site)
        behaviour.start()
        self._started.append(behaviour)
        return behaviour


def _fired_within_deadline(plan: Plan, part: StreamPart) -> int:
    """Frames that a source may fire while its oldest one is not settled.

    It fires at its pace also when the window is full, so its memory goes round faster
    than that of the actors behind the admission.
    """
    rate_hz = plan.graph.actors[part.source].params.get("rate_hz")
    rate = float(rate_hz) if isinstance(rate_hz, int | float) else DEFAULT_RATE_HZ
    return math.ceil(part.region.deadline_ms / 1e3 * rate) + 1
