"""Build the C extension `native._kernels` (cffi, API mode).

setuptools finds `ffibuilder` through `setup.py`; there the extension is optional, and
an installation without a C compiler ends with the NumPy reference. Run as a script,
this file builds in place for development and fails if the compiler does:

    python native/build.py
"""

import shutil
import tempfile
from pathlib import Path

import cffi

FAMILIES = ("dispatch", "quantise", "float16", "normalise")

# -ffast-math is missing on purpose: linking with it sets flush-to-zero in the thread
# that loads the extension. Contraction is off so that results do not depend on the CPU;
# kernels that want a fused multiply-add ask for it. C without errno and traps lets
# comparisons and rounding be vectorised, and changes no result. `omp simd` needs no
# OpenMP run time. Clang remarks on loops that it leaves scalar; the tests judge that.
COMPILE_ARGS = [
    "-std=c11",
    "-O3",
    "-Wall",
    "-Wextra",
    "-Wno-pass-failed",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fopenmp-simd",
]


def declarations(header: Path) -> str:
    """Return what stands between the `cdef` markers of a header."""
    text = header.read_text(encoding="utf-8")
    return text.split("/* cdef: begin */")[1].split("/* cdef: end */")[0]


def builder(folder: Path, *, optional: bool) -> cffi.FFI:
    """Return the cffi builder for the sources in `folder`.

    Args:
        folder: This package; relative to `setup.py` when setuptools builds, since it
            takes no absolute source paths.
        optional: Whether a failing compiler only prints a warning.
    """
    here = Path(__file__).resolve().parent
    headers = [here / f"{name}.h" for name in FAMILIES]
    ffi = cffi.FFI()
    for header in headers:
        ffi.cdef(declarations(header))
    ffi.set_source(
        "native._kernels",
        "".join(f'#include "{header.name}"\n' for header in headers),
        sources=[(folder / f"{name}.c").as_posix() for name in FAMILIES],
        depends=[(folder / f"{name}.h").as_posix() for name in FAMILIES],
        include_dirs=[folder.as_posix()],
        extra_compile_args=COMPILE_ARGS,
        optional=optional,
    )
    return ffi


def build_in_place() -> Path:
    """Compile in a temporary folder and move the extension beside this file."""
    here = Path(__file__).resolve().parent
    with tempfile.TemporaryDirectory() as folder:
        built = builder(here, optional=False).compile(tmpdir=folder)
        # Moving, not writing: a process that has the old file mapped keeps it.
        beside = here / (Path(built).name + ".new")
        shutil.copy(built, beside)
        return beside.replace(here / Path(built).name)


ffibuilder = builder(Path("native"), optional=True)

if __name__ == "__main__":
    print(build_in_place())
