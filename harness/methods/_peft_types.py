"""Types of added parameters that need nothing but peft's own configuration: the class that they share.

A type is a row of `peft_table.py`: names, sources, settings and capabilities. `method_of` turns a row into a method.
"""

from __future__ import annotations

import dataclasses
import math
import re
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from pydantic import Field, create_model

from harness.backbones import Architecture, BackboneFiles, fit_classes, plain_class, read_tokenizer
from harness.methods._fine_tuning import KNOWN_WIDTH
from harness.methods._modules import linear_widths, projections
from harness.methods._peft import RATE_AND_EPOCHS, PeftMethod, model_type_of, no_projections
from harness.methods.base import ANY_ARCHITECTURE, Choice, Range, SearchSpace, method
from harness.records import Budget, Workload
from harness.support import UnsupportedError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from harness.methods._fine_tuning import Surroundings


@dataclass(frozen=True)
class Setting:
    """One setting of a type, passed on to peft.

    Attributes:
        argument: name of the argument of peft's configuration.
        default: default value.
        meaning: line of the documentation.
        values: values to choose from, if these are few words.
        least: smallest value of a number.
        above: exclusive lower bound of a number.
        most: largest value of a number.
        below: exclusive upper bound of a number.
        multiple_of: number of which a whole number must be a multiple.
        search: values that `--tune` searches over.
        divides: whether the number must divide the widths of the adapted matrices; the largest divisor up to it is
            passed on.
    """

    argument: str
    default: Any
    meaning: str
    values: tuple[Any, ...] = ()
    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    multiple_of: int | None = None
    search: tuple[Any, ...] = ()
    divides: bool = False

    def field(self) -> tuple[Any, Any]:
        """Return the annotation and the field of a pydantic model."""
        annotation: Any = Literal[self.values] if self.values else type(self.default)
        bounds = {
            "ge": self.least,
            "gt": self.above,
            "le": self.most,
            "lt": self.below,
            "multiple_of": self.multiple_of,
        }
        given: dict[str, Any] = {name: bound for name, bound in bounds.items() if bound is not None}
        return annotation, Field(default=self.default, **given)


def rank(
    default: int,
    search: tuple[int, ...] = (4, 8, 16),
    meaning: str = "rank of the addition.",
    multiple_of: int | None = None,
) -> Setting:
    """Return the setting of a rank."""
    return Setting("r", default, meaning, least=1, search=search, multiple_of=multiple_of)


@dataclass(frozen=True)
class AddedType:
    """A type of added parameters that peft offers: one row of the table.

    Attributes:
        name: name of the method.
        peft_type: name of the type in `peft.PeftType`.
        does: first sentence of the documentation, an empty line, and the equation.
        trains: what it trains, in a phrase.
        source: paper.
        settings: its settings, by name; `targets` is added.
        fixed: further arguments of peft's configuration.
        learning_rate: default peak learning rate.
        rates: range of learning rates that `--tune` searches.
        rate_falls: whether the default rate falls with the width; no for types whose addition shrinks by itself.
        seed: argument that takes a seed of what is drawn and never trained; empty for none.
        keeps: parts of names of tensors that peft computes from the weights by a decomposition; they are saved, since
            another machine may find other signs.
        n_added: number of trained values that are added to a square matrix, from the settings and its width; None for
            few.
        n_held: number of other values that a step holds in memory for a matrix, from the settings and the numbers of
            its inputs and outputs: fixed ones, and whole matrices that the backward pass reads; None for few.
        can: capabilities, see `Method.can`.
        serves: architectures.
        adapts: modules to adapt: empty for queries and values, `v` for values, `norms`, `attention` (whole modules), or
            `special tokens`.
        uses_weights: whether the matrices are used otherwise than in products, so that they may not be rounded.
        wants_plain_layers: whether peft adapts a `torch.nn.Linear` only, and none of its subclasses.
        starts_elsewhere: why training does not start from the pretrained function; empty where it does.
        why_not: function that returns why a method with some settings cannot adapt a transformer, and what to use
            instead; None where it can. peft itself refuses most of what does not fit.
        mend: function that corrects what peft does, on the wrapped transformer.
        note: further sentences of the documentation.
    """

    name: str
    peft_type: str
    does: str
    trains: str
    source: str
    settings: Mapping[str, Setting] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    learning_rate: float = 3e-3
    rates: tuple[float, float] = (3e-4, 1e-1)
    rate_falls: bool = True
    seed: str = ""
    keeps: tuple[str, ...] = ()
    n_added: Callable[[Any, int], float] | None = None
    n_held: Callable[[Any, int, int], float] | None = None
    can: frozenset[str] = frozenset()
    serves: frozenset[Architecture] = ANY_ARCHITECTURE
    adapts: str = ""
    uses_weights: bool = False
    wants_plain_layers: bool = False
    starts_elsewhere: str = ""
    why_not: Callable[[FromTable, nn.Module], str | None] | None = None
    mend: Callable[[nn.Module], None] | None = None
    note: str = ""


