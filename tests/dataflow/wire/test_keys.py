import stat
from pathlib import Path

import pytest

from dataflow.errors import MisuseError, UnderstudyError
from dataflow.wire.keys import load_keys, new_keys


def test_what_was_made_is_loaded(tmp_path: Path) -> None:
    new_keys(tmp_path, "cam")
    new_keys(tmp_path, "edge")
    cam, edge = load_keys(tmp_path, "cam"), load_keys(tmp_path, "edge")
    assert len(cam.public) == len(cam.secret) == 40
    assert cam.peers == edge.peers == {"cam": cam.public, "edge": edge.public}


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
    with pytest.raises(MisuseError, match="there already; delete both files of 'cam'"):
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
