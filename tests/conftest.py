"""What holds for every test."""

import os

from hypothesis import HealthCheck, settings

# The tests import onnxruntime themselves; see `actors.sessions` for why.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# The same examples in every run, and none refused because the machine is slow today.
settings.register_profile(
    "understudy",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("understudy")
