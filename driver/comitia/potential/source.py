"""Potentials as settings name them, and what a model of corrections says of the one that it corrects."""

import msgspec

from comitia.errors import ModelError


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One potential: a comitia model, an ASE calculator with its arguments, or workers that connect to a socket."""

    model: str | None = None
    calculator: str | None = None
    arguments: dict = {}
    workers: str | None = None


def source_name(baseline):
    """What a baseline is called in a sentence, from what a model file says of it."""
    if not isinstance(baseline, dict):
        return str(baseline)
    kind = next((kind for kind in ("model", "calculator", "workers") if baseline.get(kind)), None)
    return f"{kind} {baseline[kind]}" if kind else "a baseline"


def same_baseline(one, other):
    """Whether two descriptions of a baseline may be of the same potential.

    A model file is known by its content, a calculator by what makes it; workers do not say what they are.
    """
    if not (isinstance(one, dict) and isinstance(other, dict)) or "workers" in {*one, *other}:
        return True
    return all(one.get(key) == other.get(key) for key in ("sha256", "calculator", "arguments"))


def refuse_corrections(potential, path):
    """Refuse a model of corrections where its energy would be taken for the total energy.

    Raises
    ------
    ModelError
    """
    if potential.corrects is not None:
        raise ModelError(
            f"{path}: is a model of corrections to {source_name(potential.corrects)}, not of total energies; name both "
            "in a POTENTIAL.yaml, as `committee` and `baseline`, and serve that"
        )
