"""A profile as a terminal shows it: the whole, and the cuts that were measured."""

from understudy.profile_file import CutTime, LinkProfile, Profile

_WIDTH_MAX = 44


def profile_text(profile: Profile) -> str:
    """Return a short table; the file has all of it."""
    whole, noise = profile.whole, profile.noise
    paced, added = profile.paced, profile.runtime
    busy = ": too busy, measure again when it rests" if noise.flagged else ""
    threads = f"{profile.session.threads} thread"
    if profile.session.threads > 1:
        threads += "s"
    lines = [
        f"{profile.model.file} on {profile.device}: {profile.machine['processor']}, "
        f"{threads}",
        f"whole    {whole.min_ms:.3f} ms at least (p50 {whole.p50_ms:.3f}, p95 "
        f"{whole.p95_ms:.3f}; {profile.rounds} rounds)",
        f"noise    p90 {noise.p90_over_min:.2f} x the least of a fixed product{busy}",
        f"memory   session {profile.memory.session_mb:.0f} MB, "
        f"peak of the process {profile.memory.peak_mb:.0f} MB",
        f"paced    {paced.slower:.2f} x the least, and {paced.start_ms:.2f} ms for a "
        f"start, within {100 * paced.error:.0f} %",
        f"runtime  adds {added.frame_ms:.2f} ms to a frame, {added.message_ms:.2f} at "
        f"each end of a message, {added.hand_off_ms:.2f} to a long computation",
        _boundary(profile.boundary_ms),
    ]
    measured = [cut for cut in profile.cuts if cut.source == "measured"]
    if measured:
        lines += ["", f"{'measured cut':{_WIDTH_MAX}}{'head ms':>10}{'tail ms':>10}"]
        lines += map(_row, measured)
    others = [cut for cut in profile.cuts if cut.source != "measured"]
    lines += ["", f"{len(others)} more cuts predicted; all in {profile.seconds:.1f} s"]
    return "".join(f"{line}\n" for line in lines)


def _boundary(ms: float) -> str:
    """Return what head and tail take more than the whole."""
    if ms <= 0:
        return "cut      adds nothing that can be measured"
    return f"cut      adds {ms:.3f} ms (median of those measured)"


def link_text(link: LinkProfile) -> str:
    """Return a link in a few lines."""
    return (
        f"link     {link.link}\n"
        f"there    {link.there_mbit_s:.1f} Mbit/s\n"
        f"back     {link.back_mbit_s:.1f} Mbit/s\n"
        f"trip     {link.rtt_ms:.2f} ms both ways, jitter {link.jitter_ms:.2f} ms\n"
    )


def _row(cut: CutTime) -> str:
    name = ", ".join(cut.tensors)
    if len(name) > _WIDTH_MAX - 2:
        name = f"…{name[3 - _WIDTH_MAX :]}"
    return f"{name:{_WIDTH_MAX}}{cut.head_ms:>10.3f}{cut.tail_ms:>10.3f}"
