"""i-PI's XML input and RESTART: what a run needs to know of it, and a copy for another folder."""

import hashlib
import logging
import math
import re
import xml.etree.ElementTree as ElementTree
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

from comitia.engines.ipi_units import conversion
from comitia.engines.plumed import time_unit
from comitia.errors import SettingsError

log = logging.getLogger(__name__)

DEFAULT_PREFIX, DEFAULT_TOTAL_STEPS, DEFAULT_PORT = "i-pi", 1000, 65535
DEFAULT_FLOAT_FORMAT, DEFAULT_LATENCY = "%16.8e", 1e-4
STRUCTURE_MODES = ("xyz", "pdb", "ase", "chk")
LONGEST_LATENCY = 2e-3  # s; i-PI sleeps as long once per force call
FEWEST_DIGITS = 12  # after the point, for committee energies of totals


@dataclass(frozen=True)
class ForceSocket:
    """One `<ffsocket>`: where a client connects.

    Parameters
    ----------
    name, mode, address : str; mode unix, inet or shm
    port : int
    batch_size : int, structures in one message
    latency : float, s
    nested : int or None, its number among the sockets inside another force field, for instance <ffcommittee>: there
        i-PI 3.3 does not apply the prefix of its sockets, but always `/tmp/ipi_`
    """

    name: str
    mode: str
    address: str
    port: int
    batch_size: int
    latency: float
    nested: int | None = None


class _NoDoctype(ElementTree.TreeBuilder):
    def doctype(self, name, pubid, system):
        raise SettingsError("a document type declaration has no place in it; remove the <!DOCTYPE ...>")


def read_xml(path):
    """Root element of an XML file; declarations of types and entities are refused.

    Raises
    ------
    SettingsError
        if the file cannot be read or is not XML.
    """
    path = Path(path)
    try:
        return ElementTree.fromstring(path.read_bytes(), ElementTree.XMLParser(target=_NoDoctype()))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror or error}); check the path") from error
    except ElementTree.ParseError as error:
        raise SettingsError(f"{path}: not valid XML ({error}); correct it there") from error
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from error
    except (ValueError, LookupError) as error:  # an encoding that does not exist, or does not fit
        raise SettingsError(f"{path}: cannot be decoded ({error}); save it as UTF-8") from error


def _text(element, tag, default):
    found = element.find(tag)
    return default if found is None or not (found.text or "").strip() else found.text.strip()


def _list(text):
    """Words of `[ a, b ]`."""
    return [word.strip() for word in text.strip("[] \n").split(",") if word.strip()]


def _number(kind, text, what):
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise SettingsError(f"{what} is {text!r}, which is no number")
    return kind(value)


