"""Devices whose plan came as ``plan.json`` alone, with real processes."""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
import zmq

from dataflow.plan import PLAN_FILE, SEGMENTS, Plan, read_plan, write_plan
from dataflow.wire.control import (
    PIECE_BYTES_MAX,
    Control,
    Hello,
    Piece,
    Want,
    pack_control,
    unpack_control,
)
from dataflow.wire.header import CONTROL_LANE
from dataflow.wire.keys import new_keys
from tests.support.run import Played, outcome, played, results
from understudy.launch import free_ports
from understudy.plans import compile_deployment

DIGITS = Path("graphs/digits/two-by-two.yaml")
LIMIT_MS = 10_000
M = TypeVar("M", bound=Control)


@pytest.fixture
def whole(tmp_path: Path) -> Plan:
    """A plan with all its segments: two cameras, one server."""
    return compile_deployment(
        DIGITS, tmp_path / "plan", counts={"edge": 1}, listen_base=free_ports(1)
    )


def bare(plan: Plan, folder: Path) -> Plan:
    """Return the plan as it is on a machine that got its ``plan.json`` only."""
    folder.mkdir()
    shutil.copyfile(plan.folder / PLAN_FILE, folder / PLAN_FILE)
    return read_plan(folder)


def files(plan: Plan) -> set[str]:
    return {path.name for path in (plan.folder / SEGMENTS).iterdir()}


def own(plan: Plan, device: str) -> set[str]:
    return {f"{sha256}.onnx" for sha256 in plan.segments_of(device)}


def damage(plan: Plan, device: str) -> None:
    """Change the last byte of each segment of `device`."""
    for name in own(plan, device):
        path = plan.folder / SEGMENTS / name
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


class Script:
    """A peer that dials a device and says what a test wants it to say."""

    def __init__(self, context: "zmq.Context[Any]", plan: Plan, nonce: bytes) -> None:
        self._plan = plan
        self._socket = context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.ROUTING_ID, nonce * 16 + CONTROL_LANE)
        self._socket.connect(plan.devices["edge.0"].connect or "")

    def greet(self, name: str, session: int = 1) -> None:
        self._socket.send(pack_control(Hello(name, 1, session, ())))

    def wanted(self) -> Want:
        """Return the next question of the device."""
        return self._next(Want)

    def piece(self) -> Piece:
        return self._next(Piece)

    def _next(self, kind: type[M]) -> M:
        while self._socket.poll(LIMIT_MS):
            message = unpack_control(self._socket.recv())
            if isinstance(message, kind):
                return message
        raise AssertionError(f"no {kind.__name__} came")

    def honest(self, want: Want) -> Piece:
        path = self._plan.folder / SEGMENTS / f"{want.sha256}.onnx"
        data = path.read_bytes()
        end = want.offset + PIECE_BYTES_MAX
        return Piece(want.sha256, want.offset, len(data), data[want.offset : end])

    def say(self, message: Control) -> None:
        self._socket.send(pack_control(message))

    def leave(self) -> None:
        self._socket.close()


@pytest.fixture
def script(whole: Plan) -> Iterator[Callable[[], Script]]:
    context: zmq.Context[Any] = zmq.Context()
    made: list[Script] = []

    def make() -> Script:
        made.append(Script(context, whole, bytes([65 + len(made)])))
        return made[-1]

    yield make
    for each in made:
        each.leave()
    context.term()


def _answers(run: Played, device: str) -> None:
    run.wait_event(device, "device.ready")
    run.wait_rows("cam.0", "edge.0", 20)


def test_server_with_a_bare_plan_gets_its_segment_of_an_endpoint(
    tmp_path: Path, whole: Plan
) -> None:
    server = bare(whole, tmp_path / "server")
    (tmp_path / "run").mkdir()
    with (
        played(server, tmp_path / "run", start=["edge.0"], ready=False) as far,
        played(whole, tmp_path, start=["cam.0"]) as run,
    ):
        fetched = far.wait_event("edge.0", "segment.fetched")
        _answers(run, "cam.0")
    found, verdict = outcome(tmp_path)
    assert verdict.kept, verdict.violations
    assert "full" in {r.status for r in results(found, "cam.0")}
    assert files(server) == own(whole, "edge.0"), "its own, and nothing half done"
    (name,) = files(server)
    content = (server.folder / SEGMENTS / name).read_bytes()
    assert f"{hashlib.sha256(content).hexdigest()}.onnx" == name
    assert fetched["bytes"] == len(content)


def test_endpoint_with_a_bare_plan_gets_its_segments_of_a_server_with_keys(
    tmp_path: Path,
) -> None:
    for name in ("cam.0", "cam.1", "edge.0"):
        new_keys(tmp_path / "keys", name)
    made = compile_deployment(
        DIGITS, tmp_path / "made", counts={"edge": 1}, listen_base=free_ports(1)
    )
    plan = replace(made, keys=tmp_path / "keys", folder=tmp_path / "plan")
    write_plan(plan)
    shutil.copytree(made.folder / SEGMENTS, plan.folder / SEGMENTS)
    endpoint = bare(plan, tmp_path / "endpoint")
    (tmp_path / "run").mkdir()
    with (
        played(plan, tmp_path / "run", start=["edge.0"]),
        played(endpoint, tmp_path, start=["cam.0"], ready=False) as run,
    ):
        _answers(run, "cam.0")
    assert outcome(tmp_path)[1].kept
    assert files(endpoint) == own(plan, "cam.0")


