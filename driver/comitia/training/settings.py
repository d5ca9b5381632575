"""What a FIT.yaml may say. Only `data` and `cutoff` have no default."""

from typing import Annotated, Literal

import msgspec

from comitia.density import Basis
from comitia.density.features import MAX_ORDER
from comitia.errors import SettingsError
from comitia.potential.source import Source
from comitia.structures import Keys

Positive = Annotated[float, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]
Seed = Annotated[int, msgspec.Meta(ge=0)]
LOG_DIFFERENCE = 5.0  # ln λ of a factor that tells species apart; by leaving out systems of a training set
MAX_MEMBERS, MAX_THREADS = 4096, 1024


class HoldOut(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Structures kept out of the fit: a fraction of the blocks, a file, or the frames marked under a key."""

    fraction: Annotated[float, msgspec.Meta(gt=0, lt=1)] | None = None
    seed: Seed = 0
    file: str | None = None
    key: str | None = None


class Weights(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Factors on the default weights of the squared errors, per kind of label and per `config_type`."""

    energy: NotNegative = 1.0
    forces: NotNegative = 1.0
    virial: NotNegative = 1.0
    config_type: dict[str, Positive] = {}


class Groups(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which frames stay together in every random draw: those with one value of `key`, or blocks of neighbours."""

    key: str | None = None
    block: Count | None = None


class Committee(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the members come from: fits to halves of the data, or draws from the Laplace posterior of one fit."""

    kind: Literal["subsampling", "llpr"] = "subsampling"


class Prior(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The prior of the weights: the penalty λ of a column is s (r / r₀)^(2a) (d / d₀)^c d₀.

    r is its roughness and d its sum of squares over the rows, r₀ and d₀ are geometric means over the columns. With
    pseudo-species every factor that is a difference of species multiplies λ by exp(difference). The report of a fit has
    what was chosen; a larger fit to similar structures may be given it.

    Attributes
    ----------
    strength : s of each correlation order from 1 on; the last counts for the rest
    roughness_exponent : a
    column_exponent : c
    difference : of factors that tell species apart
    """

    strength: Annotated[list[Positive], msgspec.Meta(min_length=1, max_length=MAX_ORDER)]
    roughness_exponent: NotNegative = 1.0
    column_exponent: NotNegative = 1.0
    difference: NotNegative = LOG_DIFFERENCE


class FitSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of a fit; energies in eV, lengths in Å.

    Attributes
    ----------
    data : extended XYZ file
    cutoff : float, Å
    members : number of committee members
    committee : where the members come from
    keys : names of the labels in the file
    validation : structures on which the committee is calibrated; by default grouped K-fold over the training set
    test : structures that only serve to state errors
    folds : number of folds of the grouped K-fold
    weights : factors on the weights of the squared errors
    reference_energies : energies of the isolated atoms by element, eV; fitted when absent
    seed : of every random draw
    regularisation : strength of the prior, or all of its parameters; chosen by the evidence when absent, and with
        pseudo-species, where there are structures of several chemical systems, by leaving out these
    columns : the fit keeps at most so many columns of the design matrix, those that depend least on one another over
        the training structures, and drops features that are then idle; by default all
    accuracy : fast, balanced (the default) or accurate: how large the basis is, and so what an evaluation costs
    target_cost : µs/atom of an evaluation (energy, forces and virial, one thread of this machine): the largest basis
        that takes no longer
    basis : options of the descriptor; each replaces what the accuracy or target_cost says
    baseline : potential that the model corrects: it is fitted to what is left of the labels, and has no core
    groups : frames that are drawn together
    core : whether a repulsive ZBL core acts below the closest contacts of the data
    threads : number of threads; by default all cores
    keep_sums : whether the sums are kept beside the model, in MODEL_STEM.sums, for a fit that goes on from this one
    previous : model file with its sums kept: the fit goes on from it, and looks at the structures that are new only
    """

    data: str
    cutoff: Positive
    members: Annotated[int, msgspec.Meta(ge=1, le=MAX_MEMBERS)] = 16
    committee: Committee = Committee()
    keys: Keys = Keys()
    validation: HoldOut | None = None
    test: HoldOut | None = None
    folds: Annotated[int, msgspec.Meta(ge=2, le=20)] = 5
    weights: Weights = Weights()
    reference_energies: dict[str, float] | None = None
    seed: Seed = 0
    regularisation: Positive | Prior | None = None
    columns: Count | None = None
    accuracy: Literal["fast", "balanced", "accurate"] | None = None
    target_cost: Positive | None = None
    basis: Basis = msgspec.field(default_factory=Basis)
    baseline: Source | None = None
    groups: Groups = Groups()
    core: bool = True
    threads: Annotated[int, msgspec.Meta(ge=1, le=MAX_THREADS)] | None = None
    keep_sums: bool = False
    previous: str | None = None


def check_settings(settings):
    """Refuse settings that contradict each other."""
    for name in ("validation", "test"):
        hold_out = getattr(settings, name)
        given = hold_out and [key for key in ("fraction", "file", "key") if getattr(hold_out, key) is not None]
        if hold_out is not None and len(given) != 1:
            found = " and ".join(given) or "none of them"
            raise SettingsError(f"{name}: give one of fraction, file and key, not {found}")
    if settings.groups.key is not None and settings.groups.block is not None:
        raise SettingsError("groups: give key or block, not both")
    if settings.target_cost is not None and settings.accuracy is not None:
        raise SettingsError("target_cost: give it or accuracy, not both")
    if settings.target_cost is not None and settings.basis.max_features is not None:
        raise SettingsError("basis: max_features follows from target_cost; give one of them")
    if settings.weights.energy == settings.weights.forces == 0:
        raise SettingsError("weights: energy and forces are both 0; nothing is left to fit")
