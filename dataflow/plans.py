"""Several plans on one device: what they must agree on."""

from collections.abc import Iterable, Sequence

from dataflow.errors import MisuseError, UnderstudyError
from dataflow.plan import Plan


def check_together(plans: Sequence[Plan], name: str) -> None:
    """Check that one process can be device `name` of all of `plans`.

    Raises:
        MisuseError: It is an endpoint, or its name, its address or its keys differ: a
            process has one of each.
    """
    first, *others = plans
    spec = first.device(name)
    for index, plan in enumerate(others, start=1):
        other = plan.device(name)
        if plan.name in {before.name for before in plans[:index]}:
            raise MisuseError(
                f"deployment '{plan.name}': given twice; a device plays one of each "
                "name"
            )
        if "endpoint" in (spec.role, other.role):
            raise MisuseError(
                f"device '{name}': an endpoint in '{first.name}' or '{plan.name}'; "
                "only servers hold several plans, so start one process for each"
            )
        if other.listen != spec.listen:
            raise MisuseError(
                f"device '{name}': listens on {spec.listen} in '{first.name}', on "
                f"{other.listen} in '{plan.name}'; give it one address in both"
            )
        if plan.keys != first.keys:
            raise MisuseError(
                f"device '{name}': keys in {first.keys or 'no folder'} for "
                f"'{first.name}', in {plan.keys or 'no folder'} for '{plan.name}'; "
                "name one folder in both"
            )


def addresses_of(plans: Iterable[Plan], devices: Iterable[str]) -> dict[str, str]:
    """Return where `devices` are reached.

    Raises:
        UnderstudyError: Two plans disagree.
    """
    found: dict[str, str] = {}
    for name in devices:
        for plan in plans:
            address = plan.devices[name].address if name in plan.devices else None
            if address is not None and found.setdefault(name, address) != address:
                raise UnderstudyError(
                    f"device '{name}': at {found[name]} in one plan, at {address} in "
                    f"'{plan.name}'; rename one of the two, or give both one address"
                )
    return found
