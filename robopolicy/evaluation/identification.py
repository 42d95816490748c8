"""The page of an identification: held-out error before and after, every number with its error, what stays unknown."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

WIDTH, HEIGHT = 690, 200


def write_page(path: Path, report: Mapping[str, Any]) -> Path:
    """Write one self-contained HTML page and return its path.

    Args:
        path: of the page.
        report: of ``sim_envs.sysid_report.reported``.
    """
    css = Path(__file__).with_name("report.css").read_text()
    title = f"Identification from {report['dataset']}"
    sections = [
        f"<h1>{escape(title)}</h1>",
        "".join(f"<p>{escape(line)}</p>" for line in report["lines"][:3]),
        _joints(report),
        _trace(report["trace"]),
        _table(report["identifiability"]["estimates"]),
        _pairs(report["identifiability"]["pairs"]),
        f'<p class="soft">{escape(report["note"])}</p>',
    ]
    html = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{css}</style></head>\n<body><main>"
        + "\n".join(section for section in sections if section)
        + "</main></body></html>\n"
    )
    path.write_text(html)
    return path


def _joints(report: Mapping[str, Any]) -> str:
    errors = report["held_out_joint_rms_rad"]
    rows = "".join(
        f'<tr><td>{escape(name)}</td><td class="n">{1e3 * before:.3f}</td><td class="n">{1e3 * after:.3f}</td></tr>'
        for name, before, after in zip(report["joints"], errors["nominal"], errors["identified"], strict=True)
    )
    head = '<tr><th>Joint</th><th class="n">nominal, mrad</th><th class="n">identified, mrad</th></tr>'
    held_out = escape(", ".join(report["held_out"]))
    return f'<h2>RMS error on held-out motion ({held_out})</h2><div class="card"><table>{head}{rows}</table></div>'


def _trace(trace: Mapping[str, Any]) -> str:
    times = np.asarray(trace["times_s"])
    curves = [
        (1e3 * np.asarray(trace[key]), style) for key, style in (("nominal", "threshold"), ("identified", "trace"))
    ]
    most = max(float(np.abs(curve).max()) for curve, _ in curves) or 1.0
    paths = "".join(f'<path d="{_path(times, curve / most)}" class="{style}" fill="none"/>' for curve, style in curves)
    middle = HEIGHT / 2
    axis = (
        f'<line x1="40" x2="{WIDTH}" y1="{middle}" y2="{middle}" class="axis"/>'
        f'<text x="36" y="16" class="tick" text-anchor="end">{most:.2g}</text>'
        f'<text x="36" y="{middle + 4}" class="tick" text-anchor="end">0</text>'
        f'<text x="{WIDTH}" y="{HEIGHT - 2}" class="tick" text-anchor="end">{times[-1]:.1f} s</text>'
    )
    said = f"Error of {escape(trace['joint'])} over {escape(trace['motion'])}, mrad: dashed nominal, solid identified"
    return (
        f'<h2>{said}</h2><div class="card"><svg viewBox="0 0 {WIDTH + 10} {HEIGHT}" class="plot" role="img" '
        f'aria-label="{said}">{axis}{paths}</svg></div>'
    )


def _path(times: np.ndarray, curve: np.ndarray) -> str:
    keep = np.linspace(0, len(times) - 1, min(len(times), WIDTH)).astype(int)
    x = 40 + (WIDTH - 40) * (times[keep] - times[0]) / max(times[-1] - times[0], 1e-9)
    y = HEIGHT / 2 * (1 - 0.92 * curve[keep])
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True))


def _table(estimates: Sequence[Mapping[str, Any]]) -> str:
    rows = "".join(_row(estimate) for estimate in estimates)
    head = (
        '<tr><th>Parameter</th><th class="n">nominal</th><th class="n">identified</th><th class="n">std. error</th>'
        "<th>unit</th><th>status</th></tr>"
    )
    return f'<h2>Identifiability</h2><div class="card scroll"><table>{head}{rows}</table></div>'


def _row(estimate: Mapping[str, Any]) -> str:
    error = "" if estimate["std_err"] is None else f"{estimate['std_err']:.2g}"
    status = (
        "identified, unchanged" if estimate["status"] == "identified" and not estimate["moved"] else estimate["status"]
    )
    note = f": {estimate['note']}" if estimate["note"] else ""
    return (
        f'<tr><td>{escape(estimate["name"])}</td><td class="n">{estimate["nominal"]:.4g}</td>'
        f'<td class="n">{estimate["value"]:.4g}</td><td class="n">{error}</td><td>{escape(estimate["unit"])}</td>'
        f"<td>{escape(status + note)}</td></tr>"
    )


def _pairs(pairs: Sequence[Sequence[Any]]) -> str:
    if not pairs:
        return ""
    rows = "".join(f'<tr><td>{escape(a)}</td><td>{escape(b)}</td><td class="n">{r:+.3f}</td></tr>' for a, b, r in pairs)
    return f'<h2>Estimates that go together</h2><div class="card scroll"><table>{rows}</table></div>'
