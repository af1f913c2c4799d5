"""From a user's files to a plan, and where a run keeps it.

Apart from judging and reporting, which a device never does: it must start fast.
"""

import shutil
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from dataflow.errors import MisuseError, UnderstudyError, nearest
from dataflow.plan import PLAN_FILE, Plan, read_plan
from understudy.run_folder import DEPLOYMENT_FILE, PLAN_FOLDER, PLAN_POINTER


def new_run_folder(wanted: Path | None, name: str) -> Path:
    """Return the folder for a run: `wanted`, or ``runs/NAME-DATE-TIME``.

    It is made by what is written into it first, so that a mistake in the files leaves
    no empty folder behind.

    Raises:
        MisuseError: It holds another run already.
    """
    folder = wanted or Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    if any(folder.glob("*.jsonl")):
        raise MisuseError(
            f"{folder}: holds a run already; name another with --run or delete it"
        )
    return folder.resolve()


def keep_plan(plan: Plan, folder: Path) -> None:
    """Make run folder `folder`, and note in it where its plan lies, if elsewhere.

    Raises:
        MisuseError: It cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if plan.folder != folder / PLAN_FOLDER:
            (folder / PLAN_POINTER).write_text(f"{plan.folder.resolve()}\n")
    except OSError as error:
        raise _unwritable(folder, error) from None


def _unwritable(folder: Path, error: OSError) -> MisuseError:
    return MisuseError(
        f"{folder}: cannot be written ({error.strerror}); name another folder, with "
        "room on its disk"
    )


def compile_deployment(
    path: Path,
    folder: Path,
    *,
    counts: Mapping[str, int] | None = None,
    codec: str | None = None,
    params: Mapping[str, Mapping[str, Any]] | None = None,
    listen_base: int | None = None,
    device: str | None = None,
) -> Plan:
    """Compile the deployment file `path` into the plan folder `folder`.

    A folder in place of the file is a plan already: it is read, not compiled.

    Args:
        path: The deployment file, or a plan folder.
        folder: Made if missing, but only when nothing is wrong in the files.
        counts: Device group -> devices in it, in place of the file's number.
        codec: Codec of every cut, in place of the file's.
        params: Actor -> parameters in place of the graph file's.
        listen_base: Port of the first server; the others count up from it.
        device: What the plan is wanted for; it must be in the deployment.

    Raises:
        MisuseError: No such file, plan or device, or `folder` cannot be written.
        UnderstudyError: Something in the files is wrong; all of it is said.
    """
    if path.is_dir():
        if codec is not None:
            raise MisuseError(
                f"{path}: is a plan, compiled with its codec; give the deployment file "
                f"to have it with '{codec}'"
            )
        return _plan_in(path, device)
    # Compiling needs the onnx library, which a device with a plan never imports.
    from graphs.compile import compile_plan
    from graphs.deployment_file import read_deployment

    if is_graph_file(path):
        raise UnderstudyError(
            f"{path}: is a graph file, which says what is computed; give the "
            "deployment file that says where, with `devices` and `map`"
        )
    deployment = read_deployment(
        path, counts=counts, codec=codec, params=params, listen_base=listen_base
    )
    if device is not None:
        _known(device, deployment.devices, deployment.name)
    try:
        plan = compile_plan(deployment, folder)
        copy = folder.parent / DEPLOYMENT_FILE
        if folder.name == PLAN_FOLDER and copy.resolve() != path.resolve():
            shutil.copyfile(path, copy)
    except OSError as error:
        raise _unwritable(folder, error) from None
    return plan


def is_graph_file(path: Path) -> bool:
    """Return whether the YAML file `path` is a graph file by its keys.

    Raises:
        MisuseError: No such file.
        UnderstudyError: It is not YAML.
    """
    from graphs.located_yaml import load

    keys = load(path).keys
    return "actors" in keys and "devices" not in keys and "map" not in keys


def _plan_in(folder: Path, device: str | None) -> Plan:
    if not (folder / PLAN_FILE).exists():
        raise MisuseError(
            f"{folder}: a folder without {PLAN_FILE}; give a deployment file, or a "
            "plan folder that `understudy check DEPLOYMENT --plan FOLDER` wrote"
        )
    plan = read_plan(folder)
    if device is not None:
        _known(device, plan.devices, plan.name)
    return plan


def _known(device: str, devices: Collection[str], deployment: str) -> None:
    if device not in devices:
        raise MisuseError(
            f"device '{device}': not in deployment '{deployment}'"
            f"{nearest(device, devices)}; its devices are {', '.join(devices)}"
        )
