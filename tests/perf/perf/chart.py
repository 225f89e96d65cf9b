"""Saved results as a chart: CPU time for each request, as a ratio to the bare hyper of the same run.

A bar begins at 1, which is bare hyper, and goes right for what costs more and left for what costs less. The scale is
logarithmic: the same length is the same factor, and a page that costs fourteen times as much stays in the picture."""

import math
from xml.sax.saxutils import escape, quoteattr

from . import servers
from .report import FLOOR

# Rover stands out; the others keep their distance from it and from each other, in grey print too.
COLOURS = {"rover": "#d9480f", "axum": "#1c5d99", "nginx": "#639fab", "bun": "#9aa5b1", "node": "#5c6b73"}
OTHER = "#b8b8b8"

WIDTH, LEFT, RIGHT = 860, 190, 70
BAR, GAP, TOP, BOTTOM = 13, 14, 84, 46
FONT = "font-family=\"system-ui, 'Segoe UI', Helvetica, Arial, sans-serif\""


def svg(records):
    """The chart of one record or several; a workload is taken from the last that has it."""
    summary = {}
    for record in records:
        summary |= record["summary"]
    groups = {workload: _rows(by_server) for workload, by_server in summary.items() if _has_load(by_server)}
    if not groups:
        return _document(60, [_text(LEFT, 36, "No workload of this result measures requests.")])
    scale = Scale([ratio for rows in groups.values() for _, ratio, _ in rows if ratio])
    height = TOP + sum(len(rows) * BAR + GAP for rows in groups.values()) + BOTTOM
    parts = _grid(scale, height)
    y = TOP
    for workload, rows in groups.items():
        middle = y + len(rows) * BAR / 2 + 4
        parts.append(_text(LEFT - 62, middle, workload, anchor="end", weight="600"))
        for name, ratio, missing in rows:
            parts += _bar(scale, y, workload, name, ratio, missing)
            y += BAR
        y += GAP
    parts += _head(records)
    parts.append(_text(LEFT, height - 14, _absent(groups), size=11, fill="#555"))
    return _document(height, parts)


def _has_load(by_server):
    return any(figures.get("cpu_us") for figures in by_server.values())


def _rows(by_server):
    """[(server, ratio or None, why there is none)], in the order of all tables, without the floor itself."""
    order = [server.name for server in servers.ALL]
    names = sorted(by_server, key=lambda name: order.index(name) if name in order else len(order))
    rows = []
    for name in names:
        figures = by_server[name]
        if name == FLOOR and "missing" not in figures:
            continue
        ratio = figures.get("ratio_cpu")
        rows.append((name, ratio, figures.get("missing", "" if ratio else "bare hyper did not run")))
    return rows


class Scale:
    """Powers of two around all ratios, with 1 in between."""

    def __init__(self, ratios):
        self.low = min(-1, math.floor(math.log2(min(ratios, default=1))))
        self.high = max(1, math.ceil(math.log2(max(ratios, default=1))))

    def x(self, ratio):
        return LEFT + (WIDTH - LEFT - RIGHT) * (math.log2(ratio) - self.low) / (self.high - self.low)

    def ticks(self):
        return [2.0 ** power for power in range(self.low, self.high + 1)]


def _grid(scale, height):
    parts = []
    for ratio in scale.ticks():
        x, one = scale.x(ratio), ratio == 1
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 8}" y2="{height - BOTTOM + 4}" '
                     f'stroke="{"#333" if one else "#ddd"}" stroke-width="{1.5 if one else 1}"/>')
        parts.append(_text(x, TOP - 14, "bare hyper" if one else f"{ratio:g} ×", anchor="middle", size=11, fill="#555"))
    return parts


def _bar(scale, y, workload, name, ratio, missing):
    parts = [_text(LEFT - 8, y + 10, name, anchor="end", size=11, weight="600" if name == "rover" else "400")]
    if not ratio:
        parts.append(_text(scale.x(1) + 5, y + 10, f"missing: {_shortened(missing)}", size=11, fill="#a00"))
        return parts
    start, end = sorted((scale.x(1), scale.x(ratio)))
    title = escape(f"{workload}, {name}: {ratio:.2f}")
    parts.append(f'<rect x="{start:.1f}" y="{y + 1}" width="{max(end - start, 1):.1f}" height="{BAR - 2}" '
                 f'fill="{COLOURS.get(name, OTHER)}"><title>{title}</title></rect>')
    # At the end of its bar; on the right of the line where the bar goes left.
    parts.append(_text(max(end, scale.x(1)) + 5, y + 10, f"{ratio:.2f}", size=11,
                       weight="600" if name == "rover" else "400"))
    return parts


def _shortened(reason, length=70):
    return reason if len(reason) <= length else reason[:length - 1] + "…"


def _head(records):
    machine = records[-1]["machine"]
    workers = records[-1].get("workers", 1)
    said = "one worker" if workers == 1 else f"{workers} workers"
    return [_text(20, 28, "CPU time for each request, as a ratio to bare hyper (log scale; shorter is better)",
                  size=15, weight="600"),
            _text(20, 46, f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}; {said}; medians of "
                  "interleaved rounds", size=11, fill="#555")]


def _absent(groups):
    """Names the servers that a run left out, so that their absence is no accident."""
    absent = {name: [workload for workload, rows in groups.items() if name not in [row[0] for row in rows]]
              for name in (server.name for server in servers.ALL) if name != FLOOR}
    said = [f"{name} (all)" if len(where) == len(groups) else f"{name} ({', '.join(where)})"
            for name, where in absent.items() if where]
    return f"Not part of the run: {'; '.join(said)}." if said else ""


def _text(x, y, text, anchor="start", size=12, weight="400", fill="#111"):
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" font-weight="{weight}" '
            f"fill={quoteattr(fill)}>{escape(text)}</text>")


def _document(height, parts):
    # A ground of its own: the text reads the same on a light page and on a dark one.
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" height="{height:g}" '
        f"{FONT}>",
        f'<rect width="{WIDTH}" height="{height:g}" rx="8" fill="#fff" stroke="#ddd"/>',
        *parts,
        "</svg>",
    ]) + "\n"
