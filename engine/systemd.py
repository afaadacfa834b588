"""Telling systemd: ready, stopping, and alive (sd_notify(3)). Without systemd all of it does nothing."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from engine.clock import Clock


class Notifier:
    """Sends states to the socket that the variable NOTIFY_SOCKET names, if it is set."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        pid = environment.get("WATCHDOG_PID", str(os.getpid()))
        usec = environment.get("WATCHDOG_USEC", "")
        self.watchdog_s = int(usec) / 1e6 if usec.isdigit() and pid == str(os.getpid()) else None
        """How often systemd wants to hear from us, in seconds; None for not at all."""

    def send(self, state: str) -> None:
        """Send a state such as `READY=1`; a socket that does not take it is nobody's fault."""
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            try:
                sender.connect(self._address)
                sender.send(state.encode())
            except OSError:
                return

    async def watch(self, clock: Clock) -> None:
        """Say that the event loop is alive, twice as often as systemd asks for; return at once if it does not."""
        if self.watchdog_s is None:
            return
        while True:
            self.send("WATCHDOG=1")
            await clock.sleep(self.watchdog_s / 2)
