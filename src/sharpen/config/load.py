"""Recipes from YAML or Python, and every fault in them said at once, in the recipe's own words."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from sharpen.config.data import MANY
from sharpen.config.peers import ours, told
from sharpen.config.recipe import Recipe
from sharpen.errors import ConfigError

Model = type[BaseModel]

RESOLVED = "resolved"
"""The key under which a run's recipe.yaml notes versions, hardware and data hashes; no part of the recipe."""

SCHEMA_ID = "https://sharpen.dev/schema/recipe.json"


def load(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a YAML file, changed by overrides such as `stages.1.steps=2` or `stages.rft.steps=2`.

    Raises one ConfigError that lists every fault.
    """
    values = read_mapping(path, "recipe", "Begin with `model: ...`")
    values.pop(RESOLVED, None)
    for override in overrides:
        _override(values, override)
    return parse(values)


def read_mapping(path: Path, what: str, remedy: str) -> dict[str, Any]:
    """The mapping in a YAML or JSON file. Raises ConfigError, with the remedy where it is none."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"cannot read the {what}: {error.strerror}", value=str(path), remedy="Check the path"
        ) from error
    values = _yaml(text, str(path))
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: a {what} is a mapping", value=values, remedy=remedy)
    return values


def parse(values: Mapping[str, Any]) -> Recipe:
    """The recipe that plain values describe. Raises one ConfigError that lists every fault."""
    try:
        return Recipe.model_validate(dict(values))
    except ValidationError as error:
        raise explain(error, Recipe) from error


def dump(recipe: Recipe) -> str:
    """YAML with every default written out; `load` reads it back to an equal recipe."""
    return as_yaml(recipe.model_dump(mode="json"))


def as_yaml(values: Mapping[str, Any]) -> str:
    """Plain values as YAML that `load` reads back: text that looks like a number to it is quoted."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def schema() -> dict[str, Any]:
    """The JSON Schema of a recipe; the descriptions are the models' docstrings."""
    described = Recipe.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA_ID, **described}


def fields(model: Model) -> dict[str, FieldInfo]:
    """A model's fields, by the keys under which a recipe has them."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def explain(error: ValidationError, model: Model) -> ConfigError:
    """Pydantic's faults in `model` as one ConfigError, without pydantic's words and union tags."""
    faults = [_fault(dict(detail), model) for detail in error.errors(include_url=False)]
    if len(faults) == 1:
        return faults[0]
    return ConfigError("\n  ".join([f"{len(faults)} faults:", *(str(fault) for fault in faults)]))


# Faults


def _fault(detail: dict[str, Any], model: Model) -> ConfigError:
    path, here, owner = _place(detail["loc"], model)
    key, value, context = str((detail["loc"] or ("",))[-1]), detail["input"], detail.get("ctx", {})
    match detail["type"]:
        case "missing":
            about = fields(owner)[key].description if owner else ""
            return ConfigError("is missing", path=path, remedy=about or "")
        case "extra_forbidden":
            return ConfigError(f"unknown key `{key}`; {_instead(key, path, owner, model)}", path=path, value=value)
        case "union_tag_not_found":
            return ConfigError(f"needs a `type`: {', '.join(_tags(here))}", path=path, value=value)
        case "union_tag_invalid":
            tag, path = context["tag"], f"{path}.type"
            return ConfigError(f"unknown type `{tag}`; {_suggest(tag, _tags(here), 'types')}", path=path)
        case "model_type" | "model_attributes_type" | "dict_type":
            keys = ", ".join(fields(here[0])) if len(here) == 1 else "type, ..."
            wanted = f"should be a mapping with the keys {keys}" if here else "should be a mapping"
            return ConfigError(wanted, path=path, value=value)
        case "value_error":
            return ConfigError(str(context["error"]), path=path)
    text = detail["msg"].removeprefix("Input ").removeprefix("String ")
    return ConfigError(text[0].lower() + text[1:], path=path, value=value)


def _instead(key: str, path: str, owner: Model | None, root: Model) -> str:
    """What to write for an unknown key: another trainer's name for it, another place, or a similar key."""
    if text := ours(key, path):
        return text if root is Recipe else re.sub(r"stages\.N\.", "", text)
    found = list(_places(key, root))
    kinds = [f"`{kind}`" for place, kind in found if _bare(place) == _bare(path)]
    if kinds:
        return f"it is a key of the type {' or '.join(dict.fromkeys(kinds))}"
    if near := _near(path, list(dict(found))):
        return f"it stands in {told(' or '.join(near[:3]), path)}"
    return _suggest(key, list(fields(owner)) if owner else [], "keys")


