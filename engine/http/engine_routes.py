"""Routes about the engine itself: status, doctor."""

from __future__ import annotations

from engine.hindsight import prove
from engine.http import shapes
from engine.http.calls import Call
from engine.http.described import described
from engine.http.forms import Nothing
from engine.http.views import doctor_view
from engine.plugin import Response


@described({200: shapes.Status})
async def get_status(call: Call, query: Nothing) -> Response:
    """Answer with the engine's state, counts, sources and uptime."""
    return Response(body=await call.operations.status())


@described({200: shapes.Doctor})
async def get_doctor(call: Call, query: Nothing) -> Response:
    """Add up the ledger, check the store's integrity, and answer with all checks. Reads the whole store."""
    store = call.operations.store
    operations = call.operations
    ledger, damage = await store.ledger(), await store.check()
    proof = await prove(store, map(operations.subject, operations.trigger_names()), operations.clock.now())
    chain = await operations.audit_log.chain()
    return Response(body=doctor_view(ledger, damage, [proof.check(), chain.check(), *operations.health()["checks"]]))
