"""How far a command has come: a bar on a terminal, nothing elsewhere."""

import contextlib
import sys
import time


def progress_bar():
    """A bar of rich on standard error, with counts and the time that is left; None where that is no terminal."""
    if not sys.stderr.isatty():
        return None
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description:<12}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, TextColumn("ETA"), TimeRemainingColumn(), console=Console(stderr=True))


class Stages:
    """The stages of a command: a bar for each, and how long it took, s.

    Parameters
    ----------
    show : bool
    """

    def __init__(self, show):
        self.seconds = {}
        self.bar = progress_bar() if show else None

    @contextlib.contextmanager
    def stage(self, name, total):
        """Time a stage; yields the function that advances its bar."""
        begin = time.perf_counter()
        if self.bar is None:
            yield lambda: None
        else:
            task = self.bar.add_task(name, total=total)
            yield lambda: self.bar.advance(task)
        self.seconds[name] = time.perf_counter() - begin

    def __enter__(self):
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(self, *error):
        if self.bar is not None:
            self.bar.stop()
