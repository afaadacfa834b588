"""`doctor`: by the engine where one answers, else from the store's file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.cli.failures import CommandFailed, EngineSilent, NoEngine
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
    except NoEngine as error:
        if session.named:
            raise
        why: Exception = error
    except (CommandFailed, EngineError) as error:
        # Without a token no engine can be asked; where it never started there is none yet.
        if session.named or session.token or (session.reach().data / "admin.token").exists():
            raise
        why = error
    from engine.cli.offline import offline_doctor

    config = session.load()
    found = offline_doctor(config)
    read = "" if found["ledger"] is None else f"; the store was read from its file, {config.store.path}"
    if (pid := session.holder()) is None:
        engine = {"name": "engine", "ok": True, "level": "note", "detail": f"it does not run{read}"}
        return {**found, "checks": [*found["checks"], engine]}
    holds = "" if isinstance(why, EngineSilent) else f"process {pid} holds {config.engine.data}, but can't be asked: "
    told = f"{holds}{why}{read}"
    return {**found, "ok": False, "checks": [*found["checks"], {"name": "engine", "ok": False, "detail": told}]}
