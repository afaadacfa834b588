"""Notifications by mail, chat and whatever else has a URL of Apprise (https://github.com/caronc/apprise)."""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from typing import Annotated, Any, ClassVar

import anyio
from anyio.lowlevel import RunVar
from anyio.to_thread import run_sync
from msgspec import Meta

from engine.plugin import BadSetting, Channel, ChannelContext, Duration, Message, Mood, Receipt, Secret
from plugins.outgoing.masking import Masker, parts_of_url

MOST_THREADS = 8
"""So many notifications are sent at once. A thread that a library never gives back is one less, until the end."""

LONGEST_SAID = 300

_LOGGER = "apprise"
_KINDS = {Mood.INFO: "info", Mood.SUCCESS: "success", Mood.WARNING: "warning", Mood.FAILURE: "failure"}
_threads: RunVar[anyio.CapacityLimiter] = RunVar("_threads")
_loading = threading.Lock()


class Apprise(Channel, frozen=True, kw_only=True):
    """Notify by a URL of Apprise: mail, Slack, Matrix, Telegram, a webhook and a hundred others.

    - `url`: such as `mailtos://user:password@example.com` or `slack://…`; it is a secret. Several stand in one text,
      with blanks between them: then all have to take it.
    - `timeout`: bound of one try; the services have shorter ones of their own.
    """

    name: ClassVar[str] = "apprise"
    main: ClassVar[str | None] = "url"
    pauses_s: ClassVar[tuple[float, ...]] = (10.0, 60.0, 300.0, 1800.0, 7200.0)

    url: Secret
    timeout: Annotated[Duration, Meta(gt=0)] = 60.0

    def __post_init__(self) -> None:
        urls = self.url.reveal().split()
        if not urls or any(not _is_known(url) for url in urls):
            hint = 'such as "mailtos://user:password@example.com"; "json://example.com/path" posts JSON'
            raise BadSetting("url", "is no URL of Apprise", hint)

    async def deliver(self, context: ChannelContext, message: Message) -> Receipt:
        urls = self.url.reveal().split()
        masker = Masker([self.url.reveal(), *urls, *(part for url in urls for part in _parts(url))])
        finished: list[tuple[bool, str]] = []

        async def send() -> None:
            # A thread that hangs is left to itself: nothing of ours waits for it any more.
            finished.append(await run_sync(_notify, urls, message, abandon_on_cancel=True, limiter=_limiter()))
            group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            group.start_soon(send)
            await context.clock.sleep(self.timeout)
            group.cancel_scope.cancel()
        if not finished:
            return Receipt.not_now(f"no answer within {self.timeout:g}s")
        done, said = finished[0]
        scheme = " and ".join(dict.fromkeys(url.partition(":")[0] for url in urls))
        if done:
            return Receipt.taken(f"sent by {scheme}")
        return Receipt.not_now(f"{scheme} did not take it: {masker.text(said)[:LONGEST_SAID] or 'it does not say why'}")


def _limiter() -> anyio.CapacityLimiter:
    """Return what bounds the threads of this event loop."""
    limiter = _threads.get(None)
    if limiter is None:
        limiter = anyio.CapacityLimiter(MOST_THREADS)
        _threads.set(limiter)
    return limiter


def _is_known(url: str) -> bool:
    return _library().Apprise.instantiate(url, suppress_exceptions=True) is not None


def _library() -> Any:
    """Return Apprise, which is loaded when it is first needed: it is large. It logs URLs: nobody hears that."""
    with _loading:
        logger = logging.getLogger(_LOGGER)
        if not logger.handlers:
            logger.propagate = False
            logger.addHandler(logging.NullHandler())
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of its own imports; nobody here can do anything about them
                import apprise

                apprise.Apprise.instantiate("json://localhost", suppress_exceptions=True)
        return sys.modules["apprise"]


def _notify(urls: list[str], message: Message) -> tuple[bool, str]:
    """Send a message in this thread; return whether all took it, and what was said of it, secrets included."""
    library = _library()
    heard = _Heard(threading.get_ident())
    logger = logging.getLogger(_LOGGER)
    logger.addHandler(heard)
    try:
        # Service by service, in this thread: the library's own way hands them to threads that nobody can tell apart.
        services = [library.Apprise.instantiate(url, suppress_exceptions=True) for url in urls]
        done = all(
            service.notify(title=message.title, body=message.text, notify_type=_KINDS[message.mood])
            for service in services
        )
    except Exception as error:  # a hundred libraries of others
        return False, f"{type(error).__name__}: {error}"
    finally:
        logger.removeHandler(heard)
    return done, "; ".join(heard.lines)


def _parts(url: str) -> list[str]:
    """Return what of a URL is masked by itself: the parts that look like keys, and what stands before the host."""
    _, _, rest = url.partition("://")
    user, at, _ = rest.rpartition("@")
    return [*parts_of_url(url, ""), *(user.split(":") if at else ())]


class _Heard(logging.Handler):
    """What the library says in one thread."""

    def __init__(self, thread: int) -> None:
        super().__init__(logging.WARNING)
        self._thread = thread
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread and len(self.lines) < 5:
            self.lines.append(" ".join(record.getMessage().split())[: LONGEST_SAID * 4])
