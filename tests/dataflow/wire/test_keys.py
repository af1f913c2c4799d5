import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from dataflow.errors import MisuseError, UnderstudyError
from dataflow.wire.keys import (
    KeyFolder,
    load_keys,
    new_keys,
    retire_key,
    rotate_key,
    switch_key,
)


def test_what_was_made_is_loaded(tmp_path: Path) -> None:
    new_keys(tmp_path, "cam")
    new_keys(tmp_path, "edge")
    cam, edge = load_keys(tmp_path, "cam"), load_keys(tmp_path, "edge")
    assert len(cam.public) == len(cam.secret) == 40
    assert cam.peers == edge.peers == {"cam": (cam.public,), "edge": (edge.public,)}


def test_secret_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    public, secret = new_keys(tmp_path / "keys", "cam")
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert stat.S_IMODE(public.stat().st_mode) == 0o644
    assert stat.S_IMODE(secret.parent.stat().st_mode) == 0o700


def test_public_file_holds_no_secret(tmp_path: Path) -> None:
    public, _ = new_keys(tmp_path, "cam")
    assert load_keys(tmp_path, "cam").secret not in public.read_bytes()


@pytest.mark.parametrize("left", [".key", ".key_secret"])
def test_keys_are_never_overwritten(tmp_path: Path, left: str) -> None:
    (tmp_path / f"cam{left}").write_text("mine")
    with pytest.raises(
        MisuseError, match="there already; replace it with `understudy keys r"
    ):
        new_keys(tmp_path, "cam")
    assert (tmp_path / f"cam{left}").read_text() == "mine"


def test_folder_that_cannot_be_is_misuse(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MisuseError, match="cannot be written"):
        new_keys(tmp_path / "file", "cam")


def test_missing_secret_says_how_to_make_one(tmp_path: Path) -> None:
    text = "no secret key for device 'cam'; make one with `understudy keys new cam"
    with pytest.raises(UnderstudyError, match=text):
        load_keys(tmp_path, "cam")


def test_public_key_in_the_place_of_a_secret_is_told(tmp_path: Path) -> None:
    public, secret = new_keys(tmp_path, "cam")
    secret.write_bytes(public.read_bytes())
    with pytest.raises(UnderstudyError, match="holds no secret key; make a new pair"):
        load_keys(tmp_path, "cam")


def test_garbage_in_the_folder_is_named(tmp_path: Path) -> None:
    new_keys(tmp_path, "cam")
    (tmp_path / "edge.key").write_text("garbage")
    with pytest.raises(UnderstudyError, match=r"edge\.key: is not a ZeroMQ certif"):
        load_keys(tmp_path, "cam")


def test_both_keys_are_accepted_from_rotate_to_retire(tmp_path: Path) -> None:
    new_keys(tmp_path, "cam")
    old = load_keys(tmp_path, "cam").public
    rotate_key(tmp_path, "cam")
    ready = load_keys(tmp_path, "cam")
    assert ready.public == old
    (_, new) = ready.peers["cam"]
    switch_key(tmp_path, "cam")
    switched = load_keys(tmp_path, "cam")
    assert (switched.public, switched.peers["cam"]) == (new, (new, old))
    retire_key(tmp_path, "cam")
    assert load_keys(tmp_path, "cam").peers == {"cam": (new,)}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cam.key", "cam.key_secret"]


def test_switching_never_leaves_an_instant_without_either_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_keys(tmp_path, "cam")
    rotate_key(tmp_path, "cam")
    both = set(load_keys(tmp_path, "cam").peers["cam"])
    move = Path.replace

    def looked_at(path: Path, target: Path) -> Path:
        assert set(load_keys(tmp_path, "cam").peers["cam"]) == both
        return move(path, target)

    monkeypatch.setattr(Path, "replace", looked_at)
    switch_key(tmp_path, "cam")


def test_other_devices_switch_with_the_public_files_alone(tmp_path: Path) -> None:
    home, other = tmp_path / "home", tmp_path / "other"
    new_keys(home, "cam")
    new_keys(other, "edge")
    rotate_key(home, "cam")
    for ending in (".key", ".key_next"):
        (other / f"cam{ending}").write_bytes((home / f"cam{ending}").read_bytes())
    switch_key(home, "cam")
    switch_key(other, "cam")
    assert load_keys(other, "edge").peers["cam"] == load_keys(home, "cam").peers["cam"]
    assert not list(other.glob("cam.key_secret*"))


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (rotate_key, "no secret key of 'cam' here"),
        (switch_key, "begin with `understudy keys rotate cam`"),
        (retire_key, "nothing of 'cam' is to be retired, switch first"),
    ],
)
def test_step_out_of_order_is_misuse(
    tmp_path: Path, step: Callable[[Path, str], object], said: str
) -> None:
    with pytest.raises(MisuseError, match=said):
        step(tmp_path, "cam")


def test_second_rotation_waits_for_the_end_of_the_first(tmp_path: Path) -> None:
    new_keys(tmp_path, "cam")
    rotate_key(tmp_path, "cam")
    with pytest.raises(MisuseError, match="under way; go on with `understudy keys sw"):
        rotate_key(tmp_path, "cam")
    switch_key(tmp_path, "cam")
    with pytest.raises(MisuseError, match="under way; go on with `understudy keys re"):
        rotate_key(tmp_path, "cam")


def test_next_secret_is_for_its_owner_alone(tmp_path: Path) -> None:
    new_keys(tmp_path, "cam")
    _, secret = rotate_key(tmp_path, "cam")
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    switch_key(tmp_path, "cam")
    assert stat.S_IMODE((tmp_path / "cam.key_secret").stat().st_mode) == 0o600


def test_folder_is_read_again_only_when_a_file_in_it_changed(tmp_path: Path) -> None:
    new_keys(tmp_path, "cam")
    folder = KeyFolder(tmp_path, "cam")
    assert not folder.changed()
    new_keys(tmp_path, "edge")
    assert folder.changed()
    assert set(folder.keys.peers) == {"cam", "edge"}
    assert not folder.changed()
    (tmp_path / "edge.key").write_text('public-key = "too short"')
    with pytest.raises(UnderstudyError, match="a key of 9 characters, not 40"):
        folder.changed()
    assert not folder.changed()  # told once
    assert set(folder.keys.peers) == {"cam", "edge"}
