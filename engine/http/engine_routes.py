"""Routes about the engine itself: probes, status, doctor."""

from __future__ import annotations

from engine.hindsight import prove
from engine.http.calls import Call
from engine.http.fields import query
from engine.http.views import doctor_view
from engine.plugin import Response


async def get_live(call: Call) -> Response:
    """Answer as long as the event loop turns."""
    return Response(body={"status": "ok"})


async def get_ready(call: Call) -> Response:
    """Answer 200 when the engine takes events, else 503 with what is not ready."""
    ready, waiting_for = call.operations.ready()
    body = {"ready": ready, "waiting_for": waiting_for}
    return Response(body=body) if ready else Response(status=503, body=body, headers={"Retry-After": "1"})


async def get_health(call: Call) -> Response:
    """Answer with the engine's checks; 503 where it is failing, 200 also where it is degraded."""
    health = call.operations.health()
    return Response(status=503 if health["status"] == "failing" else 200, body=health)


async def get_status(call: Call) -> Response:
    """Answer with the engine's state, counts, sources and uptime."""
    query(call.request).finish()
    return Response(body=await call.operations.status())


async def get_doctor(call: Call) -> Response:
    """Add up the ledger, check the store's integrity, and answer with all checks. Reads the whole store."""
    query(call.request).finish()
    store = call.operations.store
    operations = call.operations
    ledger, damage = await store.ledger(), await store.check()
    proof = await prove(store, map(operations.subject, operations.trigger_names()), operations.clock.now())
    chain = await operations.audit_log.chain()
    return Response(body=doctor_view(ledger, damage, [proof.check(), chain.check(), *operations.health()["checks"]]))
