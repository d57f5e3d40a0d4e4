"""Tests of the guard that lets no test fetch anything."""

import socket

import pytest


def test_a_test_that_asks_for_another_machine_fails() -> None:
    with pytest.raises(AssertionError, match=r"a look-up of example\.com"):
        socket.create_connection(("example.com", 80))
    with socket.socket() as sender, pytest.raises(AssertionError, match=r"a connection to \('192.0.2.1', 9\)"):
        sender.connect(("192.0.2.1", 9))


def test_tests_may_ask_their_own_machine() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()
