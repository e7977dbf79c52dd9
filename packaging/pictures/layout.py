#!/usr/bin/env python3
"""Draws layout.svg, the picture of README: packaging/pictures/layout.py >packaging/pictures/layout.svg"""

W, H = 860, 470
INK, SOFT, LINE = "#1f2a37", "#5b6776", "#8a97a6"
out = []


def box(x, y, w, h, fill, *lines, size=14):
    out.append(f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="6" fill="{fill}" stroke="{LINE}"/>')
    top = y + h / 2 - (len(lines) - 1) * 9.5 + 5
    for i, text in enumerate(lines):
        bold = ' font-weight="600"' if i == 0 else f' fill="{SOFT}"'
        out.append(f'<text x="{x + w / 2}" y="{top + i * 19:.1f}" text-anchor="middle" '
                   f'font-size="{size if i == 0 else size - 2}"{bold}>{text}</text>')


def arrow(x1, y1, x2, y2, text="", dx=8):
    out.append(f'<path d="M{x1} {y1} L{x2} {y2}" stroke="{INK}" stroke-width="1.4" marker-end="url(#tip)"/>')
    if text:
        out.append(f'<text x="{(x1 + x2) / 2 + dx}" y="{(y1 + y2) / 2 + 4}" font-size="12" fill="{SOFT}">{text}</text>')


box(30, 20, 250, 54, "#eef2f7", "ls, cp, git, sqlite, any program", "open .. write .. close")
box(580, 20, 250, 54, "#eef2f7", "a C program", "begin .. add .. commit")
box(30, 120, 250, 60, "#dce9f7", "sopfs (fs/)", "sessions, views, locks, ACLs")
box(330, 120, 200, 60, "#f3f4f6", "sopctl, .sop/status", "control socket")
arrow(155, 74, 155, 118, "FUSE")
arrow(330, 150, 282, 150)
box(30, 220, 800, 110, "#e6f2ea", "", size=14)
out.append('<text x="50" y="243" font-size="14" font-weight="600">libsop (core/)</text>')
arrow(155, 180, 155, 218, "one transaction for every open..close")
arrow(705, 74, 705, 218, "sop.h")
box(50, 256, 180, 60, "#ffffff", "transactions", "read set, write set, snapshots", size=13)
box(245, 256, 180, 60, "#ffffff", "B-trees", "a directory is one", size=13)
box(440, 256, 180, 60, "#ffffff", "journal", "the truth; group commit", size=13)
box(635, 256, 180, 60, "#ffffff", "Reed-Solomon, CRC32C", "k data + m parity shards", size=13)
names = ["/data/d1", "/data/d2", "/data/d3", "/data/d4"]
parts = [("shard 0", "journal, registry"), ("shard 1", "journal, registry"), ("parity 0", "journal, registry"),
         ("parity 1", "")]
for i, (name, (first, second)) in enumerate(zip(names, parts)):
    x = 30 + i * 205
    arrow(x + 92, 330, x + 92, 376)
    box(x, 378, 185, 70, "#fbf3e2", f"{name}", *(t for t in (f"{first}, 4 KiB checksums", second) if t))

print(f'<svg xmlns="http://www.w3.org/2000/svg" width="{W}" height="{H}" viewBox="0 0 {W} {H}" '
      f'font-family="system-ui, sans-serif" fill="{INK}">')
print(f'<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
      f'<path d="M0 0 L8 4 L0 8 z" fill="{INK}"/></marker></defs>')
print(f'<rect width="{W}" height="{H}" fill="#ffffff"/>')
print("\n".join(out))
print("</svg>")