def _bare(path: str) -> str:
    """The path without the numbers in lists: `data` may be a source or a list of them."""
    return re.sub(r"\.(N|\d+)(?=\.|$)", "", path)


def _near(path: str, places: list[str]) -> list[str]:
    """The places that were most likely meant: the next on the way up, or those in the same part of the recipe.

    Those within a grader only where there are no others: a judge samples too.
    """
    above = [place for place in places if _bare(path).startswith("".join(_bare(place).rpartition(".")[:2]))]
    if above:
        return [max(above, key=len)]
    same = [place for place in places if place.partition(".")[0] == path.partition(".")[0]] or places
    return [place for place in same if ".grader." not in place] or same


def _places(key: str, model: Model, path: str = "") -> Iterator[tuple[str, str]]:
    """Where in a model, and below it, a key stands, and the type of what has it; `N` for the number in a list."""
    for name, field in fields(model).items():
        if name == key and key not in ("type", "name"):
            yield f"{path}{name}", _tag(model) if "type" in model.model_fields else ""
        several = get_origin(field.annotation) is tuple
        for inner in _models(field.annotation):
            yield from _places(key, inner, f"{path}{name}{'.N' if several else ''}.")


class _Place(NamedTuple):
    """A place in a recipe."""

    path: str
    here: list[Model]  # the models that may stand there
    owner: Model | None  # the model that holds the path's last key


def _place(loc: tuple[int | str, ...], model: Model) -> _Place:
    """Where pydantic's location lies, found along the models' fields."""
    path: list[str] = []
    here: list[Model] = [model]
    owner: Model | None = None
    keyed = False  # a mapping's key comes next, such as a grader's name in a `multi`
    for part in loc:
        if keyed:
            keyed = False
            path.append(str(part))
            continue
        if len(here) > 1 and isinstance(part, str):  # the union's member: not in the recipe
            here = here if part == MANY else [member for member in here if _tag(member) == part]
            continue
        path.append(str(part))
        if isinstance(part, str):
            owner = here[0] if here else None
            field = fields(owner).get(part) if owner else None
            here = _models(field.annotation) if field else []
            keyed = field is not None and get_origin(field.annotation) is dict
    return _Place(".".join(path), here, owner)


