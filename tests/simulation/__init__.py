"""Parts of the simulator: see `tests.simulator`."""