class FromTable(PeftMethod):
    """A type of added parameters that a row of the table describes."""

    added: ClassVar[AddedType]
    family: ClassVar[str] = "auxiliary parameters"
    refused_without_names: ClassVar[bool] = False
    is_candidate: ClassVar[bool] = False  # few tasks measure it, and dozens of relatives would spend the time

    @property
    def adapts_all(self) -> bool:
        """Whether all linear layers are adapted."""
        return getattr(self, "targets", "attention") == "all-linear"

    def workload(self, n_train: int, budget: Budget, n_blocks: int) -> Workload:
        """Return the workload; the inputs of each adapted matrix are kept: two matrices, or all (one is wide)."""
        whole = super().workload(n_train, budget, n_blocks)
        return dataclasses.replace(whole, additions=9.0 if self.adapts_all else 2.0)

    def n_added(self, width: int, n_blocks: int) -> float:
        """Return the trained values of all adapted matrices; a held one counts a quarter, as it has no gradient."""
        n = 0.0
        if self.added.n_added is not None:
            n += self.added.n_added(self, width) * self.workload(1, Budget(), n_blocks).additions
        if self.added.n_held is not None:
            square, wide = (4, 4 * width) if self.adapts_all else (2, 0)
            n += square * self.added.n_held(self, width, width) / 4
            n += (self.added.n_held(self, width, wide) + self.added.n_held(self, wide, width)) / 4 if wide else 0.0
        return n * n_blocks

    def peft_config(self, transformer: nn.Module, bench: Surroundings) -> Any:
        """Return peft's configuration of the type."""
        import peft
        from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

        kind: Any = getattr(peft.PeftType, self.added.peft_type, None)
        if kind is None:
            raise UnsupportedError(
                f"'{self.name}' needs a peft that offers {self.added.peft_type}; peft {peft.__version__} does not. "
                "Install peft 0.21 or later."
            )
        arguments = {
            setting.argument: self._divisor(transformer, getattr(self, name))
            if setting.divides
            else getattr(self, name)
            for name, setting in self.added.settings.items()
        }
        if self.added.adapts == "special tokens":
            arguments["token_indices"] = special_tokens(bench.files)
        if self.added.seed:
            arguments[self.added.seed] = bench.seeded("random projections") % 2**31
        targets = "all-linear" if self.adapts_all else None
        configuration: Any = PEFT_TYPE_TO_CONFIG_MAPPING[kind]
        return configuration(target_modules=targets, **self.added.fixed, **arguments)

    def in_own_words(self, message: str) -> str:
        """Return a message of peft in which settings have the names that they have here."""
        for name, setting in self.added.settings.items():
            message = re.sub(rf"`?\b{setting.argument}\b`?", name, message)
        return message

    def planned_unseen(self, files: BackboneFiles) -> bool:
        """Return whether a plan need not try the architecture: defaults fit each BERT of a usual width."""
        given = (*self.added.settings, "targets")
        fields = type(self).model_fields
        own = [name for name in given if name in fields and getattr(self, name) != fields[name].default]
        usual = files.width is not None and files.width >= KNOWN_WIDTH
        return super().planned_unseen(files) and usual and not own and self.added.adapts != "special tokens"

    def adapt(self, transformer: nn.Module, bench: Surroundings) -> nn.Module:
        """Return the transformer wrapped by peft, with the row's correction."""
        if reason := self.added.why_not and self.added.why_not(self, transformer):
            raise UnsupportedError(f"'{self.name}': {reason}")
        if self.added.wants_plain_layers:  # what a backbone in bfloat16 has computes the same, and is a subclass
            from torch import nn

            for module in transformer.modules():
                if plain_class(module) is nn.Linear:
                    module.__class__ = nn.Linear
        adapted = super().adapt(transformer, bench)
        if self.added.wants_plain_layers:
            fit_classes(adapted)
        if self.added.mend is not None:
            self.added.mend(adapted)
        return adapted

    def default_targets(self, transformer: nn.Module, peft_type: str) -> list[str] | str | None:
        """Return the layers of queries and values, as for LoRA; or what the row names."""
        if self.added.adapts == "norms":
            return [name for name, module in transformer.named_modules() if type(module).__name__.endswith("Norm")]
        if self.added.adapts in {"attention", "special tokens"}:
            return None  # peft finds them
        if self.added.adapts != "v":
            return self.lora_targets(transformer)
        found = projections(transformer, "v")
        if not found:
            raise no_projections(self, transformer, "values")
        return found

    def _divisor(self, transformer: nn.Module, most: int) -> int:
        """Return the largest number up to `most` that divides the widths of all adapted matrices."""
        widths = math.gcd(*linear_widths(transformer, None if self.adapts_all else self.adapted(transformer)))
        return max(size for size in range(1, most + 1) if widths % size == 0) if widths else most

    def adapted(self, transformer: nn.Module) -> list[str]:
        """Return the names of the matrices to adapt with the default targets."""
        targets = self.default_targets(transformer, "") or ()
        names = [name for name, _ in transformer.named_modules()]
        if isinstance(targets, str):
            return [name for name in names if re.fullmatch(targets, name)]
        return [name for name in names if f".{name}".endswith(tuple(f".{target}" for target in targets))]


