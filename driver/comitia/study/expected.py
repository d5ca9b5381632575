"""Numbers that a study must reproduce, with their tolerances: what continuous integration checks."""

import json
from pathlib import Path

from comitia.errors import SeriesError, SettingsError


def _find(results, path):
    value = results
    for key in path.split("/"):
        try:
            value = value[key]
        except (KeyError, TypeError) as error:
            raise SeriesError(f"results.json has no {path}; it was expected there") from error
    return value


def read_expected(path):
    """The numbers that a file expects: place -> bounds.

    Raises
    ------
    SettingsError
        if the file cannot be read, or a bound is not complete.
    """
    try:
        expected = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path}: cannot be read as JSON ({error}); check the path") from error
    for place, bound in expected.items() if isinstance(expected, dict) else ((str(path), None),):
        keys = set(bound) if isinstance(bound, dict) else set()
        known = keys == {"value", "tolerance"} or (keys and keys <= {"minimum", "maximum"})
        if not known or not all(isinstance(number, int | float) for number in bound.values()):
            raise SettingsError(f"{path}, {place}: give value and tolerance, or minimum and maximum, as numbers")
    return expected


def compare(results, path):
    """Compare the content of results.json with a file of expected numbers.

    The file maps the place of a number, such as `observables/NAME/value`, to `{"value", "tolerance"}` or to
    `{"minimum"}`, `{"maximum"}` or both.

    Raises
    ------
    SeriesError
        that names every number which is not as expected.
    """
    wrong = []
    for place, bound in read_expected(path).items():
        value = _find(results, place)
        if "value" in bound:
            low, high = bound["value"] - bound["tolerance"], bound["value"] + bound["tolerance"]
        else:
            low, high = bound.get("minimum", float("-inf")), bound.get("maximum", float("inf"))
        if value is None or not low <= value <= high:
            wrong.append(f"{place} is {value}, expected {low:g} to {high:g}")
    if wrong:
        raise SeriesError(f"{path}: {'; '.join(wrong)}")
