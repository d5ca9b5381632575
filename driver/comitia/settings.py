"""YAML inputs, read strictly: an unknown key is an error that names the nearest right one."""

import difflib
import math
import typing
from pathlib import Path

import msgspec
import yaml

from comitia.errors import SettingsError


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice."""


def _mapping_without_duplicates(loader, node, deep=False):
    mapping = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise SettingsError(f"a key is a list or a mapping (line {key_node.start_mark.line + 1}); write a name")
        key = loader.construct_object(key_node, deep=deep)
        if key in mapping:
            raise SettingsError(f"key {key!r} is given twice (line {key_node.start_mark.line + 1}); keep one of them")
        mapping[key] = loader.construct_object(value_node, deep=deep)
    return mapping


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping_without_duplicates)


def read_yaml(path):
    """The mapping in a YAML file.

    Raises
    ------
    SettingsError
        if the file cannot be read, is not YAML, repeats a key or holds no mapping.
    """
    path = Path(path)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read ({error}); check the path") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2026-99-99
        raise SettingsError(f"{path}: not valid YAML ({' '.join(str(error).split())}); correct it there") from error
    except RecursionError as error:
        raise SettingsError(f"{path}: nested too deeply to be settings; check that it is the right file") from error
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from error
    if not isinstance(content, dict):
        raise SettingsError(f"{path}: holds no settings; it must be lines of the form `key: value`")
    return content


def _struct_types(annotation):
    """The settings classes that an annotation such as `Weights | None` or `dict[str, Stage]` admits."""
    origin = typing.get_origin(annotation)
    if origin is dict:
        return [], _struct_types(typing.get_args(annotation)[1])[0]
    if origin is not None:
        inner = [_struct_types(argument) for argument in typing.get_args(annotation)]
        return [t for plain, _ in inner for t in plain], [t for _, values in inner for t in values]
    return ([annotation], []) if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct) else ([], [])


def _check_keys(content, structs, where):
    if not isinstance(content, dict) or not structs:
        return
    fields = {}
    for struct in structs:
        hints = typing.get_type_hints(struct)
        fields |= {field.encode_name: hints[field.name] for field in msgspec.structs.fields(struct)}
    for key, value in content.items():
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(sorted(fields))}"
            raise SettingsError(f"{where}: unknown key {key!r}; {hint}")
        plain, values = _struct_types(fields[key])
        _check_keys(value, plain, f"{where}, {key}")
        if values and isinstance(value, dict):
            for name, item in value.items():
                _check_keys(item, values, f"{where}, {key}.{name}")


def _check_finite(value, where):
    if isinstance(value, float) and not math.isfinite(value):
        raise SettingsError(f"{where}: {value} is not a finite number; give one")
    for key, inner in value.items() if isinstance(value, dict) else ():
        _check_finite(inner, f"{where}, {key}")
    for index, inner in enumerate(value if isinstance(value, list) else ()):
        _check_finite(inner, f"{where}[{index}]")


def convert(content, settings_type, where):
    """Settings of type `settings_type` (a `msgspec.Struct`) from a mapping.

    Raises
    ------
    SettingsError
        naming the place, the key and what is expected there.
    """
    try:
        _check_keys(content, [settings_type], where)
        _check_finite(content, where)
        return msgspec.convert(content, settings_type)
    except RecursionError as error:
        raise SettingsError(f"{where}: an alias holds itself; write the value out") from error
    except msgspec.ValidationError as error:
        raise SettingsError(f"{where}: {error}; see the commented templates in inputs/") from error


def load(path, settings_type):
    """Read the YAML file `path` into `settings_type`."""
    return convert(read_yaml(path), settings_type, str(path))
