"""How far a run has come: a bar with ETA on a terminal, a line every 10 % or minute elsewhere."""

import re
import time
from pathlib import Path

import click

from comitia.progress import progress_bar

_TAIL = 65_536  # bytes
_STEP_COLUMN = re.compile(rb"#\s*column\s+(\d+)\s+-->\s+step\b")
LINE_EVERY = 60.0  # s
LINE_FRACTION = 0.1


def step_column(path):
    """The column of a property file of i-PI that holds the step, by its header; None while there is none."""
    with open(path, "rb") as file:
        for line in file:
            if not line.startswith(b"#"):
                return None
            found = _STEP_COLUMN.match(line)
            if found:
                return int(found.group(1)) - 1
    return None


class StepCounter:
    """Reads the current step from the end of a property file of i-PI.

    Parameters
    ----------
    folder : where i-PI runs
    names : of `IpiInput.step_files`; the first is read
    """

    def __init__(self, folder, names):
        self._folder, self._name = Path(folder), next(iter(names), None)

    def step(self):
        """The last step written, of the system that is behind the others; None before the first."""
        if self._name is None:
            return None
        path = self._folder / self._name
        paths = [path] if path.exists() else list(self._folder.glob(f"*_{self._name}"))  # one for each system
        steps = [step for step in map(self._last_step, paths) if step is not None]
        return min(steps, default=None)

    @staticmethod
    def _last_step(path):
        try:
            column = step_column(path)
            with open(path, "rb") as file:
                file.seek(max(0, file.seek(0, 2) - _TAIL))
                complete = file.read().rpartition(b"\n")[0].split(b"\n")
        except OSError:
            return None
        for line in reversed(complete):
            if column is not None and line.strip() and not line.lstrip().startswith(b"#"):
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
        self._shown = shown
        self._bar = progress_bar() if shown else None
        if self._bar is not None:
            self._task = self._bar.add_task(label, total=total_steps, completed=first_step)

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
