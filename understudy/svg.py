"""A matplotlib figure as SVG text that takes its colours and letters from a page."""

import io
import re
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, FAINT, PAPER = "#010203", "#040506", "#fdfeff"
"""Stand-ins that `svg_text` turns into the page's own colours."""


class Plot:
    """A matplotlib figure of a size in CSS pixels, without any global state kept."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height

    def __enter__(self) -> "Plot":
        from matplotlib.figure import Figure

        self._style = _style()
        self._style.__enter__()
        # One point of the figure is one unit of the SVG's view box: one CSS pixel.
        self.figure = Figure(figsize=(self.width / 72, self.height / 72))
        return self

    def __exit__(self, *error: object) -> None:
        self._style.__exit__(None, None, None)

    def axes_at(
        self, *, left: float, right: float, bottom: float, top: float
    ) -> "Axes":
        """Add axes with these margins, in CSS pixels."""
        w, h = self.width, self.height
        return self.figure.add_axes(
            (left / w, bottom / h, (w - left - right) / w, (h - bottom - top) / h)
        )

    def text(self, name: str) -> str:
        """Return the plot as an element for a page, in the page's colours."""
        buffer = io.StringIO()
        with _style():
            self.figure.savefig(
                buffer, format="svg", transparent=True, metadata={"Date": None}
            )
        return svg_text(buffer.getvalue(), f"{name}{self.width}", self.width)

    def pdf(self) -> bytes:
        """Return the plot as a PDF file, for a paper; the same plot, the same bytes."""
        buffer = io.BytesIO()
        with _style():
            self.figure.savefig(buffer, format="pdf", metadata={"CreationDate": None})
        return buffer.getvalue()


def _style() -> AbstractContextManager[None]:
    import matplotlib as mpl

    return mpl.rc_context(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "understudy",
            "pdf.fonttype": 42,
            "path.simplify": False,
            "font.size": 10.5,
            "text.color": INK,
            "axes.edgecolor": FAINT,
            "axes.labelcolor": INK,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.facecolor": "none",
            "xtick.color": FAINT,
            "ytick.color": FAINT,
            "xtick.labelcolor": INK,
            "ytick.labelcolor": INK,
        }
    )


def document(svg: str) -> str:
    """Return what `Plot.text` gave as a file of its own: dark ink on white paper."""
    svg = svg.replace("currentColor", "#1b1f24")
    svg = svg.replace("var(--faint)", "#9aa4ae").replace("var(--paper)", "#fff")
    style = "<style>text{font-family:sans-serif!important}</style>"
    paper = '<rect width="100%" height="100%" fill="#fff"/>'
    head, end, rest = svg.partition(">")
    return f"{head}{end}{style}{paper}{rest}"


def svg_text(document: str, name: str, width: int) -> str:
    """Return the SVG element of `document`, its names made unique within a page."""
    svg = document[document.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r"url\(#", f"url(#{name}-", svg)
    svg = re.sub(r'href="#', f'href="#{name}-', svg)
    svg = re.sub(r' width="[\d.]+pt"', f' width="{width}"', svg, count=1)
    svg = re.sub(r' height="[\d.]+pt"', "", svg, count=1)
    svg = svg.replace(INK, "currentColor").replace(FAINT, "var(--faint)")
    return svg.replace(PAPER, "var(--paper)")
