"""A page that stands alone: in a browser, on a phone and on paper.

Nothing is loaded from elsewhere and no script runs. All text is escaped here or by who
makes it.
"""

from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path

from dataflow.errors import UnderstudyError
from understudy.summary import Column

WIDE, NARROW = 860, 360
"""Widths of a plot in CSS pixels: for a desk and paper, and for a phone."""
_MOST_ROWS = 200


def write_page(path: Path, title: str, parts: Iterable[str]) -> None:
    """Write a page of `parts`; it is whole or it is not there.

    Raises:
        UnderstudyError: The file cannot be written.
    """
    page = "\n".join((_head(title), *parts, "</main></body></html>\n"))
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.write_text(page, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise UnderstudyError(
            f"{path}: cannot be written ({error.strerror}); free the place or name "
            "another"
        ) from None


def _head(title: str) -> str:
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title>"
        f"<style>{_STYLE}</style></head><body><main>"
    )


def header(kicker: str, name: str, words: Iterable[str]) -> str:
    """Return the head of a page: what it is, of what, and when or under what."""
    return (
        f'<header><p class="kicker">{escape(kicker)}</p><h1>{escape(name)}</h1>'
        f"<p class=sub>{escape(' · '.join(filter(None, words)))}</p></header>"
    )


def tiles(entries: Iterable[tuple[str, str, str]]) -> str:
    """Return the few figures that matter most: title, number, note."""
    boxes = (
        f'<div><span class="title">{escape(title)}</span>'
        f'<span class="number">{escape(number)}</span>'
        f'<span class="note">{escape(note)}</span></div>'
        for title, number, note in entries
    )
    return f'<section class="tiles">{"".join(boxes)}</section>'


def legend(entries: Iterable[tuple[str, str]]) -> str:
    """Return colours with what they mean."""
    items = (
        f'<span><i style="background:{colour}"></i>{escape(text)}</span>'
        for colour, text in entries
    )
    return f'<p class="legend">{"".join(items)}</p>'


def facts(found: Iterable[tuple[str, str]], title: str) -> str:
    cells = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(fact)}</dd>" for name, fact in found
    )
    return f"<h3>{escape(title)}</h3><dl>{cells}</dl>"


def table(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], caption: str = ""
) -> str:
    if not rows:
        return ""
    kinds = [' class="n"' if column.number else "" for column in columns]
    head = "".join(
        f'<th scope="col"{kind}>{escape(column.title)}</th>'
        for column, kind in zip(columns, kinds, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{kind}>{escape(cell)}</td>"
            for cell, kind in zip(row, kinds, strict=True)
        )
        + "</tr>"
        for row in rows[:_MOST_ROWS]
    )
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    more = len(rows) - _MOST_ROWS
    return (
        f"<div class=scroll><table>{title}<thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
        + (f'<p class="caption">and {more:,} more</p>' if more > 0 else "")
    )


def both(draw: Callable[[int], str]) -> str:
    """Return a plot for a desk and for a phone, by its width; the style shows one."""
    return (
        f'<div class="wide">{draw(WIDE)}</div><div class="narrow">{draw(NARROW)}</div>'
    )


_STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--quiet:#59636e;--faint:#9aa4ae;
--paper:#fff;--panel:#f5f7f9;--rule:#d9dfe5;--good:#0b6b3a;--bad:#a8321a;
--goodpaper:#e9f6ee;--badpaper:#fdeee9;--cut:#b4490a;--onnx:#e3eefa}
@media(prefers-color-scheme:dark){:root{--ink:#e6eaee;--quiet:#a3adb8;--faint:#75808b;
--paper:#14181c;--panel:#1d2329;--rule:#343c45;--good:#7ddba3;--bad:#ff9c84;
--goodpaper:#16301f;--badpaper:#3a1d16;--cut:#f0a06a;--onnx:#1d3349}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Liberation Sans",sans-serif;
-webkit-text-size-adjust:100%}
main{max-width:908px;margin:0 auto;padding:28px 24px 60px}
h1{font-size:27px;line-height:1.2;margin:0;letter-spacing:-.01em;overflow-wrap:anywhere}
h2{font-size:18px;margin:44px 0 10px;padding-top:12px;border-top:1px solid var(--rule)}
h3{font-size:14px;margin:22px 0 6px}
p{margin:8px 0}
.kicker{margin:0 0 2px;color:var(--quiet);font-size:13px;letter-spacing:.04em}
.sub{color:var(--quiet);margin:6px 0 0}
.verdict{margin:20px 0;padding:12px 16px;border-left:5px solid;border-radius:4px}
.verdict p{margin:0}
.verdict ul{margin:8px 0 0;padding-left:20px;font-size:13px;overflow-wrap:anywhere}
.kept{border-color:var(--good);background:var(--goodpaper)}.kept b{color:var(--good)}
.broken{border-color:var(--bad);background:var(--badpaper)}.broken b{color:var(--bad)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(126px,1fr));gap:10px;
margin:20px 0}
.tiles div{background:var(--panel);border-radius:6px;padding:10px 14px}
.tiles span{display:block}
.title,.note{color:var(--quiet);font-size:13px}.note{min-height:1.5em}
.number{font-size:23px;line-height:1.3;font-variant-numeric:tabular-nums}
.caption{color:var(--quiet);font-size:13px;margin:6px 0 16px;max-width:74ch}
.legend{display:flex;flex-wrap:wrap;gap:4px 18px;font-size:13px;margin:8px 0}
.legend i{display:inline-block;width:12px;height:12px;border-radius:2px;
margin-right:6px;vertical-align:-1px;print-color-adjust:exact;
-webkit-print-color-adjust:exact}
.scroll{overflow-x:auto;margin:14px 0}
th:last-child,td:last-child{padding-right:0}
table{border-collapse:collapse;font-size:13px;font-variant-numeric:tabular-nums}
caption{text-align:left;font-weight:600;padding:0 0 4px}
th,td{text-align:left;padding:4px 11px 4px 0;white-space:nowrap;vertical-align:top;
border-bottom:1px solid var(--rule)}
th{white-space:normal;vertical-align:bottom;color:var(--quiet);font-weight:500;border-bottom-color:var(--faint)}
@media screen and (min-width:1000px){.scroll{margin-right:calc(478px - 50vw)}}
@media(min-width:621px){td:not(.n,:first-child){white-space:normal}
td:last-child:not(.n){min-width:9em}}
.n{text-align:right}
dl{display:grid;grid-template-columns:max-content 1fr;gap:2px 18px;font-size:13.5px;
margin:0}
dt{color:var(--quiet)}dd{margin:0;overflow-wrap:anywhere}
pre{background:var(--panel);border-radius:6px;padding:12px 14px;font-size:12.5px;
line-height:1.45;overflow-x:auto}
svg{display:block;max-width:100%;height:auto}
svg text{font-family:inherit!important}
.narrow{display:none}
svg.graph{max-width:none;margin:0 auto;font-size:12px}
.graph text{fill:var(--ink)}
.graph rect.device{fill:var(--panel);stroke:var(--rule)}
.graph rect.server{stroke:var(--faint);stroke-dasharray:5 3}
.graph text.device{font-weight:600}
.graph .actor{fill:var(--paper);stroke:var(--faint)}
.graph .onnx{fill:var(--onnx)}.graph .switch{stroke:var(--ink)}
.graph .fifo{fill:none;stroke:var(--quiet);stroke-width:1.2}
.graph .cut{stroke:var(--cut);stroke-width:2}
.graph .control{stroke-dasharray:2 3}
.graph text.cut{fill:var(--cut);stroke:none;font-size:11px}
.key{display:inline-block;width:24px;border-top:1.5px solid var(--quiet);
vertical-align:middle}
.key.cut{border-top:2.5px solid var(--cut)}.key.control{border-top-style:dashed}
@media(max-width:620px){main{padding:18px 14px 40px}.wide{display:none}
.narrow{display:block}h1{font-size:22px}.tiles{grid-template-columns:1fr 1fr}
th,td{padding-right:14px}}
@media print{:root{color-scheme:light;--ink:#000;--quiet:#444;--faint:#888;--paper:#fff;
--panel:#f5f7f9;--rule:#ccc;--good:#0b6b3a;--bad:#a8321a;--goodpaper:#fff;
--badpaper:#fff;--cut:#b4490a;--onnx:#e3eefa}
main{max-width:none;padding:0}body{font-size:11pt}.wide{display:block}
.narrow{display:none}.scroll{overflow:visible}svg.graph{max-width:100%}
table{font-size:9pt}th,td{padding-right:9px;white-space:normal}
pre{white-space:pre-wrap;overflow-wrap:anywhere}
h2,h3,caption,.legend{break-after:avoid}svg,tr,table,.verdict,.tiles{break-inside:avoid}
.tiles div{border:1px solid var(--rule)}}
"""
