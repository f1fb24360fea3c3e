"""Bars with figures, as text or SVG: what a benchmark can show without a plotting library."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Mapping

TEXT_WIDTH = 40
ROW_PX, LABEL_PX, BAR_PX, FIGURE_PX = 24, 290, 380, 90


def bars(figures: Mapping[str, float], *, svg: bool = False) -> str:
    """A bar a figure (each > 0), the longest across the whole width."""
    longest = max(figures.values())
    if svg:
        return _svg(figures, longest)
    wide = max(map(len, figures))
    return "\n".join(
        f"{name:{wide}} {'█' * round(value / longest * TEXT_WIDTH):{TEXT_WIDTH}} {value:>9,.0f}"
        for name, value in figures.items()
    )


def _svg(figures: Mapping[str, float], longest: float) -> str:
    width, height = LABEL_PX + BAR_PX + FIGURE_PX, ROW_PX * len(figures) + 12
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
        "<title>Events per second</title>",
        "<style>text { font: 13px sans-serif } rect { fill: #8c959f } .ours { fill: #1f6feb }",
        "</style>",
    ]
    for row, (name, value) in enumerate(figures.items()):
        top, size = row * ROW_PX + 6, value / longest * BAR_PX
        ours = ' class="ours"' if name.startswith("crawl") else ""
        parts += [
            f'<text x="{LABEL_PX - 8}" y="{top + 16}" text-anchor="end">{escape(name)}</text>',
            f'<rect{ours} x="{LABEL_PX}" y="{top + 3}" width="{size:.1f}" height="18"/>',
            f'<text x="{LABEL_PX + size + 6:.1f}" y="{top + 16}">{value:,.0f}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])