def special_tokens(files: BackboneFiles) -> list[int]:
    """Return the ids of the tokens that the tokenizer puts around every text.

    Raises:
        UnsupportedError: it puts none.
    """
    found: list[int] = sorted(set(read_tokenizer(files)("")["input_ids"]))
    if not found:
        raise UnsupportedError(
            f"The tokenizer of backbone '{files.name}' puts no special tokens around a text, so that there is nothing "
            "to train. Use bitfit, or beft."
        )
    return found


def why_too_many_values(method: FromTable, transformer: nn.Module) -> str | None:
    """Return why SHiRA cannot train `rank` values per row and column; peft finds out only with the weights."""
    per: int = getattr(method, "rank")  # noqa: B009
    widths = linear_widths(transformer, None if method.adapts_all else method.adapted(transformer))
    for n_in, n_out in zip(widths[::2], widths[1::2], strict=True):
        if per * (n_in + n_out) > n_in * n_out:
            return (
                f"rank={per} asks for {per * (n_in + n_out):,} values of a matrix that has {n_in * n_out:,}. Use a "
                f"rank of at most {n_in * n_out // (n_in + n_out)}."
            )
    return None


def why_no_adaption_prompt(_: FromTable, transformer: nn.Module) -> str | None:
    """Return why adaption prompts would be wrong: peft's attention for them misreads some architectures."""
    kind, config = model_type_of(transformer), cast(Any, transformer.config)
    if kind == "gpt2":
        return "peft adds what GPT-2 reads from the prompts behind attention's output layer. Use prefix-tuning or lora."
    if kind not in {"llama", "mistral"}:
        return (
            f"peft's attention for it reads Llama and Mistral only; this is a {type(transformer).__name__}. Use "
            "prefix-tuning or lora."
        )
    heads, width = config.num_attention_heads, config.hidden_size
    head = getattr(config, "head_dim", None) or width // heads
    if heads * head != width:
        return (
            f"peft needs heads that together are as wide as a state; this {type(transformer).__name__} has {heads} of "
            f"{head} and a width of {width}. Use prefix-tuning or lora."
        )
    return None


