"""The commands. Each reads its options, asks, prints, and ends with its exit code."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from engine.cli import pausing, queueing, rehearsing, telling
from engine.cli.adaptive import adaptive
from engine.cli.adherence import adherence
from engine.cli.alerting import alert_commands
from engine.cli.audit import audit
from engine.cli.backfill_commands import backfill, backfills
from engine.cli.conditions import conditions
from engine.cli.configuring import export, reload
from engine.cli.failures import FAILED, USAGE, CommandFailed
from engine.cli.foresight import plan, simulate
from engine.cli.health import health
from engine.cli.housekeeping_commands import backup, housekeeping
from engine.cli.importing import import_commands
from engine.cli.joins import say_joins
from engine.cli.loglevel import log_level
from engine.cli.maintaining import maintenance_commands
from engine.cli.maintaining import sentences as sentences_of_windows
from engine.cli.output import local, said_of_usage, say, say_json, say_table, sentence, terminal_safe
from engine.cli.pools import pools
from engine.cli.presets import presets
from engine.cli.previewing import preview
from engine.cli.refusals import refusals
from engine.cli.releasing import release
from engine.cli.retrying import retry
from engine.cli.session import AsJson, ConfigFiles, Session, Token, Url
from engine.cli.tokens import token_commands
from engine.cli.why_command import why
from engine.errors import ConfigError, EngineError
from engine.triggers import GATES


class Commands(TyperGroup):
    """Turns errors into sentences and exit codes."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            say("\n".join(str(problem) for problem in error.problems), error=True)
            raise typer.Exit(USAGE) from None
        except CommandFailed as error:
            say(str(error), error=True)
            raise typer.Exit(error.code) from None
        except EngineError as error:
            say(str(error), error=True)
            raise typer.Exit(FAILED) from None


