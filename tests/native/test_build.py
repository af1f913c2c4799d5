import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHOW = "import native; print(native.IMPLEMENTATION); print(native.fallback_reason)"


def python(code, **environment):
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout.splitlines()


def test_environment_forces_the_reference():
    implementation, reason = python(SHOW, UNDERSTUDY_NATIVE="reference")
    assert implementation == "NumPy reference"
    assert reason == "UNDERSTUDY_NATIVE=reference"


def test_missing_extension_falls_back_and_says_so():
    code = "import sys; sys.modules['native._kernels'] = None; " + SHOW
    implementation, reason = python(code, UNDERSTUDY_NATIVE="")
    assert implementation == "NumPy reference"
    assert reason.startswith("no C extension: ")


@pytest.fixture
def checkout(tmp_path):
    """Return a copy of what the extension is built from."""
    ignored = shutil.ignore_patterns("_kernels*", "__pycache__")
    shutil.copytree(ROOT / "native", tmp_path / "native", ignore=ignored)
    shutil.copy(ROOT / "setup.py", tmp_path)
    return tmp_path


def build(checkout, *command, **environment):
    return subprocess.run(
        [sys.executable, *command],
        cwd=checkout,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_failing_compiler_does_not_fail_the_installation(checkout):
    run = build(checkout, "setup.py", "build_ext", "--inplace", CC="/bin/false")
    assert run.returncode == 0, run.stderr
    assert not list(checkout.glob("native/_kernels*.so"))


def test_failing_compiler_fails_the_development_build(checkout):
    run = build(checkout, "native/build.py", CC="/bin/false")
    assert run.returncode != 0


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler here")
def test_development_build_leaves_the_extension_and_nothing_else(checkout):
    before = set(checkout.rglob("*"))
    run = build(checkout, "native/build.py")
    assert run.returncode == 0, run.stderr
    assert "warning" not in run.stderr
    made = {path.name.split(".")[0] for path in set(checkout.rglob("*")) - before}
    assert made == {"_kernels"}
