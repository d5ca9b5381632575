"""Outputs of i-PI and PLUMED cut back to the step of a saved state: a run that was killed writes no line twice.

Both append after a restart. After a signal RESTART and the outputs agree; after a kill the outputs are ahead of the
last state that was saved, and PLUMED would count every hill between the two twice.
"""

import logging
import os
import re
from functools import partial
from pathlib import Path

from comitia.engines.plumed import refuse_lost_hills
from comitia.engines.progress import step_column

log = logging.getLogger(__name__)

_STEP = re.compile(rb"Step:\s*(\d+)")
_PLUMED_HEAD = b"#! FIELDS time "
_HILL = b"height"  # a column of what METAD and OPES read again


def _first_row_after(file, column, last):
    """Offset of the first row in which `column` is larger than `last`, or None."""
    offset = 0
    for line in file:
        fields = line.split()
        if fields and not line.lstrip().startswith(b"#"):
            try:
                later = float(fields[column]) > last
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


def _plumed_series(folder, names=None):
    """(path, header) of what PLUMED wrote in `folder` with its time in the first column: COLVAR, HILLS and the like."""
    found = Path(folder).iterdir() if names is None else (Path(folder) / name for name in names)
    for path in sorted(found):
        if path.is_file() and not path.name.startswith("bck."):
            with open(path, "rb") as file:
                header = file.readline(10_000)
            if header.startswith(_PLUMED_HEAD):
                yield path, header


def _cut(path, find_offset):
    """Cut `path` at the offset that `find_offset` gives for the open file; whether there was anything to cut."""
    with open(path, "r+b") as file:
        offset = find_offset(file)
        if offset is None:
            return False
        file.truncate(offset)
        os.fsync(file.fileno())
        return True


def rewind_outputs(folder, run, state):
    """Cut everything later than a saved state from the outputs in `folder`.

    Parameters
    ----------
    folder : Path
    run : IpiInput
    state : IpiInput, the saved state from which the run will go on

    Returns
    -------
    list of the files that were cut.
    """
    cut = []
    for name, kind in _series(run):
        for path in sorted({*Path(folder).glob(name), *Path(folder).glob(f"*_{name}")}):
            if kind != "properties":
                found = partial(_first_frame_after, step=state.step, lines_before=1 if kind == "xyz" else 0)
            elif (column := step_column(path)) is not None:
                found = partial(_first_row_after, column=column, last=state.step)
            else:
                continue
            if _cut(path, found):
                cut.append(path)
    reached = state.plumed_time()
    if reached is not None:
        cut += rewind_plumed(folder, *reached)
        for path in state.plumed_inputs():
            refuse_lost_hills(path, folder, *reached)
    if cut:
        log.warning(
            "cut back to step %d, where the last saved state is: %s", state.step, ", ".join(path.name for path in cut)
        )
    return cut


def rewind_plumed(folder, time, time_step, names=None, hills_again=False):
    """Cut what PLUMED wrote later than a saved state from its files.

    The step of that state comes once more, and PLUMED writes its variables again then.

    Parameters
    ----------
    folder : Path
    time, time_step : float, of the saved state, in PLUMED's unit of time
    names : set of str, paths from `folder` of the files in question; None for all in it
    hills_again : bool, whether the hill of that step is added again too

    Returns
    -------
    list of the files that were cut.
    """
    cut = []
    for path, header in _plumed_series(folder, names):
        last = time + (0.5 if _HILL in header.split() and not hills_again else -0.5) * time_step
        if _cut(path, partial(_first_row_after, column=0, last=last)):
            cut.append(path)
    return cut
