"""The two ways a command ends badly; each prints as one line, never as a traceback."""


class BadInput(Exception):
    """What the user asked for cannot work; names key or file, value and remedy. Exit code 2."""

    exit_code = 2


class RunFailure(Exception):
    """The request was fine, something else went wrong (disk full, diverged). Exit code 1."""

    exit_code = 1


class StorageRefused(RunFailure):
    """The disk did not take a file: full, read-only, or away. It may later."""
