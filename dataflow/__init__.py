"""The model of computation and its engine. Knows nothing of neural networks."""
