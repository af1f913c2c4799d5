import platform
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
NATIVE = HERE.parents[1] / "native"
FLAGS = [
    *["-std=c11", "-Wall", "-Wextra", "-Wno-pass-failed", "-Werror"],
    *["-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fopenmp-simd"],
    f"-I{NATIVE}",
]
SANITIZERS = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


def compiled(tmp_path, compiler, *arguments):
    """Return the program, or skip where the compiler or a library is missing."""
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler} here")
    hello = tmp_path / "hello.c"
    hello.write_text("int main(void) { return 0; }\n")
    program = tmp_path / "program"
    options = [argument for argument in arguments if argument.startswith("-")]
    tried = subprocess.run(
        [compiler, *options, hello, "-o", program], capture_output=True, check=False
    )
    if tried.returncode != 0:
        pytest.skip(f"{compiler} cannot build with {' '.join(options)}")
    subprocess.run([compiler, *FLAGS, *arguments, "-o", program, "-lm"], check=True)
    return program


def kernels_and_harness():
    return [str(path) for path in (HERE / "harness.c", *sorted(NATIVE.glob("[!_]*.c")))]


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_levels_agree_under_sanitizers(tmp_path, compiler):
    program = compiled(tmp_path, compiler, *SANITIZERS, *kernels_and_harness())
    run = subprocess.run([program], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.slow
@pytest.mark.parametrize("compiler", ["musl-gcc", "aarch64-linux-gnu-gcc"])
def test_levels_agree_elsewhere(tmp_path, compiler):
    program = compiled(tmp_path, compiler, "-O2", "-static", *kernels_and_harness())
    command = [program]
    if "aarch64" in compiler and platform.machine() != "aarch64":
        if shutil.which("qemu-aarch64-static") is None:
            pytest.skip("no qemu-aarch64-static here")
        command = ["qemu-aarch64-static", program]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("step", ["1001", pytest.param("1", marks=pytest.mark.slow)])
def test_newton_quotient_rounds_as_the_division(tmp_path, step):
    options = ["-mavx2", "-mfma"] if platform.machine() == "x86_64" else []
    if options and "fma" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("no fused multiply-add here")
    program = compiled(tmp_path, "gcc", "-O3", *options, str(HERE / "division.c"))
    run = subprocess.run([program, step], capture_output=True, text=True, check=False)
    assert run.stdout == "0 differences\n"
