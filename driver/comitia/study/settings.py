"""What a STUDY.yaml may say."""

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from comitia.errors import SettingsError, UsageError
from comitia.settings import convert, read_yaml

Count = Annotated[int, msgspec.Meta(ge=1)]


class Sample(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One simulation with i-PI.

    Attributes
    ----------
    input : i-PI's XML file, relative to the study
    clients : number of force clients
    threads : threads of each client; by default the cores are shared out
    steps : replaces `total_steps` of the input
    equilibration : steps at the start that no average uses; by default a tenth of all
    """

    input: str
    clients: Count = 1
    threads: Count | None = None
    steps: Count | None = None
    equilibration: Annotated[int, msgspec.Meta(ge=0)] | None = None


class Bins(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bins of a free-energy profile, in the unit of the observable.

    Attributes
    ----------
    range : first and last edge
    bins : how many, all of one width
    symmetric : whether the profile is known to be even, so that every sample x also counts as -x
    """

    range: tuple[float, float]
    bins: Annotated[int, msgspec.Meta(ge=2, le=1000)] = 40
    symmetric: bool = False


class Observable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"source": "from"}):
    """A number averaged over a sample, or the free-energy profile of one.

    Attributes
    ----------
    source : name of the sample (key `from`); of a replica exchange every temperature has an average of its own
    property : a column of i-PI's property file
    cv : a collective variable of the bead positions, see `comitia.study.collective_variables`
    relative_to : another sample, of the same crystal in another cell: the free energy of `source` less that of it
    unit : in which the result is given
    profile : gives the free-energy profile of the collective variable in place of its average
    """

    source: str
    property: str | None = None
    cv: dict[str, Any] | None = None
    relative_to: str | None = None
    unit: str | None = None
    profile: Bins | None = None


class Reweighting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How averages are carried to the members: `cea` (first cumulant) or `direct`."""

    method: Literal["cea", "direct"] = "cea"


class Reference(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"engine": "with"}):
    """A reference method.

    Attributes
    ----------
    engine : what computes it, see `comitia.engines.references` (key `with`)
    trained : whether it is the method of the training data, so that its energies hold the constant of the model's
    """

    engine: str
    trained: bool = False


class StoredFrames(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Frames that were sampled before with a model that is kept, their reference energies with them.

    Attributes
    ----------
    frames : extended XYZ file, see `comitia.study.perturbed_frames`
    model : the model file that sampled them
    recompute : structures whose reference energies are computed again and compared
    """

    frames: str
    model: str
    recompute: Annotated[int, msgspec.Meta(ge=0)] = 3


class Perturbation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Free-energy perturbation of samples to reference methods.

    Attributes
    ----------
    references : methods by name
    frames : by sample, the largest number of uncorrelated frames that are taken from it, of a replica exchange at each
        temperature
    differences : by name, two samples of the same atoms: the correction of F(first) - F(second)
    stored : takes these frames in place of those of this study's samples
    workers : processes of an engine that is started here
    skip_failed : structures without a reference energy that are put up with; their frames are left out
    """

    references: dict[str, Reference]
    frames: dict[str, Count]
    differences: dict[str, tuple[str, str]] = {}
    stored: StoredFrames | None = None
    workers: Count = 1
    skip_failed: Annotated[int, msgspec.Meta(ge=0)] = 0


class Report(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Texts of the figure.

    Attributes
    ----------
    title : of the figure
    labels : what an observable or a profile is called there, by its name
    """

    title: str | None = None
    labels: dict[str, str] = {}


class StudySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A study: one fit, any number of samples, and what is averaged over them.

    Attributes
    ----------
    fit : a FIT.yaml, or what would stand in it
    sample : simulations by name
    observables : averages and profiles by name
    reweight, perturb, report : settings of these stages; without `perturb` there is no such stage
    settings : by name, what replaces parts of all the above; the first one is the default
    """

    fit: str | dict[str, Any]
    sample: dict[str, Sample]
    observables: dict[str, Observable]
    reweight: Reweighting = Reweighting()
    perturb: Perturbation | None = None
    report: Report = Report()
    settings: dict[str, dict[str, Any]] = {}


def merge(base, override):
    """`base` with the values of `override` in place of its own, mapping by mapping."""
    merged = dict(base)
    for key, value in override.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def read_study(path, setting=None):
    """The study in the file `path`, with one of its settings applied.

    Parameters
    ----------
    path : STUDY.yaml
    setting : name under `settings`; by default the first one there

    Returns
    -------
    settings : StudySettings
        its `fit` is a mapping; relative paths inside it are relative to the file it stood in
    name : str or None, of the setting
    fit_folder : Path, what the paths of the fit are relative to
    """
    path = Path(path)
    content = read_yaml(path)
    # the study as written must make sense before a setting changes it
    known = convert(content, StudySettings, str(path)).settings
    if setting is not None and setting not in known:
        raise UsageError(f"{path}: has no setting {setting!r}; it has {', '.join(known) or 'none'}")
    name = setting or next(iter(known), None)
    if name is not None:
        override = known[name]
        if "settings" in override:
            raise SettingsError(f"{path}, settings.{name}: a setting cannot hold settings; move them one level up")
        samples = override.get("sample")
        for sample in samples if isinstance(samples, dict) else ():
            if sample not in content["sample"]:
                raise SettingsError(f"{path}, settings.{name}: there is no sample {sample!r}; see `sample`")
    fit, fit_folder = content["fit"], path.parent
    if isinstance(fit, str):
        fit_path = path.parent / fit
        fit, fit_folder = read_yaml(fit_path), fit_path.parent
    content = {**content, "fit": fit}
    if name is not None:
        content = merge(content, known[name])
    study = convert(content, StudySettings, f"{path}, settings.{name}" if name else str(path))
    _check(study, path)
    return study, name, fit_folder


def _check_perturbation(perturb, samples, where):
    if not (perturb.references and perturb.frames):
        raise SettingsError(f"{where}: name at least one reference, and one sample under `frames`")
    for sample in perturb.frames:
        if sample not in samples:
            raise SettingsError(f"{where}.frames: there is no sample {sample!r}; see `sample`")
    for name, pair in perturb.differences.items():
        for sample in pair:
            if sample not in perturb.frames:
                raise SettingsError(f"{where}.differences.{name}: there are no frames of {sample!r}; see `frames`")


def _check(study, path):
    if not study.observables:
        raise SettingsError(f"{path}: there is nothing to average; name at least one observable")
    for name, observable in study.observables.items():
        where = f"{path}, observables.{name}"
        for sample in (observable.source, observable.relative_to):
            if sample is not None and sample not in study.sample:
                raise SettingsError(f"{where}: there is no sample {sample!r}; see `sample`")
        given = [observable.property, observable.cv, observable.relative_to]
        if sum(one is not None for one in given) != 1:
            raise SettingsError(f"{where}: give one of property, cv and relative_to")
        if observable.profile is not None:
            if observable.cv is None:
                raise SettingsError(f"{where}: a profile needs a cv")
            first, last = observable.profile.range
            if not first < last:
                raise SettingsError(f"{where}: the range of the bins must increase, not go from {first} to {last}")
    if study.perturb is not None:
        _check_perturbation(study.perturb, study.sample, f"{path}, perturb")
