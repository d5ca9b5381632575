"""Which stages are done: each is remembered with what it was made from, and skipped while that has not changed."""

import hashlib
import json
from pathlib import Path

import msgspec

from comitia.files import file_hash, to_json, write_json


def digest(content):
    """SHA-256 of nested dictionaries, lists and numbers, whatever the order of the keys."""
    return hashlib.sha256(json.dumps(json.loads(to_json(content)), sort_keys=True).encode()).hexdigest()


class Stage(msgspec.Struct):
    """A finished stage: the digest of what it was made from, and that of every output by name."""

    made_from: str
    outputs: dict[str, str]


class Ledger:
    """The stages of a study that are done, kept in `stages.json` of its folder.

    Parameters
    ----------
    folder : Path, of the study's results; outputs are named relative to it
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        self.path = self.folder / "stages.json"
        try:
            self.stages = msgspec.json.decode(self.path.read_bytes(), type=dict[str, Stage])
        except (FileNotFoundError, msgspec.DecodeError):
            self.stages = {}  # nothing done yet, or a damaged ledger: everything is done again

    def is_current(self, stage, made_from):
        """Whether the stage was finished from these very inputs and its outputs are still what it wrote."""
        known = self.stages.get(stage)
        if known is None or known.made_from != digest(made_from):
            return False
        outputs = known.outputs.items()
        return all((self.folder / name).is_file() and file_hash(self.folder / name) == h for name, h in outputs)

    def finish(self, stage, made_from, outputs):
        """Remember a finished stage; `outputs` are paths of files inside the folder."""
        names = [Path(path).relative_to(self.folder).as_posix() for path in outputs]
        self.stages[stage] = Stage(digest(made_from), {name: file_hash(self.folder / name) for name in names})
        write_json(self.path, msgspec.to_builtins(self.stages))

    def outputs(self, stage):
        """Name and digest of every output of a finished stage: what the next stage is made from."""
        return self.stages[stage].outputs
