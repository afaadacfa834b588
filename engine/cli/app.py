"""All commands, in the order in which help lists them."""

from __future__ import annotations

from typing import Annotated

import typer

from engine.cli import checking, firing, pausing, queueing, rehearsing, run_commands, telling, trigger_commands
from engine.cli.adaptive import adaptive
from engine.cli.adherence import adherence
from engine.cli.alerting import alert_commands
from engine.cli.audit import audit
from engine.cli.backfill_commands import backfill, backfills
from engine.cli.bulk import bulk
from engine.cli.completion import completion
from engine.cli.conditions import conditions
from engine.cli.configuring import export, reload
from engine.cli.describing import openapi
from engine.cli.explaining import settings
from engine.cli.foresight import plan, simulate
from engine.cli.health import health
from engine.cli.housekeeping_commands import backup, housekeeping
from engine.cli.importing import import_commands
from engine.cli.loglevel import log_level
from engine.cli.maintaining import maintenance_commands
from engine.cli.options import Profile, sharing
from engine.cli.output import say
from engine.cli.overriding import override
from engine.cli.pools import pools
from engine.cli.presets import presets
from engine.cli.previewing import preview
from engine.cli.program import NAME, version
from engine.cli.refusals import refusals
from engine.cli.releasing import release
from engine.cli.retrying import retry
from engine.cli.session import AsJson, ConfigFiles, Session, Token, Url
from engine.cli.source_commands import sources
from engine.cli.tokens import token_commands
from engine.cli.tree import Commands, Tree
from engine.cli.why_command import why

app = Tree(
    cls=Commands,
    help="Run jobs on events. Without a command, serve.",
    invoke_without_command=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _say_version(asked: bool) -> None:
    if asked:
        say(f"{NAME} {version()}")
        raise typer.Exit


@app.callback()
def begin(
    ctx: typer.Context,
    config: ConfigFiles = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
    profile: Profile = None,
    _: Annotated[bool, typer.Option("--version", is_eager=True, callback=_say_version, help="Print it.")] = False,
) -> None:
    """Run jobs on events. Without a command, serve."""
    ctx.obj = Session.of(ctx, config, as_json, url, token, profile)
    if ctx.invoked_subcommand is None:
        _serve(ctx.obj)


@app.command()
@sharing(("config",), "serve", "serve --config config.toml --config production.toml")
def serve(session: Session) -> None:
    """Run the engine until it is told to stop."""
    _serve(session)


def _serve(session: Session) -> None:
    from engine.cli.first_process import stand_beside

    stand_beside()
    from engine.cli.welcome import welcome
    from engine.runtime import serve as run

    raise typer.Exit(run(list(session.config), lambda runtime: welcome(runtime, session.config)))


app.command()(checking.check)
app.command()(firing.fire)
app.command()(firing.emit)
app.command()(trigger_commands.triggers)
app.command()(run_commands.runs)
app.command()(run_commands.run)
app.command()(run_commands.logs)
app.command()(run_commands.events)
app.command()(why)
app.command()(pausing.pause)
app.command()(pausing.resume)
app.command()(bulk)
app.command("next")(trigger_commands.show_next)
app.command()(simulate)
app.command()(plan)
app.command("test")(rehearsing.try_event)
app.command()(queueing.queue)
app.command()(queueing.flush)
app.command()(queueing.cancel)
app.command()(queueing.hold)
app.command()(release)
app.command()(queueing.priority)
app.command()(retry)
app.command()(rehearsing.replay)
app.command()(backfill)
app.command()(backfills)
app.command()(telling.stats)
app.command()(telling.deliveries)
app.add_typer(alert_commands, name="alert")
app.command()(adherence)
app.command()(sources)
app.command()(preview)
app.command()(refusals)
app.command()(conditions)
app.command()(pools)
app.add_typer(maintenance_commands, name="maintenance")
app.command()(adaptive)
app.command()(override)
app.command()(presets)
app.command()(settings)
app.command()(reload)
app.command()(export)
app.add_typer(import_commands, name="import")
app.add_typer(token_commands, name="token")
app.command()(audit)
app.command()(checking.doctor)
app.command("log-level")(log_level)
app.command()(health)
app.command()(backup)
app.command()(housekeeping)
app.command()(checking.plugins)
app.command()(checking.schema)
app.command()(openapi)
app.command()(completion)
