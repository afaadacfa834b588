"""The web page: what an operator looks at. Each page is one row of `table`, one module and one template."""

from engine.http.page.assets import ASSETS
from engine.http.page.faults import is_for_people, shown_fault
from engine.http.page.table import PAGES, handler_of

__all__ = ["ASSETS", "PAGES", "handler_of", "is_for_people", "shown_fault"]
