from pathlib import Path

import numpy as np
import pytest

from actors import behaviour
from dataflow.errors import UnderstudyError

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_actor"
SHAPE = {"shape": [1, 1, 2, 2]}


@pytest.fixture
def contrast(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLE)
    return behaviour("own_actor:Contrast")


def test_image_is_stretched_unless_it_is_flat(contrast, site):
    actor = contrast(SHAPE, site)
    image = np.array([[[[0.2, 0.4], [0.3, 0.6]]]], np.float32)
    np.testing.assert_allclose(actor.fire(image), [[[[0, 0.5], [0.25, 1]]]], atol=1e-6)
    np.testing.assert_array_equal(actor.fire(image * 0.01), image * np.float32(0.01))


def test_latest_outputs_stay_unchanged_while_firing_on(contrast, site):
    actor = contrast(SHAPE, site)
    latest = [actor.fire(np.full((1, 1, 2, 2), n, "f4")) for n in range(site.slots)]
    assert [float(out[0, 0, 0, 0]) for out in latest] == list(range(site.slots))


def test_wrong_parameter_is_told(contrast):
    with pytest.raises(UnderstudyError, match="'floor': 0 is not above 0"):
        contrast.ports({**SHAPE, "floor": 0})
