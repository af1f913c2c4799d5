"""Graph and deployment files: read, validate, expand, compile."""