app = typer.Typer(
    cls=Commands,
    help="Run jobs on events. Without a command, serve.",
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(token_commands, name="token")
app.command()(adaptive)
app.command()(audit)
app.command()(simulate)
app.command()(plan)


@app.callback()
def begin(
    ctx: typer.Context,
    config: ConfigFiles = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Run jobs on events. Without a command, serve."""
    ctx.obj = Session.of(ctx, config, as_json, url, token)
    if ctx.invoked_subcommand is None:
        _serve(ctx.obj)


@app.command()
def serve(ctx: typer.Context, config: ConfigFiles = None) -> None:
    """Run the engine until it is told to stop."""
    _serve(Session.of(ctx, config, False, None, None))


def _serve(session: Session) -> None:
    from engine.cli.welcome import welcome
    from engine.runtime import serve as run

    raise typer.Exit(run(list(session.config), lambda runtime: welcome(runtime, session.config)))


@app.command()
def check(ctx: typer.Context, config: ConfigFiles = None, as_json: AsJson = False) -> None:
    """Say all that is wrong with the configuration."""
    from engine.cli.upcoming import forecast, say_forecast

    session = Session.of(ctx, config, as_json, None, None)
    try:
        loaded = session.load(examine=True)
    except ConfigError as error:
        if not session.json:
            raise
        fields = ("file", "line", "path", "message", "hint")
        errors = [{name: getattr(problem, name) for name in fields} for problem in error.problems]
        say_json({"ok": False, "errors": errors, "notes": [], "next": []})
        raise typer.Exit(USAGE) from None
    found = forecast(loaded)
    if session.json:
        say_json({"ok": True, "errors": [], "notes": found.notes, "next": found.next})
    else:
        files = ", ".join(str(file) for file in loaded.files)
        say(f"{files}: right; triggers: {len(loaded.triggers)}, jobs: {len(loaded.jobs)}")
        say_forecast(found)


@app.command()
def fire(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="The trigger.")],
    data: Annotated[str | None, typer.Option(help="JSON, or @FILE, or @- for standard input.")] = None,
    reason: Annotated[str | None, typer.Option(help="Why; it is recorded.")] = None,
    priority: Annotated[str | None, typer.Option(help="0 to 9, low, normal, high or critical.")] = None,
    bypass: Annotated[
        list[str] | None,
        typer.Option(help=f"A gate to leave out: {', '.join(sorted(GATES))}. Repeatable."),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for its runs; fail where one does.")] = False,
    config: ConfigFiles = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Fire a trigger by hand."""
    from engine.cli.sending import fire_trigger, wait_for_runs

    session = Session.of(ctx, config, as_json, url, token)
    client = session.client()
    accepted = fire_trigger(client, name, data=data, reason=reason, priority=priority, bypass=bypass or [])
    _tell(session, accepted, wait_for_runs(client, accepted["runs"]) if wait else None)


app.command()(pausing.pause)
app.command()(pausing.resume)


@app.command("next")
def show_next(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="The trigger.")],
    count: Annotated[int, typer.Option("-n", "--count", min=1, max=1000, help="How many due instants.")] = 10,
    after: Annotated[str | None, typer.Option(metavar="TIME", help="Later than that, in RFC 3339; else now.")] = None,
    config: ConfigFiles = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Say when a trigger on a timer is due next; by the engine where it runs, else by the configuration."""
    from engine.cli.upcoming import look_ahead, say_upcoming

    session = Session.of(ctx, config, as_json, url, token)
    found = look_ahead(session, name, count=count, after=after)
    if session.json:
        say_json(found.next)
    else:
        say_upcoming(found)


app.command()(backfill)
app.command()(backfills)
app.command()(backup)
app.command()(housekeeping)


@app.command()
def emit(
    ctx: typer.Context,
    kind: Annotated[str, typer.Argument(metavar="TYPE", help="The event's type, such as order.created.")],
    data: Annotated[str | None, typer.Option(help="JSON, or @FILE, or @- for standard input.")] = None,
    subject: Annotated[str | None, typer.Option(help="What it happened to.")] = None,
    key: Annotated[str | None, typer.Option(help="The same key is the same event.")] = None,
    source: Annotated[str | None, typer.Option(help="Who sends it.")] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for its runs; fail where one does, or there is none.")
    ] = False,
    config: ConfigFiles = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Send an event."""
    from engine.cli.sending import emit_event, wait_for_runs

    session = Session.of(ctx, config, as_json, url, token)
    client = session.client()
    accepted = emit_event(client, kind, data=data, subject=subject, key=key, source=source)
    _tell(session, accepted, wait_for_runs(client, accepted["runs"]) if wait else None)


def _tell(session: Session, accepted: dict[str, Any], runs: list[dict[str, Any]] | None) -> None:
    """Tell what was accepted, and how its runs ended, where that was waited for; fail where one did not succeed."""
    if session.json:
        waited = runs is not None
        say_json({**accepted, "states": {run["id"]: run["state"] for run in runs or ()}} if waited else accepted)
    else:
        _say_accepted(accepted)
        for run in runs or ():
            say(f"Run {run['id']} {sentence(run['state'], run['reason'])}")
    if runs is not None and not (runs and all(run["state"] == "succeeded" for run in runs)):
        raise typer.Exit(FAILED)


def _say_accepted(accepted: dict[str, Any]) -> None:
    again = " (it came before)" if accepted["duplicate"] else ""
    runs = f"; runs: {', '.join(accepted['runs'])}" if accepted["runs"] else ""
    say(f"Event {accepted['event']} is accepted{again}{runs}")
    for outcome in accepted.get("outcomes", []):
        met = outcome["trigger"] or "no trigger"
        if not outcome["run"] or outcome["code"] == "overlap":
            say(f"  {met}: {sentence(outcome['outcome'], outcome['reason'])}")


@app.command()
def triggers(
    ctx: typer.Context,
    config: ConfigFiles = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """List the triggers."""
    from engine.cli.why import guards_of, trouble_of

    session = Session.of(ctx, config, as_json, url, token)
    found = session.client().get("triggers", limit=1000)
    if session.json:
        say_json(found)
        return
    columns = ("name", "job", "state", "next", "total", "succeeded", "failed")
    optional = ("succeeded", "total", "job", "failed")
    say_table(
        columns,
        [
            [one["name"], one["job"], one["state"], local(one.get("next_at")), *_counts(one["stats"])]
            for one in found["items"]
        ],
        optional=optional,
    )
    for one in found["items"]:
        if (trouble := trouble_of(one)) is not None:
            say(f"{one['name']}: {trouble}")
    for line in dict.fromkeys(line for one in found["items"] for line in guards_of(one)):
        say(f"{line[:1].upper()}{line[1:]}")
    for one in found["items"]:
        say_joins(one)
    for line in dict.fromkeys(line for one in found["items"] for line in pausing.sentences(one.get("pauses", ()))):
        say(f"{line[:1].upper()}{line[1:]}")
    for line in dict.fromkeys(line for one in found["items"] for line in sentences_of_windows(one["maintenance"])):
        say(f"{line[:1].upper()}{line[1:]}")


def _counts(stats: dict[str, Any]) -> list[Any]:
    return [stats["total"], stats["succeeded"], stats["failed"]]


@app.command()
def runs(
    ctx: typer.Context,
    state: Annotated[str | None, typer.Option(help="A state, or several with commas.")] = None,
    job: Annotated[str | None, typer.Option(help="Of this job.")] = None,
    trigger: Annotated[str | None, typer.Option(help="Of this trigger.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 20,
    config: ConfigFiles = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """List runs, the newest first."""
    session = Session.of(ctx, config, as_json, url, token)
    found = session.client().get("runs", state=state, job=job, trigger=trigger, limit=limit)
    if session.json:
        say_json(found)
        return
    say_table(
        ("run", "trigger", "job", "state", "created", "reason"),
        [
            [one["id"], one["trigger"], one["job"], one["state"], local(one["created_at"]), one["reason"]]
            for one in found["items"]
        ],
        optional=("job", "created"),
    )


@app.command()
def run(
    ctx: typer.Context,
    run_id: Annotated[str, typer.Argument(metavar="ID")],
    config: ConfigFiles = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Show one run."""
    session = Session.of(ctx, config, as_json, url, token)
    found = session.client().get("runs", run_id)
    if session.json:
        say_json(found)
        return
    for name, value in found.items():
        if name.endswith("_at") or name == "scheduled_for":
            value = local(value)
        if isinstance(value, dict):
            value = json.dumps(value, ensure_ascii=False)
        if value is not None and name not in ("trace", "attempts", "events", "deliveries"):
            say(f"{name:14} {value}")
    say(f"{'events':14} {' '.join(found['events'])}")
    for attempt in found["attempts"]:
        if used := said_of_usage(attempt):
            say(f"{'attempt':14} {attempt['number']} used {used}")
    for step in found["trace"]:
        say(f"  {local(step['at'])}  {sentence(step['state'], step['reason'])} [{step['code']}]")
    for line in telling.sentences(found.get("deliveries", ())):
        say(f"  {line}")


app.command()(telling.deliveries)
app.command()(telling.stats)
app.command()(adherence)
app.command()(health)
app.command()(queueing.queue)
app.command()(queueing.flush)
app.command()(queueing.cancel)
app.command()(queueing.hold)
app.command()(release)
app.command()(queueing.priority)
app.command()(retry)


@app.command()
def events(
    ctx: typer.Context,
    source: Annotated[str | None, typer.Option(help="Of this source, as `sources` names it.")] = None,
    kind: Annotated[str | None, typer.Option("--type", metavar="TYPE", help="Of this type.")] = None,
    trigger: Annotated[str | None, typer.Option(help="That met this trigger.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 20,
    config: ConfigFiles = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """List events and what became of them, the newest first; those too that no trigger hears."""
    session = Session.of(ctx, config, as_json, url, token)
    found = session.client().get("events", source=source, type=kind, trigger=trigger, limit=limit)
    if session.json:
        say_json(found)
        return
    say_table(
        ("event", "type", "source", "subject", "received", "outcomes"),
        [
            [
                one["id"], one["type"], one["source"], one["subject"], local(one["received_at"]),
                ", ".join(": ".join(filter(None, (each["trigger"], each["outcome"]))) for each in one["outcomes"]),
            ]
            for one in found["items"]
        ],
    )  # fmt: skip


@app.command()
def logs(
    ctx: typer.Context,
    run_id: Annotated[str, typer.Argument(metavar="RUN")],
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until the run has ended.")] = False,
    tail: Annotated[int | None, typer.Option(min=0, max=100_000, help="The last lines alone.")] = None,
    config: ConfigFiles = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Print what a run wrote: as it is where it is piped, with control characters escaped on a terminal."""
    import codecs

    session = Session.of(ctx, config, as_json, url, token)
    chunks = session.client().stream("runs", run_id, "log", follow=1 if follow else None, tail=tail)
    if session.json:
        say_json({"run": run_id, "log": b"".join(chunks).decode("utf-8", "replace")})
        return
    if not sys.stdout.isatty():
        for chunk in chunks:
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
        return
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for chunk in chunks:
        sys.stdout.write(terminal_safe(decoder.decode(chunk)))
        sys.stdout.flush()


app.command()(why)
app.command("test")(rehearsing.try_event)
app.command()(rehearsing.replay)
app.command()(preview)


@app.command()
def sources(
    ctx: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(help="One source alone, by its id or name, or a trigger on it."),
    ] = None,
    config: ConfigFiles = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """List the sources that triggers are on, and how each is."""
    from engine.cli.asking import find_source

    session = Session.of(ctx, config, as_json, url, token)
    if name is not None:
        one = find_source(session.client(), name)
        if session.json:
            say_json(one)
            return
        for field, value in one.items():
            value = local(value) if field.endswith("_at") or field == "since" else value
            if isinstance(value, dict):
                value = ", ".join(f"{name} {part}" for name, part in value.items())
            if value is not None:
                say(f"{field:16} {' '.join(value) if isinstance(value, list) else value}")
        return
    from engine.cli.why import guards_of

    found = session.client().get("sources", limit=1000)
    if session.json:
        say_json(found)
        return
    columns = (
        "source", "state", "triggers", "events", "duplicates", "rejected", "restarts", "last event", "problem",
    )  # fmt: skip
    say_table(
        columns,
        [
            [
                one["title"], one["state"], ", ".join(one["triggers"]) or None, one["events"], one["duplicates"],
                one["rejected"] + _refused(one), one["restarts"], local(one["last_event_at"]),
                one["problem"] or next(guards_of(one), None) or one["warning"],
            ]
            for one in found["items"]
        ],
        optional=("restarts", "duplicates", "rejected", "last event", "events"),
    )  # fmt: skip


def _refused(source: dict[str, Any]) -> int:
    """Count what a source refused: an event that the door refused came in a request that was refused too."""
    requests = source.get("refused_requests")
    return max(int(source["refused"]), int(requests["count"]) if requests else 0)


@app.command()
def plugins(ctx: typer.Context, config: ConfigFiles = None, as_json: AsJson = False) -> None:
    """List the plugins, those that can't be used too."""
    from engine.cli.offline import find_plugins, plugin_view

    session = Session.of(ctx, config, as_json, None, None)
    found = [plugin_view(entry) for entry in find_plugins(session).plugins()]
    if session.json:
        say_json({"items": found, "next": None})
        return
    say_table(
        ("kind", "name", "from", "about"),
        [[one["kind"], one["name"], one["origin"], one["error"] or one["doc"]] for one in found],
        optional=("from",),
    )


app.command()(presets)
app.command()(conditions)
app.command("log-level")(log_level)
app.command()(pools)
app.command()(reload)
app.command()(export)
app.command()(refusals)
app.add_typer(import_commands, name="import")
app.add_typer(alert_commands, name="alert")
app.add_typer(maintenance_commands, name="maintenance")


@app.command()
def doctor(
    ctx: typer.Context,
    config: ConfigFiles = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Add up what was promised, and check the store; with the engine where it runs, else without."""
    from engine.cli.diagnosis import examine

    session = Session.of(ctx, config, as_json, url, token)
    found = examine(session)
    if session.json:
        say_json(found)
    else:
        ledger = found["ledger"]
        say("  ".join(f"{name} {ledger[name]}" for name in ("accepted", "ended", "waiting", "purged", "missing")))
        for one in found["checks"]:
            say(f"{'ok ' if one['ok'] else 'BAD'}  {one['name']}: {one['detail']}")
    if not found["ok"]:
        raise typer.Exit(FAILED)


@app.command()
def schema(ctx: typer.Context, config: ConfigFiles = None, as_json: AsJson = False) -> None:
    """Print the JSON Schema of the configuration, all plugins included."""
    from engine.cli.offline import find_plugins
    from engine.config import schema as schema_of

    say_json(schema_of(find_plugins(Session.of(ctx, config, as_json, None, None))))
