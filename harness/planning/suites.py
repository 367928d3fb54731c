"""Suites: YAML in, validated types out, with errors that name the file, the key and what is accepted.

A suite is a label and a set of defaults: the same task in two suites is the same cell. Listing suites imports neither
torch nor datasets.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import itertools
import types
import typing
import warnings
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    field_validator,
    model_validator,
)

from harness.data import Files, TaskSpec, parse_size, read_yaml, short
from harness.records import MAX_SEED, Budget, parse_budget
from harness.serving import EndpointOptions
from harness.support import PlugInError, UsageError, plug_ins, shipped, unknown_name, yaml_files
from harness.tasks import kinds

_DEFAULT_METHODS = ("majority", "tfidf", "linear-probe", "head", "lora", "full")
_DEFAULT_SIZES = ("32", "128", "512", "2048")
_DEFAULT_SEEDS = (0, 1, 2)


def _read_size(value: object) -> str:
    """Return a size as text, as `parse_size` spells it."""
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ValueError(f"{short(value)} is not a training size; expected a number above 0 (32), '8/class' or 'all'")
    try:
        return str(parse_size(value))
    except UsageError as error:
        raise ValueError(str(error)) from None


def _read_budget(value: object) -> Budget | None:
    """Return a budget from a mapping, or from text as on the command line; None for the methods' own defaults."""
    if value is None or isinstance(value, Budget):
        return value
    if isinstance(value, str):
        try:
            return parse_budget(value)
        except UsageError as error:
            raise ValueError(str(error)) from None
    accepted = [item.name for item in dataclasses.fields(Budget)]
    if not isinstance(value, dict) or not value:
        raise ValueError(f"expected a mapping of {', '.join(accepted)}, a text such as 'epochs=3', or null")
    strange = [str(name) for name in value if name not in accepted]
    if strange:
        raise ValueError(f"'{strange[0]}' is not a budget; accepted: {', '.join(accepted)}")
    try:
        return Budget(**value)
    except UsageError as error:
        raise ValueError(str(error)) from None


_SizeText = Annotated[str, BeforeValidator(_read_size)]
_ReadBudget = Annotated[
    Budget | None,
    BeforeValidator(_read_budget),
    PlainSerializer(lambda budget: None if budget is None else budget.to_json()),
]


def _read_budgets(value: object) -> object:
    """Turn a budget by itself into a set of one."""
    if isinstance(value, dict):
        return {name: [item] if isinstance(item, (dict, Budget)) else item for name, item in value.items()}
    return value


BUDGET_SETS: Mapping[str, tuple[Budget, ...]] = {
    "small": (Budget(train_seconds=10), Budget(train_seconds=60)),
    "medium": (Budget(train_seconds=60), Budget(train_seconds=600)),
    "large": (Budget(train_seconds=600), Budget(train_seconds=3600)),
}
"""Sets of budgets that every suite has, unless it defines its own by that name."""


