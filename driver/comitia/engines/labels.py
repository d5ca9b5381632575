"""Labelling: energies and forces of every structure of a file, written to a journal as they come, then to one file."""

import fcntl
import io
import json
import logging
import os
import time
import zlib
from pathlib import Path

import numpy as np

from comitia.engines.force_engines import Label, open_engine
from comitia.errors import OutputError, SettingsError
from comitia.files import check_destination, file_hash, whole_file, write_atomic
from comitia.progress import Stages
from comitia.protocol.requests import Failure
from comitia.structures import read_frames

log = logging.getLogger(__name__)

HEARTBEAT = 60.0  # s between two lines in the log
SYNC_EVERY = 1.0  # s between two requests that the journal be on disk
LABELS = ("energy", "free_energy", "forces", "stress", "virial", "energy_uncertainty")  # of others, left out


class Journal:
    """Labels of structures, one line each with checksum and JSON, found again after any end.

    Parameters
    ----------
    path : Path
    header : dict, what is labelled and with what; a journal of anything else is refused
    """

    def __init__(self, path, header):
        self.path, self._places, self._synced = path, {}, time.monotonic()
        try:
            self._file = open(path, "a+b")  # noqa: SIM115 - closed by close()
        except OSError as error:
            raise OutputError(f"{path}: cannot be written ({error.strerror}); choose another place") from error
        try:
            self._lock()
            self._read(header)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._file.close()

    def __contains__(self, number):
        return number in self._places

    def __len__(self):
        return len(self._places)

    def _lock(self):
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise OutputError(f"{self.path}: another process writes labels there; wait for it, or end it") from error

    def _read(self, header):
        """Find the lines that are as they were written; a last one that is cut short goes."""
        self._file.seek(0)
        end, found = 0, None
        for line in self._file:
            if not line.endswith(b"\n"):
                break
            content = _content(line)
            if found is None:
                found = content or {}
            elif content is not None:
                self._places[content["frame"]] = end
            end += len(line)
        if found is not None and found != header:
            changed = next((key for key in header if header[key] != found.get(key)), "version")
            raise SettingsError(
                f"{self.path}: holds labels of another {changed}; go on with that one, remove the file, or change -o"
            )
        self._file.truncate(end)
        if found is None:
            self._append(header)

    def _append(self, content):
        self._file.seek(0, os.SEEK_END)
        place = self._file.tell()
        text = json.dumps(content, allow_nan=False).encode()
        self._file.write(b"%08x %s\n" % (zlib.crc32(text), text))
        self._file.flush()
        if time.monotonic() - self._synced > SYNC_EVERY:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()
        return place

    def add(self, number, label):
        """Keep the label of a frame, which has a number or a name."""
        content = {"frame": number, "energy": label.energy, "forces": None}
        if label.forces is not None:
            content["forces"] = np.asarray(label.forces).tolist()
        content["virial"] = None if label.virial is None else np.asarray(label.virial).tolist()
        self._places[number] = self._append(content | {"extras": label.extras})

    def label(self, number):
        """The label of a frame."""
        self._file.seek(self._places[number])
        content = _content(self._file.readline())
        virial = None if content["virial"] is None else np.array(content["virial"])
        forces = None if content["forces"] is None else np.array(content["forces"]).reshape(-1, 3)
        return Label(content["energy"], forces, virial, content["extras"])

    def remove(self):
        """The labels are in their file now."""
        self.path.unlink()


def _content(line):
    """What a line of the journal says, or None where it is not as it was written."""
    checksum, _, text = line.rstrip(b"\n").partition(b" ")
    return json.loads(text) if checksum == b"%08x" % zlib.crc32(text) else None


def announce(engine, specification, options):
    """Say in `options.ready_file` where workers may come in."""
    if options is not None and options.ready_file is not None:
        where = ", ".join(listener.address for listener in getattr(engine, "listeners", ()))
        write_atomic(options.ready_file, f"ready: {where or specification}\n")


def labelled_text(atoms, label):
    """A frame of extended XYZ with the labels in place of those it had."""
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.io.extxyz import write_xyz

    atoms = atoms.copy()
    for place in (atoms.info, atoms.arrays):
        for name in [name for name in place if name in LABELS]:
            del place[name]
    found = {"energy": label.energy}
    if label.forces is not None:
        found["forces"] = label.forces
    if label.virial is not None and atoms.cell.rank == 3:
        found["stress"] = -label.virial / atoms.cell.volume
    elif label.virial is not None and atoms.pbc.any():
        atoms.info["virial"] = label.virial
    atoms.info |= label.extras
    atoms.calc = SinglePointCalculator(atoms, **found)
    text = io.StringIO()
    write_xyz(text, [atoms])
    return text.getvalue()


class Heartbeat:
    """A line in the log from time to time."""

    def __init__(self, n_frames):
        self._n_frames, self._n = n_frames, 0
        self._begin = self._beaten = time.monotonic()

    def beat(self, n_failed):
        """One structure more was tried."""
        self._n += 1
        now = time.monotonic()
        if now - self._beaten >= HEARTBEAT:
            rate = self._n / (now - self._begin)
            left = (self._n_frames - self._n) / rate
            text = "%d of %d structures  %.3g per s  %.0f s left  %d failed"
            log.info(text, self._n, self._n_frames, rate, left, n_failed)
            self._beaten = now


def label_file(structures, specification, output, options=None, progress=True):
    """Energies and forces of every structure of a file, from any engine.

    Labels are kept in `OUTPUT.labels` as they come, and a call that was ended goes on from there. OUTPUT appears when
    all structures have been tried; those that failed are not in it, and are tried again by the same call.

    Parameters
    ----------
    structures : path of an extended XYZ file
    specification : str, see `comitia.engines.force_engines.KINDS`
    output : path of the extended XYZ file that is written
    options : EngineOptions
    progress : bool, whether a bar is shown on a terminal

    Returns
    -------
    dict of `structures`, `labelled`, `from_before`, `seconds`, and `failed`: a list of {"frame", "error"}; the first
    error itself is under `error`, None without one.

    Raises
    ------
    ComitiaError
        if the file or the engine cannot be used, or no worker is left; the labels so far are kept.
    """
    output = Path(output)
    check_destination(output)
    begin = time.monotonic()
    n_frames = sum(1 for _ in read_frames(structures))
    failures = {}
    with open_engine(specification, options) as engine:
        announce(engine, specification, options)
        header = {"version": 1, "file of structures": file_hash(structures), "engine": [specification, engine.identity]}
        with Journal(output.with_name(output.name + ".labels"), header) as journal, Stages(progress) as stages:
            n_before = len(journal)
            left = (
                (number, atoms) for number, (atoms, _) in enumerate(read_frames(structures)) if number not in journal
            )
            heartbeat = Heartbeat(n_frames - n_before)
            with stages.stage("structures", n_frames - n_before) as advance:
                for number, outcome in engine.labels(left):
                    if isinstance(outcome, Failure):
                        failures[number] = outcome.error
                    else:
                        journal.add(number, outcome)
                    advance()
                    heartbeat.beat(len(failures))
            if len(journal):
                with whole_file(output) as file:
                    for number, (atoms, _) in enumerate(read_frames(structures)):
                        if number in journal:
                            file.write(labelled_text(atoms, journal.label(number)).encode())
            if not failures:
                journal.remove()
            n_labelled = len(journal)
    return {
        "structures": n_frames,
        "labelled": n_labelled,
        "from_before": n_before,
        "seconds": time.monotonic() - begin,
        "failed": [{"frame": number, "error": str(failures[number])} for number in sorted(failures)],
        "error": failures[min(failures)] if failures else None,
    }
