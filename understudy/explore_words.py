"""What the words of an exploration's options mean: links, power, weights, limits."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path

from dataflow.errors import MisuseError, nearest
from understudy.candidates import CODECS, LOSSLESS, Device
from understudy.costs import OBJECTIVES, Exit, Link, Power
from understudy.explore_subject import Subject
from understudy.profile_file import read_link_profile, read_profile
from understudy.summary import three_digits

_NUMBER = r"\d+(?:\.\d*)?|\.\d+"
_RATE = re.compile(
    rf"(?P<there>{_NUMBER})(?:/(?P<back>{_NUMBER}))?(?P<unit>[kmg])bit(?:/s)?", re.I
)
_TIME = re.compile(rf"(?P<ms>{_NUMBER})ms", re.I)
_UNITS = {"k": 1e-3, "m": 1.0, "g": 1e3}
_WATTS = re.compile(rf"(?P<value>{_NUMBER})(?P<unit>m?)W")
_MEMORY = re.compile(rf"(?:(?P<side>endpoint|server)=)?(?P<mb>{_NUMBER})(?:MB)?", re.I)
SIDES = ("endpoint", "server")


def parse_link(text: str) -> Link:
    """Return the link that `text` says: rate and round trip, or a measured profile.

    Raises:
        MisuseError: It says neither.

    >>> link = parse_link("wifi=2/20mbit,5ms")
    >>> link.name, link.there_mbit_s, link.back_mbit_s, link.rtt_ms
    ('wifi', 2.0, 20.0, 5.0)
    """
    name, equals, words = text.rpartition("=")
    rate, _, trip = words.partition(",")
    found, time = _RATE.fullmatch(rate.strip()), _TIME.fullmatch(trip.strip() or "0ms")
    if found is None and Path(text).suffix == ".json":
        profile = read_link_profile(Path(text))
        return Link(
            profile.link, profile.there_mbit_s, profile.back_mbit_s, profile.rtt_ms,
            profile.jitter_ms, measured=True,
        )  # fmt: skip
    if found is None or time is None:
        raise MisuseError(
            f"link '{text}': write a rate and a round trip, as 16mbit,5ms or "
            "wifi=2/20mbit,30ms, or name a file of `understudy profile --link`"
        )
    unit = _UNITS[found["unit"].lower()]
    there = float(found["there"]) * unit
    back = float(found["back"]) * unit if found["back"] else there
    if not there or not back:
        raise MisuseError(f"link '{text}': a rate of 0 carries nothing; give a higher")
    return Link(name if equals else text, there, back, float(time["ms"]))


def link_text(link: Link) -> str:
    """Return a link with its rates and its round trip.

    >>> link_text(Link("wan", 2.0, 50.0, 30.0))
    'wan: 2 Mbit/s there, 50 Mbit/s back, round trip 30 ms'
    >>> link_text(Link("16mbit", 16.0, 16.0, 0.0))
    '16mbit: 16 Mbit/s, round trip 0 ms assumed'
    """
    rates = rate_text(link.there_mbit_s)
    if link.back_mbit_s != link.there_mbit_s:
        rates += f" there, {rate_text(link.back_mbit_s)} back"
    assumed = "" if link.rtt_ms or link.measured else " assumed"
    return f"{link.name}: {rates}, round trip {link.rtt_ms:g} ms{assumed}"


def rate_text(mbit_s: float) -> str:
    """Return a rate with three digits, in the unit that suits it.

    >>> rate_text(0.25), rate_text(15.52), rate_text(16432.0)
    ('250 kbit/s', '15.5 Mbit/s', '16.4 Gbit/s')
    """
    for unit, of in (("Gbit/s", 1e3), ("Mbit/s", 1.0)):
        if mbit_s >= of:
            return f"{three_digits(mbit_s / of)} {unit}"
    return f"{three_digits(mbit_s * 1e3)} kbit/s"


def parse_power(text: str) -> Power:
    """Return the power figures in `text`.

    >>> parse_power("endpoint=3.5W,idle=1.2W,radio=800mW")
    Power(endpoint_w=3.5, idle_w=1.2, radio_w=0.8, server_w=None)
    """
    names = [field.name.removesuffix("_w") for field in fields(Power)]
    given: dict[str, float] = {}
    for entry in text.split(","):
        name, _, watts = entry.strip().partition("=")
        found = _WATTS.fullmatch(watts)
        if name not in names or found is None:
            raise MisuseError(
                f"power '{entry.strip()}': write endpoint=3.5W,idle=1.2W,radio=0.8W; "
                f"known are {', '.join(names)}"
            )
        given[f"{name}_w"] = float(found["value"]) * (1e-3 if found["unit"] else 1.0)
    return Power(**given)


def parse_weights(text: str) -> dict[str, float]:
    """Return the weights in `text`; a name alone weighs 1.

    >>> parse_weights("latency=1,bytes=0.2")
    {'latency': 1.0, 'bytes': 0.2}
    """
    weights = {}
    for entry in text.split(","):
        name, equals, number = entry.strip().partition("=")
        if name not in OBJECTIVES:
            raise MisuseError(
                f"objective '{name}': not known{nearest(name, OBJECTIVES)}; "
                f"there are {', '.join(OBJECTIVES)}"
            )
        if equals and not re.fullmatch(_NUMBER, number):
            raise MisuseError(
                f"objective '{entry.strip()}': the weight is not a number of at least "
                "0; write latency=1,bytes=0.2"
            )
        weights[name] = float(number) if equals else 1.0
    if not any(weights.values()):
        raise MisuseError(
            f"objective '{text}': all weights are 0; give one that is not"
        )
    return weights


def parse_codecs(text: str) -> tuple[str, ...]:
    """Return the codecs that may be used.

    >>> parse_codecs("lossless"), parse_codecs("int8")
    (('none', 'lz4', 'zstd'), ('int8',))
    """
    if text == "any":
        return CODECS
    if text == "lossless":
        return LOSSLESS
    if text not in CODECS:
        raise MisuseError(
            f"codec '{text}': not known{nearest(text, CODECS)}; use lossless, any, or "
            f"one of {', '.join(CODECS)}"
        )
    return (text,)


def parse_memory(texts: Iterable[str]) -> dict[str, float]:
    """Return side -> MB; without a side the endpoint is meant.

    >>> parse_memory(["64MB", "server=512"])
    {'endpoint': 64.0, 'server': 512.0}
    """
    limits = {}
    for text in texts:
        found = _MEMORY.fullmatch(text)
        if found is None:
            raise MisuseError(f"memory '{text}': write 64MB, or server=512MB")
        limits[(found["side"] or "endpoint").lower()] = float(found["mb"])
    return limits


def parse_pins(texts: Iterable[str]) -> dict[str, str]:
    """Return node -> device of ``NODE=DEVICE``.

    >>> parse_pins(["/conv1/Conv=endpoint"])
    {'/conv1/Conv': 'endpoint'}
    """
    pins = {}
    for text in texts:
        node, equals, device = text.rpartition("=")
        if not (node and equals and device):
            raise MisuseError(f"pin '{text}': write NODE=endpoint or NODE=server")
        pins[node] = device
    return pins


def read_devices(
    profiles: Mapping[str, Path], factors: Mapping[str, float]
) -> list[Device]:
    """Return the devices with their profiles.

    Args:
        profiles: Name of the device -> its profile; the order of the chain.
        factors: Name -> how much slower than its profile it is taken to be.
    """
    return [
        Device(
            name,
            str(path),
            read_profile(path),
            factors.get(name, 1.0),
            f"modelled: the profile x {factors[name]:g}" if name in factors else "",
        )
        for name, path in profiles.items()
    ]


def early_exit(
    subject: Subject, share: float | None, ms: float | None, endpoint: Device
) -> Exit | None:
    """Return the early exit of what is explored, if it has one.

    Args:
        subject: What is explored.
        share: Of the frames that it answers; None: not known, taken for none.
        ms: That it takes; None: see `understudy.exit_time`.
        endpoint: Where it runs.

    Raises:
        MisuseError: A share is given for what has no exit.
    """
    if share is None and not subject.exit_tensor:
        return None
    if not subject.exit_tensor:
        raise MisuseError(
            f"--exit-share: {subject.model.where} has no early exit; explore a graph "
            "file with `exits`"
        )
    if ms is None:
        from understudy.exit_time import exit_ms

        ms = exit_ms(subject, endpoint.profile) * endpoint.factor
    return Exit(subject.exit_tensor, share or 0.0, ms)
