"""Giving a run another plan while its frames are under way."""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dataflow.errors import MisuseError, UnderstudyError
from dataflow.plan import PLAN_FILE, SEGMENTS, Plan, read_plan, write_plan
from dataflow.plans import check_follows
from understudy.launch import Tail
from understudy.plans import compile_deployment
from understudy.run_folder import LAUNCHER, plan_folder

HEARD_S = 3.0
"""How long `up` may take to notice."""
FOLLOWED_S = 120.0
"""How long endpoints may take to load a plan, and to settle the one before."""
LOOK_S = 0.02

Say = Callable[[str], None]


def switch(run_folder: Path, deployment: Path, say: Say) -> None:
    """Let the run in `run_folder` go on under `deployment`.

    Its plan is compiled, judged, and put in the place of the run's; `up` tells the
    devices. Where one refuses it, the older plan is put back.

    Args:
        run_folder: Of `understudy up`, which is running.
        deployment: A deployment file, or a plan folder: of the same streams.
        say: Prints a line.

    Raises:
        MisuseError: No such files.
        UnderstudyError: The plan cannot follow, or some device refused it.
    """
    with TemporaryDirectory() as scratch:
        switch_to(
            run_folder, compile_deployment(deployment, Path(scratch) / "plan"), say
        )


def switch_to(run_folder: Path, new: Plan, say: Say) -> None:
    """Let the run in `run_folder` go on under a compiled plan; see `switch`."""
    folder = plan_folder(run_folder)
    old = read_plan(folder)
    if new.digest == old.digest:
        raise UnderstudyError(
            f"{run_folder}: plays this plan already ({new.digest[:12]}); give "
            "another deployment of the same streams"
        )
    endpoints = _endpoints(old)
    if endpoints != _endpoints(new):
        raise UnderstudyError(
            f"{new.name}: has the endpoints {_listed(_endpoints(new))}, the run "
            f"has {_listed(endpoints)}; those of a run stay the same"
        )
    for name in endpoints:
        check_follows([old], [new], name)
    news = Tail(run_folder)
    list(news.news())
    put(new, folder)
    try:
        _wait(news, new, endpoints, say)
    except BaseException:
        write_plan(old)
        raise


def _wait(news: Tail, plan: Plan, endpoints: list[str], say: Say) -> None:
    """Wait until all endpoints play `plan` alone.

    Raises:
        UnderstudyError: Some device refused it, or nobody noticed.
    """
    waiting, heard = set(endpoints), False
    start_s = time.monotonic()
    while waiting:
        for device, event in _of_plans(news):
            heard = heard or event["event"] == "plan.told"
            if event.get("plan") == plan.digest:
                _tell(device, event, say)
            waiting -= {device} if _is_over(event) else set()
        took_s = time.monotonic() - start_s
        if not heard and took_s > HEARD_S:
            raise UnderstudyError(
                f"{news.folder}: nobody runs it; give the folder of an `understudy up` "
                "that is running"
            )
        if took_s > FOLLOWED_S:
            raise UnderstudyError(
                f"devices {_listed(waiting)}: do not play the plan after "
                f"{FOLLOWED_S:g} s; see log-*.txt in {news.folder}"
            )
        time.sleep(LOOK_S)


def _tell(device: str, event: Mapping[str, Any], say: Say) -> None:
    match event["event"]:
        case "plan.refused":
            raise UnderstudyError(
                f"device '{device}' refuses the plan: {event['error']}; the plan "
                "before is put back"
            )
        case "plan.ready":
            say(f"{device}: prepared in {event['load_ms']:.0f} ms")
        case "plan.switched":
            say(
                f"{device}: stream {event['stream']} plays it from frame "
                f"{event['frame']} on"
            )


def _is_over(event: Mapping[str, Any]) -> bool:
    return event["event"] in ("plan.settled", "device.stopped", "device.failed")


def _of_plans(news: Tail) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield (device, event) of what is said of plans, and of ends."""
    for file, record in news.news():
        if str(record.get("event", "")).startswith(("plan.", "device.")):
            name = file.removesuffix(".jsonl").partition("-")[2]
            yield name if name == LAUNCHER else name.rpartition("-")[0], record


def put(plan: Plan, folder: Path) -> None:
    """Put a plan in the place of another one, whose segments stay.

    Raises:
        MisuseError: There is no room, or no right to write.
    """
    try:
        (folder / SEGMENTS).mkdir(parents=True, exist_ok=True)
        for path in sorted((plan.folder / SEGMENTS).glob("*.onnx")):
            if not (folder / SEGMENTS / path.name).exists():
                partial = folder / SEGMENTS / f"{path.name}.partial-switch"
                shutil.copyfile(path, partial)
                partial.replace(folder / SEGMENTS / path.name)
        write_plan(replace(plan, folder=folder))  # last: it is what others look for
    except OSError as error:
        raise MisuseError(
            f"{folder / PLAN_FILE}: cannot be written ({error.strerror}); make room, "
            "or switch as the user who started the run"
        ) from None


def _endpoints(plan: Plan) -> list[str]:
    return sorted(d.name for d in plan.devices.values() if d.role == "endpoint")


def _listed(names: "set[str] | list[str]") -> str:
    return ", ".join(sorted(names))
