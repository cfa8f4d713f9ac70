"""The two ways a command ends badly; each prints as one line, never as a traceback."""


class BadInput(Exception):
    """What the user asked for cannot work; names key or file, value and remedy. Exit code 2."""

    exit_code = 2


class RunFailure(Exception):
    """The request was fine, something else went wrong (disk full, diverged). Exit code 1."""

    exit_code = 1


class StorageRefused(RunFailure):
    """The disk did not take a file: full, read-only, or away. It may later."""


TRY_AGAIN = 75
"""Exit code of a run whose machines are gone: the same command goes on once there are others.

EX_TEMPFAIL of sysexits.h; a managed job of SkyPilot can be told to recover on it.
"""