def train_in_float32(adapted: nn.Module) -> None:
    """Give trained parameters float32 values; peft gives adaption prompts the type of the frozen matrices."""
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def keep_no_layers(_: nn.Module) -> None:
    """Take the cache from a warning of peft that keeps each layer of Super-Tuning, with its model, for ever."""
    from peft.tuners.supertuning import layer

    layer._warn_once_about_module_hooks = getattr(
        layer._warn_once_about_module_hooks, "__wrapped__", layer._warn_once_about_module_hooks
    )


def keep_clusters(adapted: nn.Module) -> None:
    """Make the clusters of AdaMSS's outputs a buffer, so that they can be saved: another machine may find others."""
    from peft.tuners._buffer_dict import BufferDict
    from peft.tuners.adamss.layer import AdamssLayer

    for module in adapted.modules():
        if isinstance(module, AdamssLayer):
            buffers: Any = BufferDict(module.scatter_index, persistent=True)
            module.scatter_index = buffers


def route_each_token(adapted: nn.Module) -> None:
    """Have each token of Lily mix the shared matrices by itself, and blocks share them on every architecture.

    peft averages the routes over all tokens of a batch, padding included. It shares matrices among layers that one
    name in the list of targets matches: among none where the list has their full names.
    """
    from peft.tuners.lily.layer import Linear
    from torch.nn.functional import softmax

    def forward(self: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        result: torch.Tensor = self.base_layer(x, *args, **kwargs)
        for name in () if self.disable_adapters else self.active_adapters:
            first: nn.Linear = self.lily_A[name]
            hidden = first(x.to(first.weight.dtype))
            routes = softmax(self.lily_router[name](hidden), dim=-1)
            mixed = (routes.unsqueeze(-1) * hidden.unsqueeze(-2)).flatten(-2)  # (..., n_shared * rank)
            result = result + (self.scaling[name] * mixed @ self.lily_B[name].weight).to(result.dtype)
        return result

    alike: dict[tuple[Any, ...], list[Linear]] = {}
    for place, module in adapted.named_modules():
        if isinstance(module, Linear):
            module.forward = types.MethodType(forward, module)  # type: ignore[method-assign]
            alike.setdefault((place.rpartition(".")[2], module.in_features, module.out_features), []).append(module)
    for layers in alike.values():
        for at, layer in enumerate(layers):
            for name, stride in layer.stride_A.items():
                layer.lily_A[name] = layers[at - at % stride].lily_A[name]
                layer.lily_B[name] = layers[0].lily_B[name]


def method_of(row: AddedType, module: str) -> type[FromTable]:
    """Return the registered method of a row of the table.

    Args:
        row: the row.
        module: name of the module that will hold the class under its name, so that other processes find it.
    """
    searched = {name: Choice(setting.search) for name, setting in row.settings.items() if setting.search}
    space: SearchSpace = {**RATE_AND_EPOCHS, "learning_rate": Range(*row.rates, log=True), **searched}
    lines = [f"    {name}: {setting.meaning}" for name, setting in row.settings.items()]
    has_targets = row.adapts in {"", "v"}
    if has_targets:
        which = "values" if row.adapts else "queries and values, as for `lora`"
        lines.append(f"    targets: matrices to adapt: `attention` ({which}) or `all-linear`.")
    note = f"\n\n{row.note}" if row.note else ""
    told = "\n\nAttributes:\n" + "\n".join(lines) if lines else ""
    fields: dict[str, Any] = {
        **{name: setting.field() for name, setting in row.settings.items()},
        "learning_rate": (float, Field(default=row.learning_rate, gt=0)),
        **({"targets": (Literal["attention", "all-linear"], "attention")} if has_targets else {}),
    }
    made: Any = create_model(
        "".join(word.capitalize() for word in row.name.split("-")),
        __base__=FromTable,
        __module__=module,
        __doc__=f"{row.does}{note}{told}\n",
        **fields,
    )
    made.added, made.name, made.trains, made.source = row, row.name, f"{row.trains}, and the output layer", row.source
    made.serves, made.can, made.search_space = row.serves, row.can, space
    made.rounds_nothing, made.keeps = row.uses_weights, row.keeps
    made.rate_falls_with_width = row.rate_falls
    method(made)
    return made