def test_damaged_copy_is_not_used_and_another_peer_is_asked(
    tmp_path: Path, whole: Plan
) -> None:
    server = bare(whole, tmp_path / "server")
    worn = replace(whole, folder=tmp_path / "worn")
    shutil.copytree(whole.folder, worn.folder)
    damage(worn, "edge.0")
    (tmp_path / "run").mkdir()
    (tmp_path / "other").mkdir()
    with (
        played(server, tmp_path / "run", start=["edge.0"], ready=False) as far,
        played(worn, tmp_path / "other", start=["cam.1"]),
    ):
        refused = far.wait_event("edge.0", "segment.refused")
        assert not files(server) & own(whole, "edge.0")
        with played(whole, tmp_path, start=["cam.0"]) as run:
            _answers(run, "cam.0")
    assert refused["peer"] == "cam.1"
    assert "gave content of SHA-256" in refused["why"]
    assert files(server) == own(whole, "edge.0")


def test_nobody_with_the_segment_is_said_once_and_waited_for(
    tmp_path: Path, whole: Plan
) -> None:
    server, endpoint = bare(whole, tmp_path / "server"), tmp_path / "endpoint"
    shutil.copytree(whole.folder, endpoint)
    for name in own(whole, "edge.0"):
        (endpoint / SEGMENTS / name).unlink()
    (tmp_path / "run").mkdir()
    lacking = replace(whole, folder=endpoint)
    with (
        played(server, tmp_path / "run", start=["edge.0"], ready=False) as far,
        played(lacking, tmp_path, start=["cam.0"]) as run,
    ):
        refused = far.wait_event("edge.0", "segment.refused")
        run.wait_rows("cam.0", "exit2", 20)
        far.wait_event("edge.0", "segment.missing", peers=["cam.0"])
        log = far.log("edge.0")
    assert outcome(tmp_path)[1].kept
    assert refused["why"] == "does not have it"
    assert "lacks 1 of its plan's segments" in log
    assert log.count("cam.0 cannot give them; start one that has them") == 1


def test_peer_that_dies_in_the_middle_is_gone_on_from(
    tmp_path: Path, whole: Plan, script: Callable[[], Script]
) -> None:
    server = bare(whole, tmp_path / "server")
    first, second = script(), script()
    with played(server, tmp_path, start=["edge.0"], ready=False) as run:
        first.greet("cam.0")
        first.say(first.honest(first.wanted()))
        half = first.wanted()
        first.leave()
        second.greet("cam.0", session=2)
        again = second.wanted()
        assert again == half
        assert again.offset == PIECE_BYTES_MAX
        while again.offset + PIECE_BYTES_MAX < whole.segments[again.sha256]:
            second.say(second.honest(again))
            again = second.wanted()
        second.say(second.honest(again))
        run.wait_event("edge.0", "segment.fetched")
        run.wait_event("edge.0", "device.ready")
    assert files(server) == own(whole, "edge.0")


def test_killed_device_goes_on_where_its_last_life_ended(
    tmp_path: Path, whole: Plan, script: Callable[[], Script]
) -> None:
    server = bare(whole, tmp_path / "server")
    with played(server, tmp_path, start=["edge.0"], ready=False) as run:
        first = script()
        first.greet("cam.0")
        first.say(first.honest(first.wanted()))
        assert first.wanted().offset == PIECE_BYTES_MAX
        run.kill("edge.0")
        run.launcher.start("edge.0")
        second = script()
        second.greet("cam.1")
        assert second.wanted().offset == PIECE_BYTES_MAX


WRONG: dict[str, Callable[[Piece], Piece]] = {
    "says it has": lambda piece: replace(piece, total=piece.total + 1),
    "bytes where": lambda piece: replace(piece, data=piece.data[:-1]),
    "does not have it": lambda piece: replace(piece, total=0, data=b""),
}


@pytest.mark.parametrize("why", WRONG)
def test_wrong_piece_is_refused_before_it_is_kept(
    tmp_path: Path, whole: Plan, script: Callable[[], Script], why: str
) -> None:
    server = bare(whole, tmp_path / "server")
    with played(server, tmp_path, start=["edge.0"], ready=False) as run:
        liar = script()
        liar.greet("cam.0")
        liar.say(WRONG[why](liar.honest(liar.wanted())))
        refused = run.wait_event("edge.0", "segment.refused")
        assert files(server) == set()
        honest = script()
        honest.greet("cam.1")
        assert honest.wanted().offset == 0
    assert why in refused["why"]


def test_only_segments_of_ones_own_plan_are_given(
    whole: Plan, tmp_path: Path, script: Callable[[], Script]
) -> None:
    with played(whole, tmp_path, start=["edge.0"]):
        curious = script()
        curious.greet("cam.0")
        curious.say(Want("ab" * 32, 0))
        (sha256,) = whole.segments_of("edge.0")
        curious.say(Want(sha256, 0))
        answers = [curious.piece(), curious.piece()]
    assert answers[0] == Piece("ab" * 32, 0, 0, b"")
    assert answers[1] == curious.honest(Want(sha256, 0))
