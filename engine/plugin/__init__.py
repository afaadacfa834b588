"""All that a plugin imports: base classes, settings types, contexts, answers and errors.

A plugin is a class that is a `msgspec.Struct` of its settings; the engine reads them from the configuration,
checks them against the class, and calls the one method that its kind asks for:

- `Source.run(context)` emits events for as long as it runs;
- `Timer.next(after)` and `Timer.previous(before)` tell due instants, purely;
- `Runner.run(context)` executes one attempt of a run and returns its `Outcome`;
- `Condition.check(context)` says whether runs may pass, in a `Verdict`;
- `Channel.deliver(context, message)` tells somebody of the end of a run, and returns a `Receipt`.

`FunctionContext` is for another reader: authors of functions that jobs call.

Plugins are found by entry points of the group `engine.plugins`, and in the folders that `[engine] plugins`
names.
"""

from engine.clock import Clock, SystemClock
from engine.cloudevents import (
    BATCH_TYPE,
    EVENT_TYPE,
    binary_attributes,
    is_binary,
    permitted,
    read_cloud_event,
)
from engine.errors import ExpressionError, InvalidEvent, PluginError, StoreUnavailable
from engine.events import RESERVED_PREFIX, Accepted, Event
from engine.expressions import Expression, Scope, Template, plain, render
from engine.mounts import filesystem_of
from engine.networks import Networks
from engine.payload import encode_json, parse_json, survey
from engine.plugin.channels import Channel, ChannelContext, Message, Mood, Receipt, Reception
from engine.plugin.conditions import Answer, Condition, ConditionContext, LastRun, Verdict
from engine.plugin.functions import FunctionContext, RunCancelled
from engine.plugin.moments import instant_of
from engine.plugin.requests import Explanation, Handler, Headers, Refusal, Request, Response
from engine.plugin.runners import Outcome, PrepareContext, RunContext, Runner
from engine.plugin.settings import (
    BadSetting,
    CalendarName,
    ConditionName,
    Duration,
    ExpressionText,
    JobName,
    Moment,
    Plugin,
    Secret,
    Size,
    TemplateText,
    TimeZone,
    TriggerName,
)
from engine.plugin.sources import LONGEST_WAIT_S, RunEnd, Settled, Source, SourceContext, Whereabouts, waited_view
from engine.plugin.timers import Timer
from engine.runs import OUTCOMES, RunState
from engine.triggers import PRIORITIES
from engine.units import parse_duration

__all__ = [
    "BATCH_TYPE",
    "EVENT_TYPE",
    "LONGEST_WAIT_S",
    "OUTCOMES",
    "PRIORITIES",
    "RESERVED_PREFIX",
    "Accepted",
    "Answer",
    "BadSetting",
    "CalendarName",
    "Channel",
    "ChannelContext",
    "Clock",
    "Condition",
    "ConditionContext",
    "ConditionName",
    "Duration",
    "Event",
    "Explanation",
    "Expression",
    "ExpressionError",
    "ExpressionText",
    "FunctionContext",
    "Handler",
    "Headers",
    "InvalidEvent",
    "JobName",
    "LastRun",
    "Message",
    "Moment",
    "Mood",
    "Networks",
    "Outcome",
    "Plugin",
    "PluginError",
    "PrepareContext",
    "Receipt",
    "Reception",
    "Refusal",
    "Request",
    "Response",
    "RunCancelled",
    "RunContext",
    "RunEnd",
    "RunState",
    "Runner",
    "Scope",
    "Secret",
    "Settled",
    "Size",
    "Source",
    "SourceContext",
    "StoreUnavailable",
    "SystemClock",
    "Template",
    "TemplateText",
    "TimeZone",
    "Timer",
    "TriggerName",
    "Verdict",
    "Whereabouts",
    "binary_attributes",
    "encode_json",
    "filesystem_of",
    "instant_of",
    "is_binary",
    "parse_duration",
    "parse_json",
    "permitted",
    "plain",
    "read_cloud_event",
    "render",
    "survey",
    "waited_view",
]