def _models(annotation: Any) -> list[Model]:
    """The models an annotation mentions: several where it is a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    found = [model for argument in get_args(annotation) for model in _models(argument)]
    return list(dict.fromkeys(found))


def _tag(model: Model) -> str:
    return str(model.model_fields["type"].default)


def _tags(models: list[Model]) -> list[str]:
    return [_tag(model) for model in models]


def _suggest(word: str, known: list[str], kind: str) -> str:
    close = get_close_matches(word, known, n=1)
    return f"did you mean `{close[0]}`?" if close else f"the {kind} are {', '.join(known)}"


# Overrides


def _override(values: dict[str, Any], override: str) -> None:
    """Set one value in place; mappings on the way are made where missing."""
    path, equals, text = override.partition("=")
    parts = path.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError("not an override", value=override, remedy="Write a.b=value")
    value = _yaml(text.encode(), path)
    here: Any = values
    for depth, part in enumerate(parts):
        key = _key(here, part, ".".join(parts[: depth + 1]))
        if depth == len(parts) - 1:
            here[key] = value
        else:
            if isinstance(here, dict) and here.get(key) is None:
                here[key] = {}
            here = here[key]


def _key(here: Any, part: str, path: str) -> str | int:
    """`part` as a key of `here`: in a list an index, or the name of a stage or eval."""
    if isinstance(here, dict):
        return part
    if not isinstance(here, list):
        raise ConfigError("nothing stands below a value", path=path, value=here, remedy="Shorten the path")
    names = [str(entry.get("name", entry.get("type"))) if isinstance(entry, dict) else "" for entry in here]
    if part in names:
        return names.index(part)
    if re.fullmatch(r"[0-9]{1,9}", part) and int(part) < len(here):
        return int(part)
    raise ConfigError(
        "no such entry of the list",
        path=path,
        value=part,
        remedy=f"Use an index below {len(here)}, or one of the names {', '.join(filter(None, names))}",
    )


# YAML: what JSON can say, and no more


class _Loader(yaml.SafeLoader):
    """Safe YAML without dates, sets and binary; `1e-5` is a number; keys are text and occur once."""

    def mapping(self, node: yaml.MappingNode) -> dict[str, Any]:
        """A mapping; built deep at once, so that one which contains itself is refused."""
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag not in (_TEXT, _MERGE):
                raise _wrong(key, "a key is not text; put it in quotes")
            if key.value in seen:
                raise _wrong(key, f"the key `{key.value}` occurs twice")
            seen.add(key.value)
        return {str(key): value for key, value in self.construct_mapping(node, deep=True).items()}

    def sequence(self, node: yaml.SequenceNode) -> list[Any]:
        """A list; deep at once, like a mapping."""
        return list(self.construct_sequence(node, deep=True))

    def number(self, node: yaml.ScalarNode) -> float:
        """A finite float."""
        value = float(self.construct_yaml_float(node))
        if not math.isfinite(value):
            raise _wrong(node, f"`{node.value}` is not a finite number")
        return value


class _Dumper(yaml.SafeDumper):
    """Quotes the text that `_Loader` would read as something else."""

    def text(self, value: str) -> yaml.ScalarNode:
        """Text; PyYAML writes Unicode's line separators back wrongly unless in double quotes."""
        style = '"' if set(value) & set("\x85\u2028\u2029") else None
        return self.represent_scalar(_TEXT, value, style=style)


def _wrong(node: yaml.Node, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


_TEXT = "tag:yaml.org,2002:str"
_MERGE = "tag:yaml.org,2002:merge"
_FLOAT = "tag:yaml.org,2002:float"
_DATE = "tag:yaml.org,2002:timestamp"
_RESOLVERS = {
    first: [(tag, pattern) for tag, pattern in known if tag not in (_FLOAT, _DATE)]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_NUMBER = re.compile(
    r"""^(?:[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?
    |[-+]?[0-9]+[eE][-+]?[0-9]+
    |[-+]?\.(?:inf|Inf|INF)
    |\.(?:nan|NaN|NAN))$""",
    re.VERBOSE,
)
_PLAIN = ("null", "bool", "int", "str")

for _class in (_Loader, _Dumper):
    _class.yaml_implicit_resolvers = deepcopy(_RESOLVERS)
    _class.add_implicit_resolver(_FLOAT, _NUMBER, list("-+0123456789."))
_Loader.yaml_constructors = {
    tag: build
    for tag, build in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.rpartition(":")[2] in _PLAIN
}
_Dumper.add_representer(str, _Dumper.text)
_Loader.add_constructor("tag:yaml.org,2002:map", _Loader.mapping)
_Loader.add_constructor("tag:yaml.org,2002:seq", _Loader.sequence)
_Loader.add_constructor(_FLOAT, _Loader.number)


def _yaml(text: bytes, source: str) -> Any:
    """The value of a YAML or JSON text. Raises ConfigError with source and line."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{source}:{mark.line + 1}" if mark else source
        raise ConfigError(f"{place}: {error.problem}", remedy="Mend the YAML there") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # such as bad characters, huge integers
        reason = "nested too deep" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise ConfigError(f"{source}: not YAML: {reason}", remedy="Mend the YAML") from error
