"""A small shop for the tour: somebody orders now and then, orders are shipped, and lists of goods are counted."""

import asyncio
import csv
import sqlite3
from contextlib import closing
from pathlib import Path

from engine.plugin import FunctionContext

DATABASE = Path(__file__).parent.parent / "data" / "shop.db"
MOST_ORDERS = 1000
CUSTOMERS, TOTALS = ["Ada", "Grace", "Linus"], [12, 60, 35, 8, 90]


def order(run: FunctionContext) -> dict[str, int]:
    """Order something: a row in the shop's own database, which the engine knows nothing of but by polling it."""
    with closing(sqlite3.connect(DATABASE)) as shop, shop:
        shop.execute("create table if not exists orders (id integer primary key, customer text, total integer)")
        (number,) = shop.execute("select coalesce(max(id), 0) + 1 from orders").fetchone()
        customer, total = CUSTOMERS[number % len(CUSTOMERS)], TOTALS[number % len(TOTALS)]
        shop.execute("insert into orders values (?, ?, ?)", (number, customer, total))
        shop.execute("delete from orders where id <= ?", (number - MOST_ORDERS,))
    print(f"order {number}: {customer}, {total}")
    return {"order": number}


async def ship(run: FunctionContext) -> dict[str, str]:
    """Ship an order. An asynchronous function: it is called on the engine's own event loop."""
    run.progress(0.5, "packed")
    await asyncio.sleep(0.2)
    return {"parcel": f"{run.data['customer']}-{run.data['id']}"}


def count(run: FunctionContext) -> dict[str, int]:
    """Count the pieces of a list that was dropped."""
    with open(run.data["path"], newline="") as file:
        pieces = sum(int(row["pieces"]) for row in csv.DictReader(file))
    return {"pieces": pieces}
