"""Bar charts in SVG, for light and dark pages alike."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Bar", "Panel", "svg"]

_WIDTH = 760  # of the picture, in pixels as all below
_LABEL = 210  # for the names of bars
_VALUE = 70  # for the numbers behind them
_ROW = 20
_BAR = 14
_HEAD = 34  # above each panel
_MARGIN = 12
_STYLE = """\
text { font: 12px sans-serif; fill: #57606a; }
.title { font-weight: bold; }
.ours { fill: #2da44e; }
.other { fill: #8c959f; }
@media (prefers-color-scheme: dark) { text { fill: #9198a1; } }
"""


@dataclass(frozen=True, slots=True)
class Bar:
    """A number with a name; `ours` are drawn in another colour."""

    name: str
    value: float
    ours: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """Bars with one scale."""

    title: str
    bars: Sequence[Bar]


def svg(title: str, unit: str, panels: Sequence[Panel]) -> str:
    """The picture: panels one below another, each with the scale of its longest bar. `title` is for screen readers."""
    height = _MARGIN + sum(_HEAD + _ROW * len(panel.bars) for panel in panels)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>\n{_STYLE}</style>",
    ]
    top = 0
    for panel in panels:
        lines += _panel(panel, top, unit)
        top += _HEAD + _ROW * len(panel.bars)
    return "\n".join([*lines, "</svg>", ""])


def _panel(panel: Panel, top: int, unit: str) -> Iterator[str]:
    yield f'<text class="title" x="{_MARGIN}" y="{top + _HEAD - 10}">{escape(panel.title)}</text>'
    longest = max((bar.value for bar in panel.bars), default=0) or 1
    room = _WIDTH - _LABEL - _VALUE - _MARGIN
    for number, bar in enumerate(panel.bars):
        y = top + _HEAD + _ROW * number
        width = max(1, room * bar.value / longest)
        kind = "ours" if bar.ours else "other"
        yield f'<text x="{_LABEL - 8}" y="{y + 11}" text-anchor="end">{escape(bar.name)}</text>'
        yield f'<rect class="{kind}" x="{_LABEL}" y="{y}" width="{width:.1f}" height="{_BAR}" rx="2"/>'
        yield f'<text x="{_LABEL + width + 6:.1f}" y="{y + 11}">{_number(bar.value)} {escape(unit)}</text>'


def _number(value: float) -> str:
    """Three digits, as far as they say something."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
