"""How far a run has come: a bar with ETA on a terminal, a line every 10 % or minute elsewhere."""

import sys
import time
from pathlib import Path

import click

_TAIL = 65_536  # bytes
LINE_EVERY = 60.0  # s
LINE_FRACTION = 0.1


class StepCounter:
    """Reads the current step from the end of a property file of i-PI.

    Parameters
    ----------
    folder : where i-PI runs
    columns : (file name, column, stride) of `IpiInput.progress_columns`, or None
    """

    def __init__(self, folder, columns):
        self._folder, self._columns = Path(folder), columns

    def step(self):
        """The last step written, of the system that is behind the others; None before the first."""
        if self._columns is None:
            return None
        name, column, _ = self._columns
        path = self._folder / name
        paths = [path] if path.exists() else list(self._folder.glob(self._name_for_systems(name)))
        steps = [step for step in (self._last_step(path, column) for path in paths) if step is not None]
        return min(steps, default=None)

    @staticmethod
    def _name_for_systems(name):
        """i-PI writes one file for each of several systems, with the prefix of the system before the name."""
        return f"*_{name}"

    @staticmethod
    def _last_step(path, column):
        try:
            with open(path, "rb") as file:
                file.seek(max(0, file.seek(0, 2) - _TAIL))
                complete = file.read().rpartition(b"\n")[0].split(b"\n")
        except OSError:
            return None
        for line in reversed(complete):
            if line.strip() and not line.lstrip().startswith(b"#"):
                try:
                    return int(float(line.split()[column]))
                except (ValueError, IndexError):
                    return None
        return None


class Progress:
    """Shows the steps of a run on standard error.

    Parameters
    ----------
    label : str, what runs
    first_step, total_steps : int
    shown : bool
    """

    def __init__(self, label, first_step, total_steps, shown=True):
        self.label, self.first_step, self.total_steps = label, first_step, total_steps
        self.step = first_step
        self._begin = None
        self._last_line = time.monotonic()
        self._last_fraction = first_step / max(total_steps, 1)
        self._bar = None
        self._shown = shown
        if shown and sys.stderr.isatty():
            self._bar = self._make_bar()
            self._task = self._bar.add_task(label, total=total_steps, completed=first_step)

    @staticmethod
    def _make_bar():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        return Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.percentage:.0f} %  ETA"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )

    def __enter__(self):
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *exception):
        if self._bar is not None:
            self._bar.stop()

    @property
    def steps_per_second(self):
        """Mean speed since the first step that was seen, 1/s."""
        if self._begin is None:
            return 0.0
        step, begin = self._begin
        return (self.step - step) / max(time.monotonic() - begin, 1e-9)

    def update(self, step):
        """Show that `step` is done."""
        if step is None or step < self.step:
            return
        self.step = step
        self._begin = self._begin or (step, time.monotonic())
        if self._bar is not None:
            self._bar.update(self._task, completed=step)
        elif self._shown:
            self._line()

    def _line(self):
        fraction, now = self.step / max(self.total_steps, 1), time.monotonic()
        due = fraction - self._last_fraction >= LINE_FRACTION or now - self._last_line >= LINE_EVERY
        speed = self.steps_per_second
        if not due or speed == 0:
            return
        self._last_fraction, self._last_line = fraction, now
        left = (self.total_steps - self.step) / speed
        click.echo(
            f"{self.label}  step {self.step}/{self.total_steps}  {100 * fraction:.0f} %  "
            f"{speed:.1f} steps/s  ETA {left:.0f} s",
            err=True,
        )
