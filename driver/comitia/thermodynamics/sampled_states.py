"""Frames of several sampled states at once: all ensembles of a replica exchange, or windows of umbrella sampling."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from comitia.engines.frames import POTENTIALS, Frames, Piece, gather
from comitia.engines.replica_exchange import find_exchange
from comitia.engines.sampled import split
from comitia.errors import SeriesError, UsageError
from comitia.thermodynamics.beginning import Beginning
from comitia.thermodynamics.multistate import MultistateEnsemble


@dataclass
class SampledStates:
    """Frames of all states, those of one continuous trajectory in the order of time.

    Attributes
    ----------
    frames : Frames, of the first state; with the warnings and findings of all
    piece : Piece, all frames; `bias` is (n_frames, n_states), what each state adds to the energy of each frame, or None
    states, series : (n_frames,) integer arrays: the state and the continuous trajectory that each frame is of
    temperatures : (n_states,) array, K
    starts : (n_observables,) integer array, frames at the start that look like the approach to equilibrium, at most
    description : str, one line
    """

    frames: Frames
    piece: Piece
    states: np.ndarray
    series: np.ndarray
    temperatures: np.ndarray
    starts: np.ndarray
    description: str

    def ensemble(self, temperature):
        """The frames weighed for every member at a temperature, K."""
        driving = self.frames.driving if self.piece.driving is None else self.piece.driving
        return MultistateEnsemble(
            self.piece.member_energies,
            self.states,
            self.temperatures,
            temperature,
            bias_energies=self.piece.bias,
            driving=driving,
            series=self.series,
        )


def gather_states(potentials, observables, temperature, windows=(), skip=0, bias=None, **given):
    """Frames of every ensemble of a replica exchange, or of every window.

    Parameters
    ----------
    potentials, observables, bias : as for `frames.gather`; with windows, files in each of their folders, and a bias
        has a column for each window
    temperature : float, K, of the windows; not used for a replica exchange, whose files know theirs
    windows : folders
    skip : int, frames left out at the start of every state
    **given : `units`, `driving` and `baseline` of `frames.gather`

    Returns
    -------
    SampledStates

    Raises
    ------
    SeriesError
        for what `gather` refuses, states of different committees, and replica exchange whose ensembles differ in more
        than the temperature of one potential: at constant pressure, or of path integrals.
    UsageError
        where there is only one state.
    """
    if windows:
        missing = [folder for folder in windows if not Path(folder).is_dir()]
        if missing:
            raise SeriesError(f"{missing[0]}: is not a folder; give --windows DIR for each window")
        temperatures = np.full(len(windows), temperature)
        found = [
            gather(
                _inside(folder, potentials),
                [one if one == POTENTIALS else _inside(folder, one) for one in observables],
                temperature,
                bias=bias and _inside(folder, bias),
                n_states=len(windows),
                **_inside_all(folder, given),
            )
            for folder in windows
        ]
        description = f"{len(windows)} windows"
    else:
        exchange = find_exchange(split(potentials)[0])
        if exchange is None:
            raise UsageError(
                f"{potentials}: is not of a replica exchange; for --method mbar give files of one, or --windows"
            )
        if not np.isnan(exchange.pressures).all():
            raise SeriesError(
                f"{exchange.path}: is at constant pressure, where states differ in pressure times volume too; average "
                "one ensemble, with --method cea or direct"
            )
        temperatures = exchange.temperatures
        found = [
            gather(potentials, observables, kelvin, bias=bias, ensemble=number, **given)
            for number, kelvin in enumerate(temperatures)
        ]
        description = f"replica exchange, all of {exchange.describe()}"
        if found[0].n_beads > 1 and np.ptp(temperatures) > 0:
            raise SeriesError(
                f"{exchange.path}: path integrals of several temperatures differ in their springs too; average one "
                "ensemble, with --method cea or direct"
            )
    return _joined(found, temperatures, skip, description)


def _inside(folder, specification):
    return str(Path(folder) / specification)


def _inside_all(folder, given):
    """Options of `gather` whose files lie in a folder of their own."""
    files = {"baseline"} | ({"driving"} if Path(_inside(folder, split(str(given["driving"]))[0])).exists() else set())
    return {name: _inside(folder, value) if value and name in files else value for name, value in given.items()}


def _joined(found, temperatures, skip, description):
    first, pieces, steps, series, starts = found[0], [], [], [], []
    for state, frames in enumerate(found):
        where = frames.first_file
        if frames.n_members != first.n_members or frames.n_beads != first.n_beads:
            raise SeriesError(f"{where}: has other members or beads than {first.first_file}; use states of one system")
        if frames.n_frames <= skip:
            raise UsageError(f"--skip {skip} leaves nothing of {frames.n_frames} frames of {where}; skip fewer")
        piece, energies = frames.read(skip), frames.series[POTENTIALS]
        beginning = Beginning(len(piece.member_energies))
        beginning.add(np.hstack([piece.observables, piece.estimators.mean(axis=2)]))
        starts.append(beginning.starts())
        pieces.append(piece)
        n_frames = len(piece.member_energies)
        steps.append(np.arange(n_frames) if energies.steps is None else energies.steps[skip:])
        series.append(np.full(n_frames, state) if energies.replica is None else energies.replica[skip:])
        if frames is not first:
            first.warnings += frames.warnings
            first.findings += frames.findings
    order = np.argsort(np.concatenate(steps), kind="stable")
    states = np.repeat(np.arange(len(found)), [len(one) for one in steps])
    whole = Piece.joined(pieces)
    if whole.bias is not None and whole.bias.ndim == 1:  # the same in every ensemble
        whole = replace(whole, bias=np.repeat(whole.bias[:, None], len(found), axis=1))
    return SampledStates(
        frames=first,
        piece=whole.taken(order),
        states=states[order],
        series=np.concatenate(series)[order],
        temperatures=np.asarray(temperatures, dtype=float),
        starts=np.max(starts, axis=0),
        description=description,
    )
