"""Outputs of i-PI cut back to the step of a state, so that a run that was killed goes on without a line twice.

i-PI appends after a restart. After a signal its RESTART and its outputs agree; after a kill the outputs are ahead
of the last state that was saved.
"""

import logging
import os
import re
from pathlib import Path

from comitia.engines.progress import step_column

log = logging.getLogger(__name__)

_STEP = re.compile(rb"Step:\s*(\d+)")


def _first_property_after(file, column, step):
    """Offset of the first row of a property file that is later than `step`, or None."""
    offset = 0
    for line in file:
        fields = line.split()
        if fields and not line.lstrip().startswith(b"#"):
            try:
                later = float(fields[column]) > step
            except (ValueError, IndexError):
                later = True  # a row that was being written
            if later or not line.endswith(b"\n"):
                return offset
        offset += len(line)
    return None


def _first_frame_after(file, step, lines_before):
    """Offset of the first frame later than `step`; its step stands `lines_before` lines below its start."""
    starts, offset = [], 0
    for line in file:
        starts = [*starts, offset][-1 - lines_before :]
        is_header = line.lstrip().startswith((b"#", b"TITLE"))
        found = _STEP.search(line) if is_header else None
        if found and int(found.group(1)) > step:
            return starts[0]
        if not line.endswith(b"\n"):  # was being written: the start of a frame, since those before are complete
            return starts[0] if is_header else offset
        offset += len(line)
    return None


def _series(run):
    """(file name pattern, kind) of every text output of an input in which steps are written."""
    for name in run.step_files():
        yield name, "properties"
    for element in run.root.iterfind("output/trajectory"):
        name, quantity = element.get("filename", "traj").strip(), (element.text or "").split("{")[0].strip()
        if quantity.startswith("extras"):
            yield f"{run.prefix}.{name}_*", "extras"
        elif element.get("format", "xyz").strip() in ("xyz", "pdb"):
            kind = element.get("format", "xyz").strip()
            yield f"{run.prefix}.{name}*.{kind}", kind


def rewind_outputs(folder, run, step):
    """Cut everything later than `step` from the outputs of `run` in `folder`.

    Parameters
    ----------
    folder : Path
    run : IpiInput
    step : int, of the state from which the run will go on

    Returns
    -------
    list of the files that were cut.
    """
    cut = []
    for name, kind in _series(run):
        for path in sorted({*Path(folder).glob(name), *Path(folder).glob(f"*_{name}")}):
            with open(path, "r+b") as file:
                if kind == "properties":
                    column = step_column(path)
                    offset = None if column is None else _first_property_after(file, column, step)
                else:
                    offset = _first_frame_after(file, step, lines_before=1 if kind == "xyz" else 0)
                if offset is not None:
                    file.truncate(offset)
                    os.fsync(file.fileno())
                    cut.append(path)
    if cut:
        log.warning(
            "cut back to step %d, where the last saved state is: %s", step, ", ".join(path.name for path in cut)
        )
    return cut
