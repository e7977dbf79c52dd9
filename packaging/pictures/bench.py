#!/usr/bin/env python3
"""Draws the picture of README from what make bench has measured:
tests/bench/bench.sh --json packaging/pictures/bench.json
packaging/pictures/bench.py packaging/pictures/bench.json >packaging/pictures/bench.svg"""

import json
import math
import sys
from xml.sax.saxutils import escape

INK, SOFT, LINE, BACK = "#1f2a37", "#5b6776", "#c9d1da", "#ffffff"
COLOURS = {"bare": "#7a8794", "floor": "#b98900", "bindfs": "#2f7fc1", "zfs": "#8a4fb5", "btrfs": "#2e8b57",
           "gluster": "#d1495b"}
NAMES = {"bare": "one disk's own file system", "floor": "FUSE in memory", "zfs": "zfs-fuse raidz2", "btrfs": "btrfs raid6",
         "gluster": "GlusterFS 4+2"}
W, LEFT, RIGHT, TOP, ROW = 860, 190, 90, 96, 21
LOW, HIGH = 0.02, 50.0


def x_of(speed):
    speed = min(max(speed, LOW), HIGH)
    return LEFT + (W - LEFT - RIGHT) * math.log(speed / LOW) / math.log(HIGH / LOW)


def text(x, y, what, anchor="start", size=12, fill=INK, weight=400):
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{fill}" '
            f'font-weight="{weight}">{escape(what)}</text>')


def speeds(case):
    """How fast each of the others is, sopfs being 1."""
    own = case["values"]["sopfs"]
    for name, value in case["values"].items():
        if name != "sopfs" and name in COLOURS and value > 0 and own > 0:
            yield name, value / own if case["unit"] == "MiB/s" else own / value


def draw(bench):
    cases = [c for c in bench["cases"] if "sopfs" in c["values"] and len(c["values"]) > 1]
    height = TOP + ROW * len(cases) + 64
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{W}" height="{height}" viewBox="0 0 {W} {height}" '
           f'font-family="system-ui, sans-serif"><rect width="{W}" height="{height}" fill="{BACK}"/>',
           text(LEFT, 24, "How fast the others are, sopfs (2+2, any two disks may fail) being 1", size=14, weight=600)]
    x = 40
    for name in (n for n in COLOURS if n in bench["systems"]):
        label = NAMES.get(name, name)
        out.append(f'<circle cx="{x + 5}" cy="44" r="5" fill="{COLOURS[name]}"/>' + text(x + 14, 48, label, fill=SOFT))
        x += 28 + 7.4 * len(label)
    bottom = TOP + ROW * len(cases)
    for tick in (0.02, 0.1, 0.5, 1, 2, 10, 50):
        heavy = f'{INK}" stroke-width="1.6' if tick == 1 else f'{LINE}" stroke-width="1'
        out.append(f'<path d="M{x_of(tick):.1f} {TOP - 12} V{bottom}" stroke="{heavy}"/>')
        out.append(text(x_of(tick), TOP - 18, f"{tick:g}", "middle", 11, SOFT))
    out.append(text(x_of(0.14), bottom + 18, "slower than sopfs", "middle", 11, SOFT))
    out.append(text(x_of(7), bottom + 18, "faster", "middle", 11, SOFT))
    for i, case in enumerate(cases):
        y = TOP + ROW * i + ROW / 2
        own = case["values"]["sopfs"]
        figure = f'{own:.0f} MiB/s' if case["unit"] == "MiB/s" else f"{own:.3g} ms"
        out.append(text(LEFT - 12, y + 4, case["case"], "end"))
        out.append(f'<path d="M{LEFT} {y:.1f} H{W - RIGHT}" stroke="{LINE}" stroke-dasharray="1 3"/>')
        out.append(text(W - 10, y + 4, figure, "end", 11, SOFT))
        for name, speed in speeds(case):
            out.append(f'<circle cx="{x_of(speed):.1f}" cy="{y:.1f}" r="4.5" fill="{COLOURS[name]}" fill-opacity="0.85">'
                       f"<title>{escape(name)}: {speed:.2f}</title></circle>")
    out.append(text(10, height - 24, bench["machine"] + "; " + bench["date"], size=10, fill=SOFT))
    out.append(text(10, height - 10, bench["sizes"], size=10, fill=SOFT))
    out.append("</svg>")
    return "\n".join(out)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with open(sys.argv[1], encoding="utf-8") as source:
        print(draw(json.load(source)))
