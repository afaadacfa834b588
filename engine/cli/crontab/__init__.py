"""Crontabs as configuration: what cron runs becomes jobs and triggers, and what can't be carried over is said."""

from engine.cli.crontab.reading import Crontab, Entry, Problem, Remark, is_system, read
from engine.cli.crontab.writing import Result, write

__all__ = ["Crontab", "Entry", "Problem", "Remark", "Result", "is_system", "read", "write"]
