"""`exclude-newer`: the time after which a package did not exist yet."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

__all__ = ["parse_cutoff"]

_PART: Final = re.compile(r"(\d{1,9})\s*([A-Za-z]+)\s*")
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
# The units of Rust's humantime, which pixi reads durations with; a month is 30.44 days, a year 365.25.
_SECONDS: Final = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), 60),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 3600),
    **dict.fromkeys(("d", "day", "days"), 86_400),
    **dict.fromkeys(("w", "wk", "wks", "week", "weeks"), 604_800),
    **dict.fromkeys(("M", "month", "months"), 2_630_016),
    **dict.fromkeys(("y", "yr", "yrs", "year", "years"), 31_557_600),
}


def parse_cutoff(text: str, now: datetime) -> datetime:
    """The moment that an `exclude-newer` value means; raises ValueError when it is none.

    A duration counts back from `now`; a date means the *next* midnight in UTC, so that the day is included.
    """
    try:
        if _DATE.fullmatch(text):
            return datetime.fromisoformat(text).replace(tzinfo=UTC) + timedelta(days=1)
        if text[:4].isdecimal() and text[4:5] == "-":
            moment = datetime.fromisoformat(text.replace("z", "Z").replace(" ", "T"))
            return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        return now - _duration(text.strip())
    except (OverflowError, ValueError) as error:
        raise ValueError(f"`{text}` is no time and no duration") from error


def _duration(text: str) -> timedelta:
    parts = _PART.findall(text)
    if not parts or _PART.sub("", text) or any(unit not in _SECONDS for _, unit in parts):
        raise ValueError(text)
    return timedelta(seconds=sum(int(number) * _SECONDS[unit] for number, unit in parts))
