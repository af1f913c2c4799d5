"""`understudy draw`: a deployment, a graph or a plan as a picture."""

import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from dataflow.errors import MisuseError, UnderstudyError, nearest
from dataflow.graph import Graph
from understudy.picture_svg import svg
from understudy.picture_text import dot, mermaid
from understudy.pictures import Picture, picture
from understudy.plans import compile_deployment, is_graph_file

FORMATS: Mapping[str, Callable[[Picture], str]] = {
    "svg": svg,
    "mermaid": mermaid,
    "dot": dot,
}
_SUFFIXES = {".svg": "svg", ".mmd": "mermaid", ".dot": "dot", ".gv": "dot"}


def draw(
    path: Path,
    kind: str = "svg",
    modes: Iterable[str] = (),
    failed: Iterable[str] = (),
) -> str:
    """Return the picture of what the file `path` holds, sound or not.

    Args:
        path: A graph file, an SDF3 file, a deployment or a plan folder.
        kind: One of `FORMATS`.
        modes: ``DPG=MODE`` texts; what is off in these modes is drawn in grey.
        failed: Devices; what they take with them is drawn in grey.

    Raises:
        MisuseError: No such file, DPG, mode or device.
        UnderstudyError: The file cannot be read.
    """
    return FORMATS[kind](picture(_graph(path), modes, failed))


def _graph(path: Path) -> Graph:
    if path.suffix == ".xml":
        from graphs.sdf3 import read_sdf3

        return read_sdf3(path)
    if path.is_dir():
        with tempfile.TemporaryDirectory() as folder:
            return compile_deployment(path, Path(folder)).graph
    if is_graph_file(path):
        from graphs.graph_file import read_graph

        return read_graph(path).undivided
    from graphs.deployment_file import read_deployment
    from graphs.expand import expand

    return expand(read_deployment(path))


def format_for(out: Path | None, wanted: str | None) -> str:
    """Return the format: the wanted one, or that of the file's ending, or SVG.

    Raises:
        MisuseError: The ending is of no format.
    """
    if wanted is not None:
        return wanted
    if out is None or str(out) == "-":
        return "svg"
    if (kind := _SUFFIXES.get(out.suffix)) is None:
        raise MisuseError(
            f"{out}: ending '{out.suffix}' is of no format"
            f"{nearest(out.suffix, _SUFFIXES)}; write {', '.join(_SUFFIXES)}, or give "
            "--format"
        )
    return kind


def default_file(path: Path, kind: str) -> Path:
    """Return ``NAME.svg`` for ``anywhere/NAME.yaml``: in the working folder."""
    suffix = next(suffix for suffix, known in _SUFFIXES.items() if known == kind)
    stem = path.resolve().name if path.is_dir() else path.stem
    return Path(f"{stem}{suffix}")


def write(out: Path, text: str) -> None:
    """Write a picture to the file `out`.

    Raises:
        MisuseError: No such folder.
        UnderstudyError: It cannot be written.
    """
    if out.is_dir() or not out.absolute().parent.is_dir():
        what = "is a folder" if out.is_dir() else f"no folder {out.absolute().parent}"
        raise MisuseError(f"{out}: {what}; name another file with -o")
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UnderstudyError(
            f"{out}: cannot be written ({error.strerror}); name another file with -o"
        ) from None
