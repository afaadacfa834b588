"""The one table of routes. Routing, 404, 405, OPTIONS, HEAD and who may do what all come from it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from engine.http import (
    adaptive_routes,
    adherence_routes,
    alert_routes,
    audit_routes,
    backfill_routes,
    bulk_routes,
    condition_routes,
    config_routes,
    definition_routes,
    delivery_routes,
    engine_routes,
    event_routes,
    foresight_routes,
    guard_routes,
    health_routes,
    housekeeping_routes,
    log_level_routes,
    logs,
    maintenance_routes,
    metrics_routes,
    next_routes,
    pause_routes,
    pool_routes,
    preset_routes,
    preview_routes,
    queue_routes,
    reference_routes,
    rehearsal_routes,
    retry_routes,
    run_routes,
    session_routes,
    source_routes,
    stats_routes,
    stream_routes,
    token_routes,
    trigger_routes,
    why_routes,
)
from engine.http.access import Role
from engine.http.calls import RouteHandler
from engine.http.page import ASSETS, PAGES, handler_of
from engine.http.route import Route as Route

API = "/api/v1"
METRICS, DETAILED = "/metrics", "/health/detailed"


def _route(method: str, pattern: str, handler: RouteHandler, role: Role | None, summary: str) -> Route:
    return Route(method=method, pattern=pattern, handler=handler, role=role, summary=summary)


_VIEWER, _OPERATOR, _ADMIN = Role.VIEWER, Role.OPERATOR, Role.ADMIN

ROUTES: tuple[Route, ...] = (
    _route("GET", "/live", health_routes.get_live, None, "Whether the process answers"),
    _route("GET", "/ready", health_routes.get_ready, None, "Whether it takes events"),
    _route("GET", "/health", health_routes.get_health, None, "The engine's checks"),
    _route("GET", "/livez", health_routes.get_live, None, "As /live"),
    _route("GET", "/readyz", health_routes.get_ready, None, "As /ready"),
    _route("GET", "/healthz", health_routes.get_health, None, "As /health"),
    _route("GET", DETAILED, health_routes.get_detailed, _VIEWER, "How each part is"),
    _route("GET", METRICS, metrics_routes.get_metrics, _VIEWER, "The metrics; for all with `[metrics] public`"),
    _route("GET", "/openapi.json", reference_routes.describing(lambda: ROUTES), None, "This description of the API"),
    _route("GET", "/docs", reference_routes.get_page, None, "A page that shows it, where it can be tried"),
    _route("GET", "/docs/reference.js", reference_routes.get_script, None, "The script of that page"),
    _route("GET", "/docs/reference.css", reference_routes.get_style, None, "The style of that page"),
    _route("POST", "/session", session_routes.post_session, None, "Begin a session with a token, as a browser does"),
    _route("GET", "/session", session_routes.get_session, None, "Whose session it is; 401 without one"),
    _route("DELETE", "/session", session_routes.delete_session, None, "End the session"),
    _route("POST", "/session/end", session_routes.end_session, None, "End the session, from a form"),
    _route("GET", f"{API}/status", engine_routes.get_status, _VIEWER, "State, counts, sources, uptime"),
    _route("GET", f"{API}/health", health_routes.get_vitals, _VIEWER, "As /health/detailed, with 200 in any case"),
    _route("GET", f"{API}/doctor", engine_routes.get_doctor, _VIEWER, "The ledger and all checks"),
    _route("POST", f"{API}/pause", pause_routes.pause, _OPERATOR, "Pause the engine, or all triggers with a tag"),
    _route("POST", f"{API}/resume", pause_routes.resume, _OPERATOR, "End the pause of the engine, or of a tag"),
    _route("GET", f"{API}/triggers", trigger_routes.list_triggers, _VIEWER, "All triggers"),
    _route("POST", f"{API}/triggers/bulk", bulk_routes.post_bulk, _OPERATOR, "Do one thing with many triggers"),
    _route("POST", f"{API}/triggers", definition_routes.post_trigger, _ADMIN, "Define one"),
    _route("GET", f"{API}/triggers/{{name}}", trigger_routes.get_trigger, _VIEWER, "One trigger"),
    _route("PUT", f"{API}/triggers/{{name}}", definition_routes.put_trigger, _ADMIN, "Define it, or another version"),
    _route("PATCH", f"{API}/triggers/{{name}}", definition_routes.patch_trigger, _ADMIN, "Change or override settings"),
    _route("DELETE", f"{API}/triggers/{{name}}", definition_routes.delete_trigger, _ADMIN, "Remove it"),
    _route("GET", f"{API}/triggers/{{name}}/next", next_routes.get_next, _VIEWER, "When it is due next"),
    _route("GET", f"{API}/triggers/{{name}}/health", health_routes.get_trigger_health, _VIEWER, "How it is"),
    _route("GET", f"{API}/triggers/{{name}}/why", why_routes.get_why, _VIEWER, "Why it ran, or did not, in a time"),
    _route("GET", f"{API}/triggers/{{name}}/runs", trigger_routes.list_trigger_runs, _VIEWER, "Its runs"),
    _route("GET", f"{API}/triggers/{{name}}/stats", stats_routes.get_trigger_stats, _VIEWER, "How its runs ended"),
    _route(
        "GET", f"{API}/triggers/{{name}}/adherence", adherence_routes.get_adherence, _VIEWER, "How well it was kept"
    ),
    _route("POST", f"{API}/triggers/{{name}}/fire", trigger_routes.fire_trigger, _OPERATOR, "Fire by hand"),
    _route("POST", f"{API}/triggers/{{name}}/test", rehearsal_routes.try_event, _OPERATOR, "Try an event on it"),
    _route("POST", f"{API}/triggers/{{name}}/pause", pause_routes.pause_trigger, _OPERATOR, "Pause it"),
    _route("POST", f"{API}/triggers/{{name}}/resume", pause_routes.resume_trigger, _OPERATOR, "End its pause"),
    _route(
        "POST",
        f"{API}/triggers/{{name}}/release",
        guard_routes.release_trigger,
        _OPERATOR,
        "Release it from quarantine",
    ),
    _route("POST", f"{API}/triggers/{{name}}/reset", adaptive_routes.reset_trigger, _OPERATOR, "Drop its overrides"),
    _route("GET", f"{API}/triggers/{{name}}/adaptive", adaptive_routes.get_adaptive, _VIEWER, "Its adapted interval"),
    _route(
        "POST", f"{API}/triggers/{{name}}/adaptive", adaptive_routes.post_adaptive, _OPERATOR, "Freeze or reset that"
    ),
    _route("GET", f"{API}/adherence", adherence_routes.list_adherence, _VIEWER, "How well timers were kept"),
    _route("GET", f"{API}/jobs", trigger_routes.list_jobs, _VIEWER, "All jobs"),
    _route("POST", f"{API}/jobs", definition_routes.post_job, _ADMIN, "Define one"),
    _route("GET", f"{API}/jobs/{{name}}", trigger_routes.get_job, _VIEWER, "One job"),
    _route("PUT", f"{API}/jobs/{{name}}", definition_routes.put_job, _ADMIN, "Define it, or another version"),
    _route("PATCH", f"{API}/jobs/{{name}}", definition_routes.patch_job, _ADMIN, "Change or override settings"),
    _route("DELETE", f"{API}/jobs/{{name}}", definition_routes.delete_job, _ADMIN, "Remove it"),
    _route("POST", f"{API}/jobs/{{name}}/reset", definition_routes.reset_job, _OPERATOR, "Drop its overrides"),
    _route("GET", f"{API}/jobs/{{name}}/stats", stats_routes.get_job_stats, _VIEWER, "How its runs ended"),
    _route("POST", f"{API}/backfills", backfill_routes.post_backfill, _OPERATOR, "Run due instants that have passed"),
    _route("GET", f"{API}/backfills", backfill_routes.list_backfills, _VIEWER, "Backfills, the newest first"),
    _route("GET", f"{API}/backfills/{{id}}", backfill_routes.get_backfill, _VIEWER, "One backfill, and its progress"),
    _route("POST", f"{API}/backfills/{{id}}/pause", backfill_routes.pause_backfill, _OPERATOR, "Pause it"),
    _route("POST", f"{API}/backfills/{{id}}/resume", backfill_routes.resume_backfill, _OPERATOR, "Let it go on"),
    _route("POST", f"{API}/backfills/{{id}}/cancel", backfill_routes.cancel_backfill, _OPERATOR, "Cancel it"),
    _route("GET", f"{API}/conditions", condition_routes.list_conditions, _VIEWER, "All conditions, and who waits"),
    _route("GET", f"{API}/conditions/{{name}}", condition_routes.get_condition, _VIEWER, "One condition"),
    _route("PATCH", f"{API}/conditions/{{name}}", condition_routes.patch_condition, _OPERATOR, "Override it, or reset"),
    _route("GET", f"{API}/pools", pool_routes.list_pools, _VIEWER, "Limits that jobs share, and who has them"),
    _route("GET", f"{API}/pools/{{name}}", pool_routes.get_pool, _VIEWER, "One pool"),
    _route("PATCH", f"{API}/pools/{{name}}", pool_routes.patch_pool, _OPERATOR, "Change its limit, or reset it"),
    _route("GET", f"{API}/maintenance", maintenance_routes.list_maintenance, _VIEWER, "Maintenance windows"),
    _route("POST", f"{API}/maintenance", maintenance_routes.post_maintenance, _OPERATOR, "Make one"),
    _route("GET", f"{API}/maintenance/{{name}}", maintenance_routes.get_maintenance, _VIEWER, "One window"),
    _route("DELETE", f"{API}/maintenance/{{name}}", maintenance_routes.delete_maintenance, _OPERATOR, "Remove it"),
    _route(
        "POST",
        f"{API}/maintenance/{{name}}/override",
        maintenance_routes.override_maintenance,
        _OPERATOR,
        "Let runs go in spite of it",
    ),
    _route("DELETE", f"{API}/maintenance/{{name}}/override", maintenance_routes.end_override, _OPERATOR, "End that"),
    _route("GET", f"{API}/housekeeping", housekeeping_routes.get_housekeeping, _VIEWER, "What is kept and was removed"),
    _route("POST", f"{API}/housekeeping", housekeeping_routes.post_housekeeping, _OPERATOR, "Remove what is old now"),
    _route("GET", f"{API}/backups", housekeeping_routes.list_backups, _VIEWER, "Copies of the store"),
    _route("POST", f"{API}/backup", housekeeping_routes.post_backup, _ADMIN, "Copy the store"),
    _route("GET", f"{API}/config", config_routes.get_config, _VIEWER, "Where it comes from, and how reloads went"),
    _route("GET", f"{API}/config/settings", config_routes.list_settings, _ADMIN, "Each setting, and where it is from"),
    _route("GET", f"{API}/config/export", config_routes.get_export, _ADMIN, "All that the API defines, as TOML"),
    _route("POST", f"{API}/config/import", config_routes.post_import, _ADMIN, "Define all of a TOML text, or none"),
    _route("POST", f"{API}/config/reload", config_routes.post_reload, _ADMIN, "Read the configuration anew"),
    _route("GET", f"{API}/presets", preset_routes.list_presets, _VIEWER, "Templates of triggers, in words"),
    _route("GET", f"{API}/sources", source_routes.list_sources, _VIEWER, "All sources that triggers are on"),
    _route("GET", f"{API}/sources/{{name*}}", source_routes.get_source, _VIEWER, "One source"),
    _route(
        "GET", f"{API}/sources/{{name*}}/refusals", source_routes.list_refusals, _VIEWER, "Requests that it refused"
    ),
    _route("POST", f"{API}/sources/{{name*}}/release", guard_routes.release_source, _OPERATOR, "End its quarantine"),
    _route("POST", f"{API}/sources/{{name*}}/preview", preview_routes.preview_source, _OPERATOR, "What it would emit"),
    _route("POST", f"{API}/simulate", foresight_routes.post_simulate, _OPERATOR, "What would run, wait or be skipped"),
    _route("POST", f"{API}/plan", foresight_routes.post_plan, _OPERATOR, "What another configuration would change"),
    _route("POST", f"{API}/events", event_routes.post_events, _OPERATOR, "Send one event or a batch"),
    _route("GET", f"{API}/events", event_routes.list_events, _VIEWER, "Events, the newest first"),
    _route("GET", f"{API}/events/{{id}}", event_routes.get_event, _VIEWER, "One event and its outcomes"),
    _route("POST", f"{API}/events/{{id}}/replay", rehearsal_routes.replay_event, _OPERATOR, "Run it again"),
    _route("POST", f"{API}/replay", rehearsal_routes.replay_events, _OPERATOR, "Run the events of a span again"),
    _route("GET", f"{API}/stream", stream_routes.get_stream, _VIEWER, "What happens, as it happens"),
    _route("GET", f"{API}/queue", queue_routes.get_queue, _VIEWER, "What is ready and waits, in its order"),
    _route("POST", f"{API}/queue/flush", queue_routes.flush_queue, _OPERATOR, "Cancel what waits, as far as meant"),
    _route("GET", f"{API}/runs", run_routes.list_runs, _VIEWER, "Runs, the newest first"),
    _route("POST", f"{API}/runs/retry", retry_routes.retry_runs, _OPERATOR, "Run failed runs once more"),
    _route("GET", f"{API}/runs/{{id}}", run_routes.get_run, _VIEWER, "One run, its trace and attempts"),
    _route("PATCH", f"{API}/runs/{{id}}", queue_routes.patch_run, _OPERATOR, "Give it another priority"),
    _route("POST", f"{API}/runs/{{id}}/cancel", queue_routes.cancel_run, _OPERATOR, "Cancel it"),
    _route("POST", f"{API}/runs/{{id}}/hold", queue_routes.hold_run, _OPERATOR, "Hold it, while it waits"),
    _route("POST", f"{API}/runs/{{id}}/release", queue_routes.release_run, _OPERATOR, "Release it"),
    _route(
        "POST", f"{API}/runs/{{id}}/retry", queue_routes.retry_run, _OPERATOR, "Run it once more, when it has ended"
    ),
    _route("GET", f"{API}/alerts", alert_routes.list_alerts, _VIEWER, "All alerts, those that are open first"),
    _route("GET", f"{API}/alerts/{{name}}", alert_routes.get_alert, _VIEWER, "One alert, and who was told of it"),
    _route("POST", f"{API}/alerts/{{name}}/mute", alert_routes.mute_alert, _OPERATOR, "Tell nobody of it for a time"),
    _route("POST", f"{API}/alerts/{{name}}/unmute", alert_routes.unmute_alert, _OPERATOR, "End that"),
    _route(
        "POST", f"{API}/alerts/{{name}}/acknowledge", alert_routes.acknowledge_alert, _OPERATOR, "Take on what is open"
    ),
    _route("POST", f"{API}/alerts/{{name}}/test", alert_routes.test_alert, _OPERATOR, "Try whether people are reached"),
    _route("GET", f"{API}/logs/levels", log_level_routes.get_levels, _VIEWER, "How much the engine's log tells"),
    _route("PATCH", f"{API}/logs/levels", log_level_routes.patch_levels, _ADMIN, "Change that, maybe for a time"),
    _route("GET", f"{API}/deliveries", delivery_routes.list_deliveries, _VIEWER, "Who was told of ends of runs"),
    _route("GET", f"{API}/deliveries/{{id}}", delivery_routes.get_delivery, _VIEWER, "One of them, and what it tells"),
    _route("GET", f"{API}/tokens", token_routes.list_tokens, _ADMIN, "All tokens; no secret is shown"),
    _route("POST", f"{API}/tokens", token_routes.post_token, _ADMIN, "Make one; its secret is told this once"),
    _route("GET", f"{API}/tokens/{{name}}", token_routes.get_token, _ADMIN, "One token"),
    _route("POST", f"{API}/tokens/{{name}}/rotate", token_routes.rotate_token, _ADMIN, "Give it another secret"),
    _route("DELETE", f"{API}/tokens/{{name}}", token_routes.delete_token, _ADMIN, "Revoke it"),
    _route("GET", f"{API}/audit", audit_routes.list_audit, _ADMIN, "Who had what changed, or was refused"),
    _route("GET", f"{API}/audit/export", audit_routes.export_audit, _ADMIN, "The same as JSON lines"),
    _route("GET", f"{API}/audit/chain", audit_routes.get_chain, _ADMIN, "Whether anything in it was changed since"),
    _route("GET", f"{API}/runs/{{id}}/log", logs.get_log, _VIEWER, "Its log"),
)

PAGE_ROUTES: tuple[Route, ...] = (
    _route("GET", "/assets/{name*}", ASSETS.get, None, "Style, scripts and images of the page"),
    *(_route("GET", page.path, handler_of(page), page.role, page.title) for page in PAGES),
)
"""What people look at, besides the API."""

Methods = Mapping[str, Route]


class Router:
    """Finds the routes of a path: a fixed path first, then patterns with as many segments, then open ones,
    those with more after the name first."""

    def __init__(self, routes: Iterable[Route] = ROUTES + PAGE_ROUTES) -> None:
        self._fixed: dict[str, dict[str, Route]] = {}
        self._patterns: dict[int, dict[tuple[str, ...], dict[str, Route]]] = {}
        self._open: dict[str, dict[str, Route]] = {}
        for route in routes:
            if "*}" in route.pattern:
                methods = self._open.setdefault(route.pattern, {})
            elif "{" in route.pattern:
                segments = tuple(route.pattern.split("/"))
                methods = self._patterns.setdefault(len(segments), {}).setdefault(segments, {})
            else:
                methods = self._fixed.setdefault(route.pattern, {})
            if route.method in methods:
                raise ValueError(f"{route.method} {route.pattern} is in the table twice")
            methods[route.method] = route

    def find(self, path: str, method: str = "") -> tuple[Methods, dict[str, str]] | None:
        """Return the path's routes by method, and what stands for the pattern's names; or None.

        Where several open patterns are it, the one that has the method: what is left of a path may look like more.
        """
        fixed = self._fixed.get(path)
        if fixed is not None:
            return fixed, {}
        segments = path.split("/")
        for pattern, methods in self._patterns.get(len(segments), {}).items():
            parameters: dict[str, str] = {}
            for expected, found in zip(pattern, segments, strict=True):
                if expected.startswith("{") and found:
                    parameters[expected[1:-1]] = found
                elif expected != found:
                    break
            else:
                return methods, parameters
        matching = list(self._open_ones(path))
        return next((one for one in matching if method in one[0]), matching[0] if matching else None)

    def _open_ones(self, path: str) -> Iterator[tuple[Methods, dict[str, str]]]:
        for pattern in sorted(self._open, key=len, reverse=True):
            before, _, rest = pattern.partition("{")
            name, _, after = rest.partition("*}")
            if path.startswith(before) and path.endswith(after) and len(path) > len(before) + len(after):
                yield self._open[pattern], {name: path[len(before) : len(path) - len(after)]}


def is_guarded(methods: Methods) -> bool:
    """Tell whether it takes a role to ask for something at a path."""
    return any(route.role is not None for route in methods.values())


def allowed(methods: Iterable[str]) -> str:
    """Return the value of an Allow header: the methods, HEAD wherever there is GET, and OPTIONS."""
    names = set(methods) | {"OPTIONS"}
    if "GET" in names:
        names.add("HEAD")
    return ", ".join(sorted(names))
