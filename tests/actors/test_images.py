import sys

import numpy as np
import pytest
from PIL import Image

from actors import pictures
from actors.images import Images
from dataflow.behaviour import StreamEnd
from dataflow.errors import UnderstudyError

RATE = {"rate_hz": 25}
PIXELS = np.arange(5 * 4 * 3 * 2, dtype=np.uint8).reshape(5, 4, 3, 2)


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "pictures.npz"
    np.savez_compressed(path, x=PIXELS, y=np.arange(10, 15, dtype=np.uint8))
    return path


def started(site, path, **params):
    camera = Images({"path": str(path), **RATE, **params}, site)
    camera.start()
    return camera


def colour(path, size=(4, 3), mode="RGB", value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)


def test_archive_with_labels_has_two_ports(archive):
    frame, label = Images.ports({"path": str(archive), **RATE})
    assert (frame.name, str(frame.token)) == ("frame", "uint8[4,3,2]")
    assert (label.name, str(label.token), label.optional) == ("label", "int64[]", True)


def test_archive_without_labels_or_channels_has_one_port(tmp_path, site):
    path = tmp_path / "grey.npz"
    np.savez(path, x=PIXELS[..., 0])
    (frame,) = Images.ports({"path": str(path), **RATE})
    assert str(frame.token) == "uint8[4,3,1]"
    np.testing.assert_array_equal(started(site, path).fire(), PIXELS[0, :, :, :1])


def test_ports_read_the_header_and_not_the_pixels(tmp_path):
    path = tmp_path / "huge.npz"
    np.savez_compressed(path, x=np.zeros((4000, 100, 100, 1), np.uint8))
    packed = path.read_bytes()
    path.write_bytes(packed[:500] + b"\xff" * 20000 + packed[20500:])
    assert Images.ports({"path": str(path), **RATE})
    with pytest.raises(UnderstudyError, match=r"huge\.npz: cannot be read"):
        pictures.load(pictures.look(path))


def test_pictures_come_in_order_and_start_again(archive, site):
    camera = started(site, archive)
    shown = [camera.fire() for _ in range(7)]
    np.testing.assert_array_equal([f for f, _ in shown], PIXELS[[0, 1, 2, 3, 4, 0, 1]])
    assert [int(label) for _, label in shown] == [10, 11, 12, 13, 14, 10, 11]
    assert all(
        (label.dtype, label.shape, type(label)) == (np.int64, (), np.ndarray)
        for _, label in shown
    )
    assert camera.rate_hz == 25.0


def test_pictures_cannot_be_written_to(archive, site):
    frame, _ = started(site, archive).fire()
    assert not frame.flags.writeable


@pytest.mark.parametrize(
    ("params", "frames"),
    [({"loop": False}, 5), ({"frames": 7}, 7), ({"loop": False, "frames": 3}, 3)],
)
def test_stream_ends_after_its_last_frame(archive, site, params, frames):
    camera = started(site, archive, **params)
    for _ in range(frames):
        camera.fire()
    for _ in range(2):
        with pytest.raises(StreamEnd):
            camera.fire()


def test_shuffled_order_shows_all_and_is_the_same_again(archive, site):
    first, second = (started(site, archive, order="shuffled", seed=3) for _ in range(2))
    labels = [int(first.fire()[1]) for _ in range(10)]
    assert labels == [int(second.fire()[1]) for _ in range(10)]
    assert sorted(labels[:5]) == list(range(10, 15)) != labels[:5]
    assert labels[:5] == labels[5:]


def test_folder_shows_its_files_by_name(tmp_path, site):
    for name, value in (("b.png", 2), ("a.bmp", 1), ("c.PNG", 3)):
        colour(tmp_path / "set" / name, mode="L", value=value)
    (tmp_path / "set" / "notes.txt").write_text("not a picture")
    (port,) = Images.ports({"path": str(tmp_path / "set"), **RATE})
    assert str(port.token) == "uint8[3,4,1]"
    camera = started(site, tmp_path / "set")
    assert [int(camera.fire()[0, 0, 0]) for _ in range(4)] == [1, 2, 3, 1]