class Part(BaseModel):
    """A part of a suite's grid: the axes that it names replace the suite's; the others are the suite's.

    Attributes:
        tasks: names of tasks of the suite; None takes all.
        backbones, methods, sizes, seeds: as those of the suite.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tasks: tuple[str, ...] | None = Field(default=None, min_length=1)
    backbones: tuple[Annotated[str, Field(min_length=1)], ...] | None = Field(default=None, min_length=1)
    methods: tuple[str, ...] | None = Field(default=None, min_length=1)
    sizes: tuple[_SizeText, ...] | None = Field(default=None, min_length=1)
    seeds: tuple[Annotated[int, Field(ge=0, le=MAX_SEED)], ...] | None = Field(default=None, min_length=1)


class Suite(BaseModel):
    """Tasks, and the defaults of a run of them.

    Attributes:
        name: name of the suite; the name of the file without its ending, unless the file sets it.
        description: one line on the purpose of the suite.
        tasks: tasks by name, in the order of the file; those of included suites come first.
        include: names of shipped suites, or paths (relative to this file), whose tasks are included.
        backbone: the pretrained transformer of all tasks; None takes each task's own, or its kind's.
        backbones: several of them, in place of `backbone`: an axis of the grid of every task.
        methods: methods such as `lora` or `lora[rank=4]`.
        sizes: training sizes as text: `32`, `8/class`, `all` (`data.sampling.parse_size`).
        seeds: seeds of the draw, the initialisation and the order of batches.
        budget: budget of a fit; None for the methods' own defaults.
        budgets: sets of budgets by name, each an axis of a grid, for `--budget NAME`; added to `BUDGET_SETS`.
        parts: parts of the grid in the order of their value, the most useful first; none for the whole grid.
        test_cap: maximum number of test rows of every task; None leaves each task its own. A lower cap is another data
            fingerprint, so its cells are others than those of the whole test.
        endpoint: endpoint of served models, which are backbones of all tasks; the only ones where none is named.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=255)  # a folder of reports has this name
    description: str = ""
    tasks: dict[str, TaskSpec] = Field(default_factory=dict)
    include: tuple[str, ...] = ()
    backbone: str | None = Field(default=None, min_length=1)
    backbones: tuple[Annotated[str, Field(min_length=1)], ...] | None = Field(default=None, min_length=1)
    methods: tuple[str, ...] = Field(default=_DEFAULT_METHODS, min_length=1)
    sizes: tuple[_SizeText, ...] = Field(default=_DEFAULT_SIZES, min_length=1)
    seeds: tuple[Annotated[int, Field(ge=0, le=MAX_SEED)], ...] = Field(default=_DEFAULT_SEEDS, min_length=1)
    budget: _ReadBudget = None
    budgets: Annotated[
        dict[Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")], tuple[_ReadBudget, ...]],
        BeforeValidator(_read_budgets),
    ] = Field(default_factory=dict)
    parts: tuple[Part, ...] = ()
    test_cap: Annotated[int, Field(ge=1)] | None = None
    endpoint: EndpointOptions | None = None

    @field_validator("methods", "sizes", "seeds", "include", "backbones")
    @classmethod
    def _each_once(cls, values: tuple[Hashable, ...] | None) -> tuple[Hashable, ...] | None:
        twice = [value for value, count in Counter(values or ()).items() if count > 1]
        if twice:
            raise ValueError(f"'{twice[0]}' is named twice")
        return values

    @model_validator(mode="after")
    def _one_or_several(self) -> Suite:
        if self.backbone is not None and self.backbones is not None:
            raise ValueError("backbone and backbones are both given; expected one of them")
        return self

    def task(self, name: str) -> TaskSpec:
        """Return the task called `name`; raise `UsageError` with the nearest known name if there is none."""
        try:
            return self.tasks[name]
        except KeyError:
            raise unknown_name("task", name, self.tasks, f"of suite '{self.name}'") from None

    def budget_set(self, name: str) -> list[Budget]:
        """Return the budgets of the set called `name`; raise `UsageError` with the nearest known name otherwise."""
        known = {**BUDGET_SETS, **self.budgets}
        try:
            return [budget or Budget() for budget in known[name]]
        except KeyError:
            raise unknown_name("set of budgets", name, known, f"of suite '{self.name}'") from None

    @property
    def names_backbones(self) -> bool:
        """Whether the suite names backbones for all of its tasks."""
        return self.backbone is not None or self.backbones is not None

    def backbones_of(self, name: str) -> tuple[str, ...]:
        """Return the default backbones of the task called `name`."""
        spec = self.task(name)
        return self.backbones or (self.backbone or spec.backbone or kinds.get(spec.kind).backbone,)


def suite_names() -> list[str]:
    """Return the names of the suites that ship with this package or come from other packages, sorted."""
    return sorted(_known_files())


def suite_origin(name: str) -> str | None:
    """Return the package that a suite comes from, with its version; None for the harness's own."""
    return _known_files()[name].origin if name in _known_files() else None


def load_suite(name_or_path: str | Path) -> Suite:
    """Read a suite of this or of another package by its name, or anyone's by the path of its YAML file.

    Text that ends in `.yaml` or `.yml`, or that has a path's separator in it, is a path; anything else is a name.

    Raises:
        UsageError: no such suite or file, or a file that is not a valid suite. The message names the file and key.
    """
    return _load(str(name_or_path), Path.cwd(), ())


def _load(name_or_path: str, folder: Path, including: tuple[str, ...]) -> Suite:
    """Read one suite and those it includes; relative paths start from `folder`."""
    if _is_path(name_or_path):
        try:
            path = (folder / Path(name_or_path).expanduser()).absolute()
            found = path.is_file()
        except (OSError, RuntimeError) as error:  # a name too long, a folder that may not be entered, an unknown user
            raise UsageError(f"The suite file {short(name_or_path)} cannot be looked for ({error}).") from error
        if not found:
            raise UsageError(f"There is no suite file {path}. Shipped suites: {', '.join(suite_names())}.")
        label, source, home, key = str(name_or_path), _read_text(path), path.parent, str(path)
    else:
        files = _known_files()
        if name_or_path not in files:
            raise unknown_name("suite", name_or_path, files)
        known = files[name_or_path]
        label, source = known.label, known.file.read_text(encoding="utf-8")
        home, key = known.folder or Path.cwd(), label
    if key in including:
        raise UsageError(f"{label}: include: a suite includes itself ({' -> '.join([*including, key])}).")
    content = _parse_yaml(label, source)
    suite = _validate(label, {"name": Path(key).stem, **content}, home)
    tasks: dict[str, TaskSpec] = {}
    for at, other in enumerate(suite.include):
        try:
            included = _load(other, home, (*including, key))
        except UsageError as error:
            raise UsageError(f"{label}: include.{at}: {error}") from error
        _merge(tasks, included.tasks, f"{label}: include.{at}")
    _merge(tasks, suite.tasks, f"{label}: tasks")
    if not tasks:
        raise UsageError(f"{label}: tasks: there is none; expected a mapping of at least one task, or an `include`.")
    for at, part in enumerate(suite.parts):
        for name in part.tasks or ():
            if name not in tasks:
                raise UsageError(f"{label}: parts.{at}.tasks: {unknown_name('task', name, tasks, 'of this suite')}")
    if suite.test_cap is not None:
        tasks = {name: _capped(task, suite.test_cap) for name, task in tasks.items()}
    return suite.model_copy(update={"tasks": tasks})


def _capped(task: TaskSpec, most: int) -> TaskSpec:
    """Return the task with at most `most` test rows; its own lower cap stays."""
    if task.test_cap is None:  # the pin is that of all test rows, which a number cannot name
        return task.model_copy(update={"test_cap": most, "content": None})
    if task.test_cap <= most:
        return task
    return task.model_copy(update={"test_cap": most, "content_test_cap": task.test_cap})


def _merge(tasks: dict[str, TaskSpec], more: dict[str, TaskSpec], where: str) -> None:
    """Add tasks; refuse a name with two definitions, since nobody could tell their results apart."""
    for name, task in more.items():
        if tasks.setdefault(name, task) != task:
            raise UsageError(f"{where}: task '{name}' is defined in another way by an included suite; rename one.")


def _is_path(text: str) -> bool:
    return text.endswith((".yaml", ".yml")) or "/" in text or "\\" in text


@dataclasses.dataclass(frozen=True)
class _SuiteFile:
    """The file of a suite that has a name.

    Attributes:
        file: the file.
        label: the file in words, for messages.
        origin: the package that it comes from, with its version; None for the harness's own.
    """

    file: Traversable
    label: str
    origin: str | None = None

    @property
    def folder(self) -> Path | None:
        """The folder that relative paths in another package's suite start from."""
        return self.file.parent if self.origin is not None and isinstance(self.file, Path) else None


@functools.cache
def _known_files() -> dict[str, _SuiteFile]:
    """Return the suites of this and of other packages, by name; one that cannot be used is left out with a warning."""
    folder = shipped("suites")
    found: dict[str, _SuiteFile] = {}
    for entry in folder.iterdir() if folder.is_dir() else ():
        if entry.name.endswith(".yaml"):
            found[entry.name.removesuffix(".yaml")] = _SuiteFile(entry, f"suites/{entry.name}")
    for plug_in in plug_ins("harness.suites"):
        try:
            for entry in yaml_files(plug_in):
                name, taken = entry.name.removesuffix(".yaml"), found.get(entry.name.removesuffix(".yaml"))
                if taken is not None:
                    owner = taken.origin or "the harness"
                    raise PlugInError(plug_in.refusal(f"{owner} has a suite called '{name}' already"))
                found[name] = _SuiteFile(entry, f"{plug_in.package}/{entry.name}", plug_in.origin)
        except PlugInError as error:
            warnings.warn(str(error), stacklevel=2)
    return found


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: the suite cannot be read ({error}).") from error


def _parse_yaml(label: str, source: str) -> dict[str, Any]:
    try:
        content = read_yaml(source)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise UsageError(f"{label}: {line}{error.problem or 'not YAML'}.") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{label}: not YAML ({error}).") from error
    if not isinstance(content, dict):
        raise UsageError(f"{label}: expected a mapping; accepted keys: {', '.join(_file_keys(Suite))}.")
    strange = [key for key in content if not isinstance(key, str)]
    if strange:
        raise UsageError(f"{label}: {short(strange[0])}: unknown key; accepted: {', '.join(_file_keys(Suite))}.")
    return content


def _validate(label: str, content: dict[str, Any], home: Path) -> Suite:
    """Return the suite of a file's content; keys name its tasks, and paths start from the suite's folder."""
    tasks = content.get("tasks")
    if isinstance(tasks, dict):
        for name, task in tasks.items():
            if isinstance(task, dict) and "name" in task:
                raise UsageError(f"{label}: tasks.{name}.name: a task is named by its key; leave 'name' out.")
        twice = [name for name, count in Counter(str(name) for name in tasks).items() if count > 1]
        if twice:  # 1 and '1', say
            raise UsageError(f"{label}: tasks.{twice[0]}: two tasks have this name.")
        content["tasks"] = {
            str(name): {**task, "name": str(name)} if isinstance(task, dict) else task for name, task in tasks.items()
        }
    try:
        suite = Suite.model_validate(content)
    except ValidationError as error:
        lines = [f"{label}: {problem}" for problem in itertools.islice(_problems(error), _MOST_PROBLEMS)]
        more = error.error_count() - len(lines)
        raise UsageError(
            "\n".join([*lines, f"{label}: {more} more problems of this kind."] if more else lines)
        ) from error
    if suite.endpoint is not None and suite.endpoint.prices is not None:
        anchored = suite.endpoint.model_copy(update={"prices": home / suite.endpoint.prices.expanduser()})
        suite = suite.model_copy(update={"endpoint": anchored})
    return suite.model_copy(
        update={"tasks": {name: _resolved(label, _anchored(label, task, home)) for name, task in suite.tasks.items()}}
    )


def _resolved(label: str, task: TaskSpec) -> TaskSpec:
    """Return the task as its kind completes it; a refusal of the kind names the file and the key."""
    where = f"{label}: tasks.{task.name}"
    if task.kind not in kinds:
        raise UsageError(f"{where}.kind: {unknown_name('kind of task', task.kind, kinds.names())}")
    try:
        return kinds.get(task.kind).resolve(task)
    except UsageError as error:
        raise UsageError(f"{where}.{str(error).rstrip('.')}.") from error


def _anchored(label: str, task: TaskSpec, home: Path) -> TaskSpec:
    """Return the task with absolute paths of its files."""
    files = task.data.files
    if files is None:
        return task

    def absolute(path: str) -> str:
        try:
            return str((home / Path(path).expanduser()).absolute())
        except RuntimeError as error:
            raise UsageError(f"{label}: tasks.{task.name}.data.files: {short(path)}: {error}") from error

    found = Files(train=absolute(files.train), test=None if files.test is None else absolute(files.test))
    splits = task.splits.model_copy(update={"test": None}) if files.test is None else task.splits
    return task.model_copy(update={"data": task.data.model_copy(update={"files": found}), "splits": splits})


def _problems(error: ValidationError) -> Iterator[str]:
    """Yield one line per problem: the key, the problem, and the accepted values."""
    for problem in error.errors(include_url=False):
        location = problem["loc"]
        key = ".".join(str(part) for part in location)
        match problem["type"]:
            case "extra_forbidden":
                accepted = _file_keys(_model_at(location[:-1]))
                near = difflib.get_close_matches(str(location[-1]), accepted, n=1, cutoff=0.6)
                guess = f" Did you mean '{near[0]}'?" if near else ""
                yield f"{key}: unknown key;{guess} accepted: {', '.join(accepted)}"
            case "missing":
                yield f"{key}: missing; it has to be given"
            case "value_error":
                yield f"{key or 'suite'}: {str(problem['ctx']['error']).rstrip('.')}"
            case "string_pattern_mismatch" if location[-1:] == ("name",):
                where = key.removesuffix(".name")
                yield f"{where}: {short(problem['input'])} is not a name; accepted: letters, digits, '_', '.', '-'"
            case "literal_error":
                yield f"{key}: {short(problem['input'])} was given; accepted: {problem['ctx']['expected']}"
            case "model_type" | "model_attributes_type" | "dict_type":
                model = _model_at(location)
                keys = f" of {', '.join(_file_keys(model))}" if model else ""
                yield f"{key}: {short(problem['input'])} was given; expected a mapping{keys}"
            case _:
                expected = problem["msg"].removeprefix("Input should be ").removeprefix("a ").rstrip(".")
                yield f"{key}: {_given(problem['input'])} was given; expected {expected}"


_MOST_PROBLEMS = 20
"""Maximum number of problems listed in one error message."""


def _given(value: object) -> str:
    return short(value) + (" (YAML reads it so; put it in quotes)" if isinstance(value, bool) else "")


def _file_keys(model: type[BaseModel] | None) -> list[str]:
    """Return the keys that a file may have in place of `model`; a task's name is its key."""
    return [name for name in (model.model_fields if model else ()) if not (model is TaskSpec and name == "name")]


def _model_at(location: Sequence[int | str]) -> type[BaseModel] | None:
    """Return the model that validates a place in a suite: `("tasks", "sst2", "columns")` gives `Columns`."""
    found: Any = Suite
    for part in location:
        if isinstance(found, type) and issubclass(found, BaseModel):
            if part not in found.model_fields:
                return None
            found = _without_none(found.model_fields[str(part)].annotation)
        else:  # dict[str, TaskSpec] and the like
            arguments = typing.get_args(found)
            found = arguments[-1] if arguments else None
    return found if isinstance(found, type) and issubclass(found, BaseModel) else None


def _without_none(annotation: Any) -> Any:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return next(part for part in typing.get_args(annotation) if part is not type(None))
    return annotation
