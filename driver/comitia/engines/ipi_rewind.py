"""Outputs of i-PI and PLUMED cut back to the step of a saved state: a run that was killed writes no line twice.

Both append after a restart. After a signal RESTART and the outputs agree; after a kill the outputs are ahead of the
last state that was saved, and PLUMED would count every hill between the two twice.
"""

import logging
import os
import re
from functools import partial
from pathlib import Path

from comitia.engines.progress import step_column

log = logging.getLogger(__name__)

_STEP = re.compile(rb"Step:\s*(\d+)")
_PLUMED_HEAD = b"#! FIELDS time "


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


def _plumed_series(folder):
    """Paths of what PLUMED wrote in `folder` with its time in the first column: COLVAR, HILLS and their like."""
    for path in sorted(Path(folder).iterdir()):
        if path.is_file() and not path.name.startswith("bck."):
            with open(path, "rb") as file:
                if file.read(len(_PLUMED_HEAD)) == _PLUMED_HEAD:
                    yield path


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
    last = state.plumed_time()
    if last is not None:
        cut += [path for path in _plumed_series(folder) if _cut(path, partial(_first_row_after, column=0, last=last))]
    if cut:
        log.warning(
            "cut back to step %d, where the last saved state is: %s", state.step, ", ".join(path.name for path in cut)
        )
    return cut
