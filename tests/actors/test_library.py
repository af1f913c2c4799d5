import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from actors import LIBRARY, behaviour
from dataflow.behaviour import Behaviour
from dataflow.errors import UnderstudyError

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_actor"


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """Return a function that writes modules which can be imported."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(name, source):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))

    return write


@pytest.mark.parametrize("name", LIBRARY)
def test_every_library_name_is_an_actor(name):
    assert issubclass(behaviour(name), Behaviour)


def test_own_class_is_found_by_module_and_name(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLE)
    assert behaviour("own_actor:Contrast").__name__ == "Contrast"


def test_installed_package_adds_a_name(tmp_path, modules):
    modules(
        "understudy_extra",
        """
        from dataflow.behaviour import Behaviour
        class Extra(Behaviour): ...
        """,
    )
    info = tmp_path / "understudy_extra-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: understudy-extra\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[understudy.actors]\nextra = understudy_extra:Extra\n"
    )
    assert behaviour("extra").__name__ == "Extra"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "imges",
            r"actor type 'imges': unknown \(did you mean 'images'\?\); known are",
        ),
        ("", "actor type '': unknown"),
        (":Thing", "not of the form package.module:Class"),
        ("thing:", "not of the form package.module:Class"),
        ("..up:Thing", "importing '..up' raised TypeError"),
        ("nowhere.at_all:Thing", "no module 'nowhere' on the import path; install"),
        ("broken_actor:Thing", "importing 'broken_actor' raised ZeroDivisionError"),
        ("needy_actor:Thing", "needs module 'nowhere', which is not installed"),
        (
            "good_actor:Ralx",
            r"no class 'Ralx' \(did you mean 'Relax'\?\); its actors are",
        ),
        ("good_actor:Plain", "'Plain' is not an actor; make it a subclass"),
        ("good_actor:text", "'text' is not an actor"),
    ],
)
def test_wrong_type_name_is_told(modules, name, message):
    modules("broken_actor", "1 / 0")
    modules("needy_actor", "import nowhere")
    modules(
        "good_actor",
        """
        from dataflow.behaviour import Behaviour as _Behaviour
        class Relax(_Behaviour): ...
        class Plain: ...
        text = "Relax"
        """,
    )
    with pytest.raises(UnderstudyError, match=message):
        behaviour(name)


def test_importing_the_library_loads_neither_numpy_nor_onnxruntime():
    program = (
        "import sys\nfrom actors import LIBRARY, behaviour\n"
        "assert not {'numpy', 'onnxruntime', 'PIL'} & set(sys.modules)\n"
        "for name in LIBRARY: behaviour(name)\n"
        "assert not {'onnxruntime', 'PIL', 'onnx'} & set(sys.modules)\n"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", program], check=True, cwd=root)
