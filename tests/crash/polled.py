"""What is polled: rows that are added, rows that change, and an answer that changes."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.crash.outside import Outside, Told
from tests.crash.site import Site

LATEST = 8
"""How far behind the greatest cursor a row may be committed; the source looks back further."""

TABLES = """
pragma journal_mode = wal;
create table if not exists orders (id integer primary key, placed integer not null);
create table if not exists stock (item text primary key, amount integer not null);
"""


class Table(Outside):
    """Changes a table of the site's own database."""

    def __init__(self, site: Site, **settings: Any) -> None:
        super().__init__(site, **settings)
        self._shop = site.path / "shop.db"
        with closing(sqlite3.connect(self._shop, isolation_level=None)) as shop:
            shop.executescript(TABLES)

    def make(self, number: int) -> None:
        with closing(sqlite3.connect(self._shop, isolation_level=None, timeout=30.0)) as shop:
            shop.execute("begin immediate")
            self.change(shop, number)
            shop.execute("commit")

    def change(self, shop: sqlite3.Connection, number: int) -> None:
        """Make a change within a transaction."""
        raise NotImplementedError

    def rows(self, query: str) -> Sequence[Any]:
        """Return rows of the database."""
        with closing(sqlite3.connect(self._shop, timeout=30.0)) as shop:
            return shop.execute(query).fetchall()


class Orders(Table):
    """Adds rows, several with the same cursor, some in transactions that take long, some with a cursor of before."""

    source = "database:orders"

    def change(self, shop: sqlite3.Connection, number: int) -> None:
        late = self._random.randint(1, LATEST) if self._random.random() < 0.25 else 0
        for _ in range(self._random.randint(1, 3)):
            shop.execute("insert into orders (placed) values (?)", (max(number // 3 - late, 0),))
        if self._random.random() < 0.1:
            time.sleep(0.3)

    def findings(self) -> Iterator[str]:
        counts = Counter(event.data["id"] for event in self.told())
        for (row,) in self.rows("select id from orders"):
            if (count := counts.pop(row, 0)) != 1:
                yield f"order {row} is {count} events"
        if counts:
            yield f"orders {list(counts)} are told of, and were never there"


class Stock(Table):
    """Adds, changes and removes rows, whose amounts only grow."""

    source = "database:stock"

    def change(self, shop: sqlite3.Connection, number: int) -> None:
        item = self._random.choice("abcde")
        there = shop.execute("select 1 from stock where item = ?", (item,)).fetchone()
        if there and self._random.random() < 0.3:
            shop.execute("delete from stock where item = ?", (item,))
        else:
            shop.execute("insert or replace into stock values (?, ?)", (item, number))

    def findings(self) -> Iterator[str]:
        told = self.told()
        yield from numbered(told)
        known: dict[str, int] = {}
        for event in told:
            item, what = event.data["item"], event.type.rpartition(".")[2]
            before, amount = known.get(item), event.data.get("amount")
            expected = "inserted" if before is None else "updated" if amount is not None else "deleted"
            if what != expected or (before is not None and amount is not None and amount <= before):
                yield f"stock {item} of {before} is told as {what} with {amount}"
            known.pop(item, None)
            if amount is not None:
                known[item] = amount
        if known != (there := dict(self.rows("select item, amount from stock"))):
            yield f"the stock is told as {known}, and is {there}"


class Feed(Outside):
    """Answers requests, each time with the latest version."""

    source = "http:feed"

    def __init__(self, site: Site, **settings: Any) -> None:
        super().__init__(site, **settings)
        self._version = 0
        feed = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                version = feed._version
                is_known = self.headers["If-None-Match"] == f'"{version}"'
                content = b"" if is_known else json.dumps({"version": version}).encode()
                self.send_response(304 if is_known else 200)
                self.send_header("ETag", f'"{version}"')
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """Say nothing: the engine dies in the midst of requests."""

        self._server = Server(("127.0.0.1", site.outside_port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), name="Feed server", daemon=True).start()

    def make(self, number: int) -> None:
        self._version = number

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def findings(self) -> Iterator[str]:
        told = self.told()
        yield from numbered(told)
        versions = [event.data["body"]["version"] for event in told]
        if versions != sorted(set(versions)):
            yield f"versions of the feed are told as {versions}"
        if versions[-1:] != [self._version]:
            yield f"version {self._version} of the feed is not told, but {versions[-1:]}"


def numbered(told: Sequence[Told]) -> Iterator[str]:
    """Check that keys begin with the numbers from 1 on, none twice and none left out."""
    numbers = [int(event.key.partition(":")[0]) for event in told]
    if numbers != list(range(1, len(told) + 1)):
        yield f"events are numbered {numbers}"