class IpiInput:
    """An input of i-PI, or a RESTART, which has the same form.

    Parameters
    ----------
    path : XML file

    Raises
    ------
    SettingsError
        if it cannot be read, is not an input of i-PI, or asks for what a client here cannot do.
    """

    def __init__(self, path):
        self.path = Path(path)
        self.root = read_xml(path)
        if self.root.tag != "simulation":
            raise SettingsError(f"{path}: the outermost element is <{self.root.tag}>, i-PI's inputs have <simulation>")
        output = self.root.find("output")
        self.prefix = DEFAULT_PREFIX if output is None else output.get("prefix", DEFAULT_PREFIX).strip()
        self.total_steps = _number(int, _text(self.root, "total_steps", DEFAULT_TOTAL_STEPS), f"{path}: <total_steps>")
        self.step = _number(int, _text(self.root, "step", 0), f"{path}: <step>")
        self.float_format = self.root.get("floatformat", DEFAULT_FLOAT_FORMAT)
        self.sockets = tuple(self._sockets())

    def _nested_sockets(self, root):
        """The <ffsocket> elements inside another force field."""
        direct = set(root.findall("ffsocket"))
        return [element for element in root.iter("ffsocket") if element not in direct]

    def _sockets(self):
        nested = self._nested_sockets(self.root)
        for element in self.root.iter("ffsocket"):
            where = f"{self.path}: <ffsocket name='{element.get('name', '')}'>"
            mode = element.get("mode", "inet").strip()
            if mode not in ("unix", "inet", "shm"):
                raise SettingsError(f"{where} has mode {mode!r}; comitia serve speaks unix, inet and shm")
            batch_size = _number(int, _text(element, "batch_size", 1), f"{where} <batch_size>")
            if batch_size < 1:
                raise SettingsError(f"{where} has batches of {batch_size} structures; give at least 1")
            yield ForceSocket(
                name=element.get("name", "").strip(),
                mode=mode,
                address=_text(element, "address", "localhost"),
                port=_number(int, _text(element, "port", DEFAULT_PORT), f"{where} <port>"),
                batch_size=batch_size,
                latency=_number(float, _text(element, "latency", DEFAULT_LATENCY), f"{where} <latency>"),
                nested=nested.index(element) if element in nested else None,
            )

    @property
    def n_beads(self):
        """The largest number of beads of any system."""
        counts = [element.get("nbeads") for tag in ("initialize", "beads") for element in self.root.iter(tag)]
        counts = [int(count) for count in counts if count and count.strip().isdigit()]
        return max(counts, default=1) or 1

    @property
    def n_systems(self):
        """The number of systems: replicas of a template count one by one."""
        return max(1, len(self.root.findall("system")) + len(self.root.findall("system_template/instance")))

    @property
    def exchanges_replicas(self):
        """Whether systems exchange their ensembles."""
        return any(element.get("mode", "").strip() == "remd" for element in self.root.iter("smotion"))

    def replicas(self):
        """Temperature (K) of each system by the prefix of its output, those of a template one by one."""
        systems = list(self.root.findall("system"))
        for template in self.root.iter("system_template"):
            labels = _list(_text(template, "labels", ""))
            text = ElementTree.tostring(template.find("template/system"), encoding="unicode")
            for instance in template.findall("instance"):
                own = text
                for label, value in zip(labels, _list(instance.text or ""), strict=False):
                    own = own.replace(label, value)
                systems.append(ElementTree.fromstring(own))
        found = {}
        for system in systems:
            prefix, temperature = system.get("prefix", "").strip(), system.find("ensemble/temperature")
            where = f"{self.path}: <temperature> of <system prefix='{prefix}'>"
            if temperature is None or not prefix or prefix in found:
                raise SettingsError(f"{where} is not there, or not the only one; give each system a prefix of its own")
            factor, _ = conversion("temperature", temperature.get("units", ""))
            found[prefix] = factor * _number(float, (temperature.text or "").strip(), where)
        return found

    @property
    def uses_plumed(self):
        """Whether a bias comes from PLUMED."""
        return self.root.find(".//ffplumed") is not None

    def plumed_inputs(self):
        """Paths of the inputs of PLUMED that are there."""
        named = (self.find_file(_text(element, "plumed_dat", "plumed.dat")) for element in self.root.iter("ffplumed"))
        return [path for path in named if path is not None]

    def plumed_time(self):
        """(time that PLUMED had reached when this state was saved, length of a step), in its unit; None without PLUMED.

        i-PI tells PLUMED that a step takes a picosecond; the input of PLUMED may choose another unit.
        """
        times = []
        for element in self.root.iter("ffplumed"):
            steps = _number(int, _text(element, "plumed_step", 0), f"{self.path}: <plumed_step>")
            path = self.find_file(_text(element, "plumed_dat", "plumed.dat"))
            unit = 1.0 if path is None else time_unit(path)
            times.append((steps / unit, 1.0 / unit))
        return max(times, default=None)

    def _first_instance(self, text):
        """`text` with the labels of a <system_template> replaced by those of its first instance."""
        for template in self.root.iter("system_template"):
            labels = _text(template, "labels", "").strip("[] ").split(",")
            values = _text(template, "instance", "").strip("[] ").split(",")
            for label, value in zip(labels, values, strict=False):
                if label.strip():
                    text = text.replace(label.strip(), value.strip())
        return text

    def find_file(self, name):
        """A file named in the input: as i-PI finds it, from the working folder, or beside the input."""
        name = self._first_instance(name)
        candidates = [Path.cwd() / name, self.path.parent / name]
        return next((path.resolve() for path in candidates if path.is_file()), None)

    def structure_file(self):
        """(path, mode) of the file that gives the atoms, or None for an input that carries them itself."""
        if self.root.find(".//beads/names") is not None:
            return None
        for tag in ("file", "positions"):
            for element in self.root.iterfind(f".//initialize/{tag}"):
                mode = element.get("mode", "chk").strip()
                if mode in STRUCTURE_MODES:
                    name = (element.text or "").strip()
                    path = self.find_file(name)
                    if path is None:
                        raise SettingsError(f"{self.path}: the structure file {name} is not there; correct <{tag}>")
                    return path, mode
        raise SettingsError(
            f"{self.path}: no <initialize> with a <file> of mode {', '.join(STRUCTURE_MODES)}; "
            "the client learns the species of the atoms from it"
        )

    def structure_units(self):
        """Units of positions and cell that the element of the structure file names, as i-PI calls them."""
        for tag in ("file", "positions"):
            for element in self.root.iterfind(f".//initialize/{tag}"):
                found = {"positions": element.get("units", "").strip(), "cell": element.get("cell_units", "").strip()}
                return {name: unit for name, unit in found.items() if unit not in ("", "automatic")}
        return {}

    def symbols(self):
        """Chemical symbols that a RESTART or checkpoint carries."""
        names = self.root.find(".//beads/names")
        text = "" if names is None else (names.text or "")
        found = [symbol for symbol in re.split(r"[\s,\[\]]+", text) if symbol]
        if not found:
            raise SettingsError(f"{self.path}: holds no names of atoms; it is no checkpoint of i-PI")
        return found

    def step_files(self):
        """Names of the property files that count steps, most frequent first."""
        found = []
        for element in self.root.iterfind("output/properties"):
            names = [name.strip() for name in (element.text or "").strip().strip("[]").split(",")]
            if "step" in names:
                stride = _number(int, element.get("stride", "1"), f"{self.path}: stride of <properties>")
                found.append((stride, element.get("filename", "out").strip()))
        return [f"{self.prefix}.{name}" for _, name in sorted(found)]

    def identity(self):
        """SHA-256 of all that decides what is sampled: a run may only be continued by the same."""
        root = deepcopy(self.root)
        for element in root.iterfind("total_steps"):
            root.remove(element)
        for element in root.iter():
            element.text = " ".join((element.text or "").split())
            element.tail = None
        return hashlib.sha256(ElementTree.tostring(root)).hexdigest()

    def warnings(self):
        """Sentences about settings that cost precision or time."""
        said = []
        digits = re.search(r"\.(\d+)", self.float_format)
        if digits is None or int(digits.group(1)) < FEWEST_DIGITS:
            said.append(
                f"{self.path}: floatformat {self.float_format!r} keeps too few digits of the members' energies; "
                "write <simulation floatformat='%24.16e'>"
            )
        if self.root.find("output") is not None and self.root.find("output/checkpoint") is None:
            said.append(
                f"{self.path}: <output> has no <checkpoint>, so that a run that is killed begins anew; add "
                "<checkpoint filename='checkpoint' stride='200' overwrite='True'/>"
            )
        n_structures = self.n_beads * self.n_systems
        for socket in self.sockets:
            if socket.latency > LONGEST_LATENCY:
                said.append(
                    f"{self.path}: <ffsocket name='{socket.name}'> sleeps {socket.latency:g} s at every force call; "
                    f"write <latency> {DEFAULT_LATENCY:g} </latency>"
                )
            if n_structures % socket.batch_size:
                said.append(
                    f"{self.path}: batches of {socket.batch_size} do not divide the {n_structures} structures of a "
                    "step; the rest of the last batch is sent for nothing"
                )
        return said

    def copy_for(self, folder, total_steps=None, nested_name=None):
        """Text of this input for i-PI running in `folder`: named files found, and `total_steps` set.

        `nested_name` begins the addresses of nested unix sockets, whose place is shared with all other runs.
        None where the file itself will do.
        """
        root = deepcopy(self.root)
        changed = False
        for number, element in enumerate(self._nested_sockets(root) if nested_name else []):
            if element.get("mode", "inet").strip() in ("unix", "shm"):
                address = element.find("address")
                address = ElementTree.SubElement(element, "address") if address is None else address
                address.text = f" {nested_name}{number} "
                changed = True
        if total_steps is not None and total_steps != self.total_steps:
            changed = True
            element = root.find("total_steps")
            if element is None:
                element = ElementTree.SubElement(root, "total_steps")
            element.text = f" {total_steps} "
        for element in root.iter():
            is_structure = element.get("mode", "").strip() in STRUCTURE_MODES and element.tag != "ffsocket"
            if not (is_structure or element.tag in ("plumed_dat", "pes_path")):
                continue
            name = (element.text or "").strip()
            if not name or Path(name).is_absolute() or (Path(folder) / self._first_instance(name)).is_file():
                continue
            found = self.find_file(name)
            if found is not None:
                beside_input = (self.path.parent / self._first_instance(name)).is_file()
                element.text = f" {((self.path.parent if beside_input else Path.cwd()) / name).resolve()} "
                changed = True
        return ElementTree.tostring(root, encoding="unicode") if changed else None