def test_folders_in_a_folder_are_labels(tmp_path, site):
    for name in ("truck/1.png", "car/7.png", "car/8.png"):
        colour(tmp_path / "set" / name)
    camera = started(site, tmp_path / "set")
    assert [int(camera.fire()[1]) for _ in range(3)] == [0, 0, 1]


def test_large_folder_is_decoded_picture_by_picture(tmp_path, site, monkeypatch):
    monkeypatch.setattr(pictures, "PRELOAD_BYTES", 10)
    for value in range(3):
        colour(tmp_path / "set" / f"{value}.png", value=(value, 5, 6))
    camera = started(site, tmp_path / "set")
    shown = [camera.fire() for _ in range(4)]
    assert [tuple(f[0, 0]) for f in shown] == [(n, 5, 6) for n in (0, 1, 2, 0)]


def test_pictures_of_two_sizes_are_refused(tmp_path, site):
    colour(tmp_path / "set" / "a.png")
    colour(tmp_path / "set" / "b.png", size=(5, 3))
    with pytest.raises(UnderstudyError, match=r"b\.png: is 5x3, the first .* is 4x3"):
        started(site, tmp_path / "set")


def test_folder_without_pillow_says_what_to_install(tmp_path, monkeypatch):
    colour(tmp_path / "set" / "a.png")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(UnderstudyError, match="pip install pillow"):
        pictures.look(tmp_path / "set")


def test_folder_that_is_no_set_of_pictures_is_refused(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    with pytest.raises(UnderstudyError, match=r"set: holds no image; looked for \.bmp"):
        pictures.look(folder)
    (folder / "a.png").write_bytes(b"no png")
    with pytest.raises(UnderstudyError, match=r"a\.png: cannot be read as pictures"):
        pictures.look(folder)
    colour(folder / "car" / "a.png")
    with pytest.raises(UnderstudyError, match=r"'a\.png', 'car/'\); keep either"):
        pictures.look(folder)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": PIXELS}, "holds images and no 'x'"),
        ({"x": PIXELS.astype(np.float32)}, r"x is float32\[5, 4, 3, 2\]; it must be"),
        ({"x": PIXELS[0, 0]}, r"x is uint8\[3, 2\]"),
        ({"x": PIXELS[:0]}, r"x is uint8\[0, 4, 3, 2\]"),
        ({"x": PIXELS, "y": np.arange(4)}, r"y is int64\[4\]; it must hold 5 integers"),
        ({"x": PIXELS, "y": np.ones(5)}, r"y is float64\[5\]"),
        ({"x": PIXELS, "y": np.array([None] * 5)}, r"y is object\[5\]"),
    ],
)
def test_archive_of_something_else_is_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "p.npz", **arrays)
    with pytest.raises(UnderstudyError, match=message):
        Images.ports({"path": str(tmp_path / "p.npz"), **RATE})


def test_what_is_no_archive_is_refused(tmp_path):
    with pytest.raises(UnderstudyError, match=r"none\.npz: no such file; name an"):
        Images.ports({"path": str(tmp_path / "none.npz"), **RATE})
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(UnderstudyError, match=r"text\.npz: cannot be read"):
        Images.ports({"path": str(tmp_path / "text.npz"), **RATE})


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"rate_hz": 0}, "'rate_hz': 0 is not a number above 0"),
        ({"rate_hz": float("inf")}, "'rate_hz': inf is not a number"),
        ({"rate_hz": True}, "'rate_hz': True is not a number"),
        ({"loop": "no"}, "'loop': 'no' is not true or false"),
        ({"frames": 0}, "'frames': 0 is not a whole number of at least 1"),
        ({"frames": 2.5}, "'frames': 2.5 is not a whole number"),
        ({"order": "sequental"}, r"not known \(did you mean 'sequential'\?\)"),
        ({"path": 3}, "'path': 3 is not a text"),
        ({"rate": 3}, r"'rate': unknown \(did you mean 'rate_hz'\?\)"),
    ],
)
def test_wrong_parameter_is_told(archive, params, message):
    with pytest.raises(UnderstudyError, match=message):
        Images.ports({"path": str(archive), **RATE, **params})
