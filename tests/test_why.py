"""Why it did not run: what a trigger's view tells of its source."""

from __future__ import annotations

from pathlib import Path

from tests.fakes import until
from tests.test_runtime import Tap, configured, operations, running


async def test_a_trigger_tells_what_is_wrong_with_its_source(tmp_path: Path) -> None:
    config = configured(tmp_path, '[jobs.work]\nrun.gate = "open"\n[triggers.new]\non.tap = {}\njob = "work"\n')
    async with running(config) as engine:
        assert operations(engine).trigger_view("new")["source_problem"] is None
        Tap.contexts["tap"].warn("the folder is not there")
        found = operations(engine).trigger_view("new")["source_problem"]
        assert found["problem"] == "the folder is not there"
        assert found["since"].endswith("Z")
        Tap.contexts["tap"].warn(None)
        assert operations(engine).trigger_view("new")["source_problem"] is None


async def test_a_trigger_on_a_database_that_is_not_there_says_so(tmp_path: Path) -> None:
    config = configured(tmp_path, """
[jobs.work]
run.gate = "open"
[triggers.orders]
on.database = { url = "sqlite+aiosqlite:///missing.db", \
query = "select id from orders where id > :cursor order by id", \
cursor = "id", start = 0 }
job = "work"
""")  # fmt: skip
    async with running(config) as engine:
        await until(lambda: operations(engine).trigger_view("orders")["source_problem"] is not None)
        assert "missing.db is not there" in operations(engine).trigger_view("orders")["source_problem"]["problem"]
