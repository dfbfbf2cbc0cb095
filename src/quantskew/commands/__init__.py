"""The command line, a file a command: `add` declares its options, `run` does it."""
