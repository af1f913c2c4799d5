"""Ask a listening device how it is: one control message there, one back."""

import json
from time import monotonic
from typing import Any

from dataflow.errors import PeerError, UnderstudyError
from dataflow.wire.control import (
    CONTROL_BYTES_MAX,
    StatusReply,
    StatusRequest,
    pack_control,
    unpack_control,
)
from dataflow.wire.happenings import (
    FromPeer,
    HandshakeFailed,
    LaneLost,
    LaneOpened,
    explain,
)
from dataflow.wire.keys import Keys
from dataflow.wire.transport import Transport


def ask_status(
    device: str, address: str, *, keys: Keys | None, timeout_s: float
) -> dict[str, Any]:
    """Return what `device` at `address` says of itself.

    Raises:
        UnderstudyError: Nobody answers, or somebody who is no understudy device.
    """
    transport = Transport(keys, message_bytes_max=CONTROL_BYTES_MAX + 1024)
    end_s = monotonic() + timeout_s
    try:
        transport.dial(device, address)
        while (left_s := end_s - monotonic()) > 0:
            for event in transport.poll(left_s):
                match event:
                    case LaneOpened(_, "control"):
                        request = pack_control(StatusRequest())
                        transport.send(device, "control", [request])
                    case FromPeer(_, _, frames):
                        return _status(device, address, frames[0] if frames else b"")
                    case HandshakeFailed(_, why):
                        us = keys.name if keys is not None else "status"
                        raise UnderstudyError(
                            f"device '{device}' at {address}: refuses the handshake of "
                            f"'{us}': {explain(why, device=us, peer=device)}"
                        )
                    case LaneLost():
                        raise UnderstudyError(
                            f"device '{device}' at {address}: not running (connection "
                            f"refused); start it with `understudy device … {device}`"
                        )
        raise UnderstudyError(
            f"device '{device}' at {address}: silent for {timeout_s:g} s; it hangs, or "
            "something else listens there"
        )
    finally:
        transport.close()


def _status(device: str, address: str, frame: bytes) -> dict[str, Any]:
    try:
        message = unpack_control(frame)
        if not isinstance(message, StatusReply):
            text = f"{message.kind} is no answer to a status request"
            raise PeerError(text, "kind")
        status = json.loads(message.text)
    except (PeerError, ValueError) as error:
        raise UnderstudyError(
            f"device '{device}' at {address}: answered something else ({error}); "
            "install the same understudy on both"
        ) from None
    if not isinstance(status, dict):
        raise UnderstudyError(f"device '{device}' at {address}: answered no status")
    return status
