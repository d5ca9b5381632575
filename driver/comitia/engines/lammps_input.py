"""An input of LAMMPS that stops where the forces of a potential are to be put in, and goes on from there.

Only LAMMPS knows which line it reads next (`jump`, `if`, `next`), so the text gets lines that end the reading of the
file and labels at which it is taken up again; the file is otherwise as it was, and so are its loops.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

from comitia.errors import SettingsError

ATTACHED, STOPPED, PLACE = "comitia_attached", "comitia_stopped", "comitia_place"
"""Variables of LAMMPS: whether the forces are in, whether the run was stopped, and the place where reading ended."""

_COMPUTES = re.compile(r"\b(run|minimize|rerun|dynamical_matrix|third_order)\b")  # commands that ask for forces
_EXTERNAL = re.compile(r"^fix\s+(\S+)\s+\S+\s+external\s+pf/callback\b\s*(.*)$")
_QUIT = re.compile(r"(?<=\s)(?:quit|\"\s*quit(?:\s+\w+)?\s*\")(?=\s|$)")
_NOWHERE = "/dev/null"
DEFAULT_FIX = "comitia"  # where the input has none of its own


@dataclass(frozen=True)
class Place:
    """Where the forces are put in.

    Attributes
    ----------
    fix : str or None, name of the `fix external` of the input, or None where it has none
    species : list of str or None, chemical symbols of the line `pair_coeff * * MODEL Si O`
    optional : bool, whether it is too early where no atoms exist, instead of an error
    """

    fix: str | None = None
    species: list[str] | None = None
    optional: bool = False


@dataclass
class Script:
    """Text of an input with places to stop at, by their number."""

    text: str
    places: dict[int, Place] = field(default_factory=dict)
    has_pair_style: bool = False  # `pair_style comitia`
    computes: dict[str, str] = field(default_factory=dict)  # of it: `c_ID` to what says the same here
    model: str | None = None  # of its `pair_coeff`


def logical_lines(text):
    """Commands of an input as LAMMPS joins them, by `&` at the end of a line and by triple quotes."""
    lines, open_quotes = [], False
    joined = False
    for line in text.splitlines():
        if joined:
            lines[-1] += "\n" + line
        else:
            lines.append(line)
        if line.count('"""') % 2:
            open_quotes = not open_quotes
        joined = open_quotes or line.rstrip().endswith("&")
    return lines


def _words(line):
    """The words of a command without its comment; joined lines as one."""
    text = re.sub(r"&\s*\n", " ", line).strip()
    if text.startswith("#"):
        return []
    return re.split(r"\s+#", text)[0].split()


def prepare(path, cutoff):
    """Put the places to stop at into an input.

    Forces are put in at the line `fix ID all external pf/callback 1 1` if there is one; at the line
    `pair_coeff * * MODEL Si O` of `pair_style comitia`, which is read as if the pair style were there, and so are
    `compute ID all pair comitia` and the scalar of `compute ID all comitia/sigma`; else before the first command that
    computes forces. After `clear` they are put in again.

    Parameters
    ----------
    path : Path of the input
    cutoff : float, Å, that takes the place of the pair style's

    Returns
    -------
    Script

    Raises
    ------
    SettingsError
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise SettingsError(f"{path}: cannot be read ({reason}); give an input of LAMMPS") from error
    script = Script("")
    itself = re.compile(rf"\bjump\s+{re.escape(str(path))}(?=\s|\"|$)")
    out = [f"variable {name} string 0" for name in (ATTACHED, STOPPED, PLACE)]
    for line in logical_lines(text):
        line = itself.sub("jump SELF", line)
        for name, here in script.computes.items():
            line = re.sub(rf"\b{re.escape(name)}(?!\w)", here, line)
        words = _words(line)
        out += _prepared(script, path, line, words, cutoff) if words else [line]
    script.text = "\n".join(out) + "\n"
    return script


def _prepared(script, path, line, words, cutoff):
    """The lines that take the place of a command."""
    where = f"{path}, line `{' '.join(words)}`"
    if found := _EXTERNAL.match(" ".join(words)):
        if found.group(2).split() != ["1", "1"]:
            raise SettingsError(f"{where}: forces are computed at every step; write `pf/callback 1 1`")
        return [line, *_stop(script, Place(fix=found.group(1)))]
    if words[0] == "pair_style" and "comitia" in words[1:]:
        if words[1] != "comitia":
            raise SettingsError(
                f"{where}: beside another pair style leave out comitia; its forces are put in before the first run"
            )
        script.has_pair_style = True
        return [f"pair_style zero {cutoff!r} nocoeff"]
    if words[0] == "pair_coeff" and script.has_pair_style:
        if words[1:3] != ["*", "*"] or len(words) < 5:
            raise SettingsError(f"{where}: write `pair_coeff * * MODEL`, and a chemical symbol for each atom type")
        script.model = words[3]
        return ["pair_coeff * *", *_stop(script, Place(species=words[4:]))]
    if script.has_pair_style and words[0] == "compute" and words[3:] in (["pair", "comitia"], ["comitia/sigma"]):
        fix = f"f_{DEFAULT_FIX}"
        script.computes[f"c_{words[1]}"] = fix if words[3] == "pair" else f"{fix}[1]"
        return []
    if words[0] == "quit":
        return [f"jump {_NOWHERE}"]
    if words[0] == "clear":
        return [line, f"variable {ATTACHED} string 0"]
    if words[0] == "if":
        line = _QUIT.sub(f'"jump {_NOWHERE}"', line)
    computes = bool(_COMPUTES.fullmatch(words[0]))
    inside = {"if": line, "include": _included(path, words)}.get(words[0], "")
    if not (computes or _COMPUTES.search(inside)):
        return [line]
    return [
        *_stop(script, Place(optional=not computes), f'if "${{{ATTACHED}}} == 0" then'), line,
        f'if "${{{STOPPED}}} == 1" then "jump {_NOWHERE}"',
    ]  # fmt: skip


def _stop(script, place, condition=None):
    """Lines that end the reading here, and the label at which it goes on."""
    number = len(script.places) + 1
    script.places[number] = place
    commands = [f"variable {PLACE} string {number}", f"jump {_NOWHERE}"]
    if condition is not None:
        commands = [f"{condition} " + " ".join(f'"{command}"' for command in commands)]
    return [*commands, f"label {label(number)}"]


def label(number):
    """The label at which reading goes on after place `number`."""
    return f"comitia_place_{number}"


def _included(path, words):
    """Text of a file that an input includes; nothing where its name is known to LAMMPS only."""
    included = Path(words[1] if words[0] == "include" and len(words) > 1 else "")
    if "$" in str(included) or not included.is_file():
        return ""
    text = included.read_text(encoding="utf-8", errors="replace")
    for line in logical_lines(text):
        words = " ".join(_words(line))
        if _EXTERNAL.match(words) or re.match(r"pair_style\s+comitia\b", words):
            raise SettingsError(f"{path}: the line `{words}` stands in {included}; move it into the input itself")
    return text
