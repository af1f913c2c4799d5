"""Where processes under test, and those of `demo` and `explore`, listen."""

import os
import socket

import pytest

from understudy.launch import free_ports


def test_ports_are_given_to_one_who_asks_and_may_listen_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where two look for them from the same place on."""
    monkeypatch.setattr(os, "urandom", bytes)
    first, second = free_ports(2), free_ports(2)
    assert second >= first + 2
    for port in range(first, first + 2):
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", port))
            listener.listen()
