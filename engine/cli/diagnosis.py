"""`doctor`: by the engine where one answers, else from the store's file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.cli.failures import CommandFailed, NoEngine
from engine.errors import ConfigError, EngineError

if TYPE_CHECKING:
    from engine.cli.session import Session


def examine(session: Session) -> dict[str, Any]:
    """Return what `doctor` finds."""
    try:
        found: dict[str, Any] = session.client().get("doctor")
        return found
    except ConfigError:
        raise
    except NoEngine:
        if session.named:
            raise
    except (CommandFailed, EngineError):
        # Without a token no engine can be asked; where it never started there is none yet.
        if session.named or session.token or (session.reach().data / "admin.token").exists():
            raise
    from engine.cli.offline import offline_doctor

    config = session.load()
    found = offline_doctor(config)
    read = "" if found["ledger"] is None else f"; the store was read from its file, {config.store.path}"
    note = {"name": "engine", "ok": True, "level": "note", "detail": f"it does not run{read}"}
    return {**found, "checks": [*found["checks"], note]}
