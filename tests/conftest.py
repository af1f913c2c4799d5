"""What holds for every test."""

import os

# The tests import onnxruntime themselves; see `actors.sessions` for why.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
