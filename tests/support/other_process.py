"""A process that runs ONNX files for a test, and gives back what they make.

    python -m tests.support.other_process

Questions and answers are pickled, on its standard input and output.
"""

import pickle
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from actors.trial import Array, open_session, run

Arrays = Mapping[str, Array]


class OtherProcess:
    """Runs models; made by `other_process`."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdin
        assert process.stdout
        self._to, self._from = process.stdin, process.stdout

    def run(self, path: Path, given: Arrays, *, optimised: bool) -> Arrays:
        """Return the outputs of the model in a file."""
        pickle.dump((path, dict(given), optimised), self._to)
        self._to.flush()
        made: Arrays = pickle.load(self._from)
        return made


@contextmanager
def other_process() -> Iterator[OtherProcess]:
    command = [sys.executable, "-m", "tests.support.other_process"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        yield OtherProcess(process)  # leaving closes its input, which ends it


def _answer() -> None:
    while True:
        try:
            path, given, optimised = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        made = run(open_session(path, optimised=optimised), given)
        pickle.dump(made, sys.stdout.buffer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    _answer()
