"""Measuring a link between two processes, or threads, of this machine."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from dataflow.errors import MisuseError, UnderstudyError
from dataflow.wire.gauge import PAYLOAD_BYTES_MAX, answer, gauge
from dataflow.wire.keys import Keys, load_keys, new_keys
from dataflow.wire.transport import Transport
from understudy.cli import main
from understudy.launch import free_ports
from understudy.link_profiling import Identity, address_of, listen, profile_link
from understudy.profile_file import read_link_profile
from understudy.proxy import HOST, Condition, Proxy

LIMIT_S = 30
PLAIN = Identity()
MBIT_S = 16.0


@contextmanager
def _answering(keys: Keys | None = None) -> Iterator[str]:
    """Let a thread answer; yield HOST:PORT."""
    bound: list[str] = []
    told, over = threading.Event(), threading.Event()

    def listening(address: str) -> None:
        bound.append(address)
        told.set()

    thread = threading.Thread(
        target=answer,
        args=(f"tcp://{HOST}:*",),
        kwargs={
            "keys": keys,
            "going": lambda: not over.is_set(),
            "listening": listening,
        },
    )
    thread.start()
    try:
        assert told.wait(LIMIT_S)
        yield bound[0].removeprefix("tcp://")
    finally:
        over.set()
        thread.join()


@contextmanager
def _process(*arguments: str) -> Iterator[str]:
    """Start `understudy profile --listen` and yield HOST:PORT."""
    port = free_ports(1)
    address = f"{HOST}:{port}"
    command = [sys.executable, "-m", "understudy", "profile", "--listen", address]
    process = subprocess.Popen(
        [*command, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert address in process.stdout.readline()
        yield address
    finally:
        process.terminate()
        _, said = process.communicate(timeout=LIMIT_S)
    assert "Traceback" not in said


def _run(*arguments: str):
    return CliRunner().invoke(main, ["profile", *arguments])


def test_slow_link_between_two_processes_is_measured_within_a_tenth(
    tmp_path: Path,
) -> None:
    port = free_ports(1)
    with _process() as address, Proxy() as proxy:
        link = proxy.link(port=port, target=int(address.rpartition(":")[2]))
        link.become(Condition(bytes_per_s=MBIT_S * 1e6 / 8, delay_s=0.005))
        out = tmp_path / "slow.json"
        result = _run("--link", f"{HOST}:{port}", "-o", str(out), "--name", "slow")
    assert result.exit_code == 0, result.output
    found = read_link_profile(out)
    assert found.link == "slow"
    assert found.there_mbit_s == pytest.approx(MBIT_S, rel=0.1)
    assert found.back_mbit_s == pytest.approx(MBIT_S, rel=0.1)
    assert 8 <= found.rtt_ms < 30
    assert f"there    {found.there_mbit_s:.1f} Mbit/s" in result.output


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    for name in ("cam", "edge"):
        new_keys(tmp_path / "keys", name)
    return tmp_path / "keys"


def test_link_with_keys_is_measured(keys: Path) -> None:
    with _process("--keys", str(keys), "--as", "edge") as address:
        found = profile_link(address, Identity(keys, "cam"), peer="edge", name="")
    assert found.there_mbit_s > 100
    assert {point.way for point in found.points} == {"there", "back"}


def test_who_is_not_on_the_list_is_told_so(keys: Path, tmp_path: Path) -> None:
    new_keys(tmp_path / "other", "eve")
    (tmp_path / "other" / "edge.key").write_bytes((keys / "edge.key").read_bytes())
    with (
        _answering(load_keys(keys, "edge")) as address,
        pytest.raises(UnderstudyError, match="refuses the handshake of 'eve'"),
    ):
        profile_link(address, Identity(tmp_path / "other", "eve"), peer="edge", name="")


def test_peer_without_a_public_key_here_is_named(keys: Path) -> None:
    with pytest.raises(UnderstudyError, match="no public key of 'fog'"):
        profile_link("127.0.0.1:1", Identity(keys, "cam"), peer="fog", name="")


def test_nobody_there_is_told(tmp_path: Path) -> None:
    result = _run("--link", f"{HOST}:{free_ports(1)}", "-o", str(tmp_path / "a.json"))
    assert result.exit_code == 1
    assert "nobody listens" in result.output
    assert list(tmp_path.iterdir()) == []


def test_listening_to_the_world_wants_keys() -> None:
    with pytest.raises(UnderstudyError, match="insist with --insecure"):
        listen("*:7100", PLAIN, insecure=False, seconds=1, tell=print)


def test_time_is_bounded(keys: Path) -> None:
    """A device that is silent, as one that is no measuring side."""
    silent = Transport(None, message_bytes_max=1000)
    address = silent.listen(f"tcp://{HOST}:*")
    try:
        with pytest.raises(UnderstudyError, match="no answer in time"):
            gauge("edge", address, keys=None, limit_s=0.5)
    finally:
        silent.close()


@pytest.mark.parametrize(
    "frames",
    [
        [b""],
        [b"XXXX\0\0\0\0"],
        [b"USG1" + (PAYLOAD_BYTES_MAX + 1).to_bytes(4, "little")],
        [b"USG1\0\0\0\0", b"", b""],
    ],
)
def test_what_is_no_request_is_not_answered_and_the_next_one_is(
    frames: list[bytes],
) -> None:
    with _answering() as address:
        rude = Transport(None, message_bytes_max=1000)
        try:
            rude.dial("edge", f"tcp://{address}")
            opened = set()
            while len(opened) < 2:
                opened |= {e.lane for e in rude.poll(1) if hasattr(e, "lane")}
            assert rude.send("edge", "data", frames)
            heard = [e for _ in range(3) for e in rude.poll(0.1)]
            assert not any(hasattr(e, "frames") for e in heard)
        finally:
            rude.close()
        assert gauge("edge", f"tcp://{address}", keys=None, limit_s=LIMIT_S).pings_s


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ((), 2, "give one of MODEL, --link and --listen"),
        (("a.onnx", "--link", "b:1"), 2, "give one of MODEL, --link and --listen"),
        (("--link", "nonsense"), 2, "write HOST:PORT"),
        (("--listen", "127.0.0.1:99999"), 2, "write HOST:PORT"),
        (("--link", "127.0.0.1:1", "--keys", "keys"), 2, "whose keys; add --as NAME"),
    ],
)
def test_wrong_use_is_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    status: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    result = _run(*arguments)
    assert (result.exit_code, said in result.output) == (status, True), result.output


@pytest.mark.parametrize("text", ["", "host", "host:", ":7000", "a b:1", "tcp://:1"])
def test_what_is_no_address_is_misuse(text: str) -> None:
    with pytest.raises(MisuseError):
        address_of(text)
