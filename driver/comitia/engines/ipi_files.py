"""Which files of an i-PI run belong together: one for each bead, and what the run itself was."""

import glob
import re
from dataclasses import dataclass
from pathlib import Path

from comitia.engines.ipi_units import KELVIN
from comitia.errors import SeriesError

_BEAD = re.compile(r"^(?P<stem>.+)_(?P<bead>\d+)(?P<suffix>\.xyz|\.extxyz|)$")


@dataclass(frozen=True)
class RunFacts:
    """What a checkpoint beside the output says of the run; None where it does not."""

    path: Path | None = None
    n_beads: int | None = None
    temperature: float | None = None
    replica_exchange: bool = False
    weighted_baseline: bool = False


def output_prefix(path):
    """Prefix that i-PI gave to all output of a run: what stands before the first dot of the name."""
    return Path(path).name.split(".")[0]


def run_facts(path):
    """Number of beads, temperature (K) and kind of a run, from i-PI's RESTART beside one of its output files.

    A RESTART of another run (its prefix is not that of the file) is left alone.
    """
    path = Path(path)
    prefix = output_prefix(path)
    restart = path.parent / "RESTART"
    try:
        text = restart.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return RunFacts()
    named = re.search(r"<output[^>]*\bprefix='([^']*)'", text)
    if named is None or not (prefix == named[1] or prefix.endswith("_" + named[1])):
        return RunFacts()
    beads = set(re.findall(r"<beads\b[^>]*\bnbeads='(\d+)'", text))
    ensembles = re.findall(r"<ensemble>.*?<temperature>\s*([-+.0-9eE]+)\s*</temperature>", text, re.DOTALL)
    try:
        temperatures = {float(value) for value in ensembles}
    except ValueError:  # a damaged RESTART says nothing
        temperatures = set()
    return RunFacts(
        restart,
        int(beads.pop()) if len(beads) == 1 else None,
        temperatures.pop() / KELVIN if len(temperatures) == 1 else None,
        "<smotion mode='remd'" in text,
        re.search(r"<baseline_name>\s*\w", text) is not None,
    )


def _candidates(path):
    """Files that may be those of the beads: by pattern, as siblings of one bead, or by the name without `_0`."""
    if any(character in path.name for character in "*?["):
        return sorted(Path(name) for name in glob.glob(str(path)))
    suffix = path.suffix if path.suffix in (".xyz", ".extxyz") else ""
    stems = [path.name.removesuffix(suffix)]
    match = _BEAD.match(path.name)
    if match:
        stems.insert(0, match["stem"])
    for stem in stems:
        found = [
            other
            for other in sorted(path.parent.glob(f"{glob.escape(stem)}_*"))
            if (fits := _BEAD.match(other.name)) and (fits["stem"], fits["suffix"]) == (stem, suffix)
        ]
        if found:
            return found
    return []


def bead_files(path):
    """Files of all beads, bead 0 first, from any one of them, from the name without `_0`, or from a pattern.

    i-PI pads the number of the bead with zeros (`run.committee_pot_00` … `_31`).

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    list of Path

    Raises
    ------
    SeriesError
        if there is no such file, or the file of a bead is missing; the message names it.
    """
    path = Path(path)
    candidates = _candidates(path)
    files, width, stem, suffix = {}, 0, None, None
    for candidate in candidates:
        match = _BEAD.match(candidate.name)
        if match is None:
            continue
        if files and (match["stem"], match["suffix"]) != (stem, suffix):
            raise SeriesError(f"{path}: matches files of two quantities or runs ({stem}, {match['stem']}); name one")
        stem, suffix = match["stem"], match["suffix"]
        if width and len(match["bead"]) != width:
            raise SeriesError(
                f"{candidate}: the number of its bead has {len(match['bead'])} digits, that of the others {width}; "
                "remove the files of an older run"
            )
        width = len(match["bead"])
        files[int(match["bead"])] = candidate
    if not files:
        raise SeriesError(f"{path}: no file of any bead is there; check the path")
    folder = next(iter(files.values())).parent
    facts = run_facts(folder / stem)
    if facts.n_beads and max(files) >= facts.n_beads:
        raise SeriesError(
            f"{files[max(files)]}: {facts.path.name} beside it is of a run with {facts.n_beads} beads; "
            "remove what is of an older run"
        )
    expected = max(max(files) + 1, _beads_of_the_run(folder, stem, width))
    if expected == 1 and width > 1:
        expected = 10 ** (width - 1)
    missing = [folder / f"{stem}_{bead:0{width}d}{suffix}" for bead in range(expected) if bead not in files]
    if missing:
        shown = ", ".join(str(name) for name in missing[:3]) + (", …" if len(missing) > 3 else "")
        raise SeriesError(
            f"{shown}: {len(missing)} of the files of {expected} beads missing; energies are averaged over all beads: "
            "print the quantity for every bead (no bead='…' in <trajectory>), or bring the files here"
        )
    return [files[bead] for bead in range(expected)]


def _beads_of_the_run(folder, stem, width):
    """Number of beads of the run: what its RESTART says, else the largest that any other output of it has."""
    known = run_facts(folder / stem).n_beads
    if known or "." not in stem:
        return known or 0
    largest = 0
    for other in folder.glob(f"{glob.escape(output_prefix(stem))}.*"):
        match = _BEAD.match(other.name)
        if match and len(match["bead"]) == width and not _is_checkpoint(other):
            largest = max(largest, int(match["bead"]) + 1)
    return largest


def _is_checkpoint(path):
    """Whether a file is a checkpoint, which i-PI numbers too (`overwrite='False'`), by step and not by bead."""
    with open(path, "rb") as file:
        return file.read(64).lstrip().startswith(b"<")
