"""The commands, one module each: it parses, calls and prints."""
