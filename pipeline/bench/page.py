"""One HTML page, complete in itself: style and plots (SVG) are in it, nothing is fetched."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

COLOURS = ("#3b6ea5", "#d98032", "#5a9e6f", "#b0486a", "#8a8f98", "#7a5ca8")
"""Of a plot's series, in order; readable on white and on black."""
WIDTH, ROW, LABEL, VALUE, HEIGHT = 760, 26, 190, 70, 260  # pixels
META = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
STYLE = """
:root { color-scheme: light dark; --line: #8884; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: 0; }
h2 { margin-top: 2.2rem; }
h3 { font-size: 1rem; margin-bottom: .3rem; }
.when { opacity: .7; margin-top: 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: .4rem 0 1.2rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .8rem .25rem 0; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; overflow-wrap: anywhere; }
th { font-weight: 600; }
svg { max-width: 100%; height: auto; display: block; margin: .6rem 0 1.2rem; }
svg text { fill: currentColor; font: 13px system-ui, sans-serif; }
"""

Shown = tuple[str, Sequence[str], Sequence[Sequence[str]]]
"""A table as texts: its title, its columns' titles, its rows."""


@dataclass(frozen=True, slots=True)
class Bars:
    """Horizontal bars: each row stacks one value (0 or more) a series. ``unit`` is what the values are in."""

    title: str
    unit: str
    series: tuple[str, ...]
    rows: Sequence[tuple[str, Sequence[float]]]

    @property
    def caption(self) -> str:
        return f"{self.title} ({self.unit})"

    def svg(self) -> str:
        top = max((sum(values) for _, values in self.rows), default=0.0) or 1.0
        scale = (WIDTH - LABEL - VALUE) / top
        parts = []
        for number, (name, values) in enumerate(self.rows):
            y, x = number * ROW, float(LABEL)
            parts.append(_text(LABEL - 8, y + 17, name, "end"))
            for colour, series, value in zip(COLOURS, self.series, values, strict=False):
                about = f"{name}, {series}: {value:.3g} {self.unit}"
                parts.append(
                    f'<rect x="{x:.1f}" y="{y + 3}" width="{value * scale:.1f}" height="{ROW - 8}" '
                    f'fill="{colour}"><title>{escape(about)}</title></rect>'
                )
                x += value * scale
            parts.append(_text(x + 6, y + 17, f"{sum(values):.3g}"))
        height = float(len(self.rows) * ROW + 4)
        if len(self.series) > 1:
            legend, height = _legend(self.series, height + 16)
            parts += legend
        return _svg(self.caption, height, parts)


@dataclass(frozen=True, slots=True)
class Lines:
    """Points joined by lines, one line a series: (x, y) pairs. Both axes start at 0."""

    title: str
    x: str
    y: str
    series: tuple[str, ...]
    points: Sequence[Sequence[tuple[float, float]]]

    @property
    def caption(self) -> str:
        return f"{self.title}: {self.y}"

    def svg(self) -> str:
        every = [point for line in self.points for point in line]
        most_x = max((x for x, _ in every), default=0.0) or 1.0
        most_y = max((y for _, y in every), default=0.0) or 1.0
        left, bottom, right = 50, HEIGHT - 40, WIDTH - 20

        def at(x: float, y: float) -> tuple[float, float]:
            return left + (right - left) * x / most_x, bottom - (bottom - 16) * y / most_y

        parts = [f'<path d="M{left} 10V{bottom}H{right}" fill="none" stroke="currentColor" opacity=".5"/>']
        for share in (0.0, 0.5, 1.0):
            (x, _), (_, y) = at(share * most_x, 0), at(0, share * most_y)
            parts += [_text(x, bottom + 16, f"{share * most_x:.3g}", "middle")]
            parts += [_text(left - 6, y + 4, f"{share * most_y:.3g}", "end")]
        for colour, line in zip(COLOURS, self.points, strict=False):
            places = [at(x, y) for x, y in line]
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
            parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in places]
        parts.append(_text((left + right) / 2, HEIGHT - 6, self.x, "middle"))
        legend, height = _legend(self.series, HEIGHT + 14)
        return _svg(self.caption, height, [*parts, *legend])


Plot = Bars | Lines


def page(
    title: str,
    when: str,
    sections: Sequence[tuple[str, Sequence[str], Sequence[Shown], Sequence[Plot]]],
    facts: Sequence[Shown],
) -> str:
    """The page: sections of (title, sentences, tables, plots), then the tables of ``facts``."""
    body = [f"<h1>{escape(title)}</h1>", f'<p class="when">{escape(when)}</p>']
    for heading, says, tables, plots in sections:
        body += [f"<h2>{escape(heading)}</h2>", *(f"<p>{escape(say)}</p>" for say in says)]
        body += [f"<h3>{escape(plot.caption)}</h3>{plot.svg()}" for plot in plots]
        body += [_table(*table) for table in tables]
    body += [_table(*table) for table in facts]
    head = f"{META}<title>{escape(title)}</title>"
    return (
        "\n".join(
            ["<!doctype html>", f'<html lang="en"><head>{head}<style>{STYLE}</style></head><body>', *body]
        )
        + "\n</body></html>\n"
    )


def _table(title: str, titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(tag: str, cells: Sequence[str]) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    head = f"<h3>{escape(title)}</h3>" if title else ""
    lines = [line("th", titles), *(line("td", row) for row in rows)]
    return f'{head}<div class="wide"><table>{"".join(lines)}</table></div>'


def _legend(series: Sequence[str], y: float) -> tuple[list[str], float]:
    """Its parts from line ``y`` on, and where they end."""
    parts, x = [], 8.0
    for colour, name in zip(COLOURS, series, strict=False):
        if x + 16 + 7.5 * len(name) > WIDTH:
            x, y = 8.0, y + 20
        parts += [f'<rect x="{x:.0f}" y="{y - 10:.0f}" width="11" height="11" fill="{colour}"/>']
        parts += [_text(x + 16, y, name)]
        x += 40 + 7.5 * len(name)
    return parts, y + 8


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(about: str, height: float, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" height="{height:.0f}" role="img" '
        f'aria-label="{escape(about)}">{"".join(parts)}</svg>'
    )
