"""Base class of methods that train by gradient on token ids: the model and the fit.

A method of this family selects the parameters to train (`select_trainable`) or adds parameters to the transformer
(`adapt`). `_gradient.py` holds the part that is shared with methods on frozen features.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import warnings
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Protocol

import numpy.typing as npt
from pydantic import Field, field_validator

from harness.backbones import BackboneFiles, Weights
from harness.methods._answers import read_state
from harness.methods._bitsandbytes import why_no_bitsandbytes
from harness.methods._fitted_model import FittedModel
from harness.methods._flash_attention import why_no_flash_attention
from harness.methods._gradient import GradientMethod, TrainedMethod, expected_parameters, saved_values
from harness.methods.base import Fitted
from harness.methods.bench import Bench
from harness.methods.restoring import check_tensors
from harness.records import FORWARD, FORWARD_AND_BACKWARD, THROUGH, Budget, Optimiser, Role, Workload
from harness.support import UnsupportedError
from harness.tasks import FORMS, Answers, Form, Ints, Kind, Labels, Rows, Task, kinds

if TYPE_CHECKING:
    import torch
    from torch import nn

    from harness.training import AdaptedModel, Batch, Batches, Examples, Hooks, Inputs, ParameterGroup


PLANNED_UNSEEN: Final = frozenset({"bert"})
"""Model types that every method adapts. A plan with them skips building the architecture, which takes seconds."""

_KEPT_A_RATE: Final = frozenset(
    (
        *("bart", "bigbird_pegasus", "biogpt", "blenderbot", "blenderbot-small", "fsmt", "led", "m2m_100", "marian"),
        *("mbart", "mvp", "nllb-moe", "pegasus", "pegasus_x", "plbart", "prophetnet", "xglm"),
        *("bloom", "falcon", "gpt_neox_japanese", "mpt", "funnel", "dbrx", "blt"),
        *("starcoder2", "gpt_bigcode"),
    )
)
"""Model types with a dropout that `transformer_dropout` did not reach in version 1."""

KNOWN_WIDTH: Final = 384
"""Width of the backbones on which the default learning rates were chosen."""

_REFUSALS: dict[tuple[str, ...], str | None] = {}
"""Reason why a method cannot adapt an architecture, by everything that it depends on; None where it can."""


class Surroundings(Protocol):
    """The part of `Bench` that also exists while planning; `adapt` may use it."""

    @property
    def kind(self) -> Kind:
        """The kind of the task."""
        ...

    @property
    def files(self) -> BackboneFiles:
        """The files of the backbone."""
        ...

    def seeded(self, purpose: str) -> int:
        """Return a seed for one purpose."""
        ...


@dataclass(frozen=True)
class _Planned:
    """The surroundings of a cell that is planned but not run."""

    kind: Kind
    files: BackboneFiles

    def seeded(self, purpose: str) -> int:
        """Return one seed for every purpose: no drawn value is used."""
        return 0


class FineTuning(GradientMethod):
    """Train parameters inside the transformer, and the head, on token ids.

    Attributes:
        learning_rate: peak learning rate of the transformer's parameters, or of those added to it. The default is that
            of backbones of width 384, and lower on wider ones: times 384 / width. Other values are used as they are.
        l2_start: strength of the L2 penalty on the distance of the transformer's parameters to their start (L2-SP).
        transformer_dropout: replaces every dropout rate inside the transformer; None keeps the backbone's own.
        gradient_checkpointing: recompute each block in the backward pass instead of keeping its activations.
        compile: compile the blocks with torch for training. On a GPU, steps may be faster after a minute of
            compiling (counted as warm-up). `auto` compiles where the steps of the fit, as the first ones were timed,
            would take several minutes. Results are the same up to rounding.
        optimiser: `adamw` keeps two float32 moments for each trained number; `adamw-8bit` keeps them in 8 bits
            (bitsandbytes): 2 bytes instead of 8. Methods that train the transformer's own matrices serve others.
        attention: implementation of attention: `auto` (transformers' choice, mostly `sdpa`), `sdpa` (torch's fused
            kernels), `eager` (single operations), or `flash_attention_2` (a package for GPUs). Results are the same up
            to rounding.
        prompt_format: form of the prompts of written answers on a causal backbone: `plain` continues the prompt as
            running text; `chat` makes it the user's turn in the tokenizer's own chat template, and trains the answer
            and the token that ends its turn; `auto` is `chat` where the tokenizer has a template.
    """

    l2_start: float = Field(default=0.0, ge=0)
    transformer_dropout: float | None = Field(default=None, ge=0, lt=1)
    gradient_checkpointing: bool = False
    compile: bool | Literal["auto"] = False
    optimiser: Optimiser = "adamw"
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"] = "auto"
    prompt_format: Literal["auto", "chat", "plain"] = "plain"

    role: ClassVar[Role] = "fine-tuning"
    newer_settings: ClassVar[frozenset[str]] = frozenset({"compile", "optimiser", "attention", "prompt_format"})
    forms: ClassVar[frozenset[Form]] = frozenset(FORMS)
    serves_own_forms: ClassVar[bool] = True

    compacts_embedding: ClassVar[bool] = True
    """Whether training may leave out unused rows of a trained embedding; the embedding must train throughout."""

    share_trained: ClassVar[float]
    """Share of the transformer's parameters, roughly, that have gradients and an optimiser's state."""

    additions: ClassVar[float] = 0.0
    """Numbers that are kept for added parameters, see `Workload`."""

    trains_everything: ClassVar[bool] = False
    """Whether no weight of the backbone stays frozen, so that a copy of all is made at once."""

    rounds_nothing: ClassVar[bool] = False
    """Whether frozen matrices are used otherwise than in products, so that they may not be rounded (`weights`)."""

    rate_falls_with_width: ClassVar[bool] = True
    """Whether the default learning rate is that of backbones of `KNOWN_WIDTH`, and lower on wider ones."""

    can_be_checkpointed: ClassVar[bool] = True
    """Whether blocks can be computed again."""

    optimisers: ClassVar[frozenset[Optimiser]] = frozenset({"adamw", "adamw-8bit"})
    """Values of the setting `optimiser` that the method serves."""

    @field_validator("optimiser")
    @classmethod
    def _serves_optimiser(cls, value: Optimiser) -> Optimiser:
        if value in cls.optimisers:
            return value
        raise ValueError(
            f"expected one of {', '.join(sorted(cls.optimisers))}. Others save memory where most of the transformer's "
            f"matrices train in every step; '{cls.name}' trains {cls.trains}. For them use full"
        )

    @property
    def plans_modules(self) -> bool:
        """Whether settings depend on a backbone's modules, so that a plan looks at every architecture."""
        return False

    def workload(self, n_train: int, budget: Budget, n_blocks: int) -> Workload:
        """Return steps of whole passes through an own copy of the transformer.

        Fixed weights need no gradients: a text costs the less, the fewer are trained.
        """
        passes = THROUGH + self.share_trained * (FORWARD_AND_BACKWARD - THROUGH)
        return Workload(
            steps=self.n_steps(n_train, budget),
            texts_per_step=min(self.batch_size, max(1, n_train)),
            pieces=self.accumulation,
            passes_per_text=passes + (FORWARD if self.gradient_checkpointing else 0.0),
            share_trained=self.share_trained,
            additions=self.additions,
            texts_per_answer=1.0,
        )

    def halved(self) -> TrainedMethod | None:
        """Return the method with pieces of half the size; with single rows, turn on gradient checkpointing."""
        smaller = super().halved()
        if smaller is None and self.can_be_checkpointed and not self.gradient_checkpointing:
            return self.model_copy(update={"gradient_checkpointing": True})
        return smaller

    def version_on(self, files: BackboneFiles | None, form: Form) -> int:
        """Return a later version also where `transformer_dropout` reaches more rates than in version 1."""
        version = super().version_on(files, form)
        reaches_more = self.transformer_dropout is not None and files is not None and files.model_type in _KEPT_A_RATE
        return max(version, self.version + 1) if reaches_more else version

    def cell_version(self, files: BackboneFiles | None, form: Form) -> int:
        """Return the version of a cell: one more where the default learning rate is lower than in version 0.2."""
        return self.version_on(files, form) + (self.rate_share(files) < 1.0)

    @classmethod
    def later_versions(cls) -> str:
        """Return a line that says where the version is a later one, wide backbones included."""
        wide = f"one more on backbones wider than {KNOWN_WIDTH}, with the default learning rate"
        return "; ".join(filter(None, (super().later_versions(), wide if cls.rate_falls_with_width else "")))

    def rate_share(self, files: BackboneFiles | None) -> float:
        """Return the peak learning rate on a backbone as a share of the setting `learning_rate`.

        The default falls with the inverse of the width: the change of a state that a step of AdamW makes grows with it
        (Yang et al., 2021, arXiv:2203.03466, table 3). Other values of the setting are used as they are.
        """
        is_default = self.learning_rate == type(self).model_fields["learning_rate"].default
        width = None if files is None else files.width
        if not self.rate_falls_with_width or not is_default or width is None:
            return 1.0
        return min(1.0, KNOWN_WIDTH / width)

    def why_unsupported(self, kind: str, files: BackboneFiles | None, device: str) -> str | None:
        """Refuse also an architecture that the method cannot adapt, found by a trial on modules without weights."""
        reason = super().why_unsupported(kind, files, device)
        reason = reason or why_no_flash_attention(self.attention, self.precision, device)
        reason = reason or self._why_no_chat(kinds.get(kind), files)
        if reason is None and self.optimiser == "adamw-8bit":
            reason = why_no_bitsandbytes(f"'{self.name}' with optimiser=adamw-8bit")
        if reason is not None or files is None or self.planned_unseen(files):
            return reason
        asked = kinds.get(kind)
        shape = json.dumps(self._shape(), sort_keys=True)
        key = (self.name, shape, asked.form, files.fingerprint, self.needs_modules())
        if key not in _REFUSALS:
            _REFUSALS[key] = self._why_not_adapted(_Planned(asked, files))
        return _REFUSALS[key]

    def planned_unseen(self, files: BackboneFiles) -> bool:
        """Return whether a plan need not try the architecture, which takes seconds."""
        return files.model_type in PLANNED_UNSEEN and not self.plans_modules

    def _why_no_chat(self, kind: Kind, files: BackboneFiles | None) -> str | None:
        """Return why prompts cannot be turns of a chat; None where they can, or need not."""
        if self.prompt_format != "chat":
            return None
        if kind.form != "text":
            return f"prompt_format=chat was given; nothing is written in training on a {kind.name} task. Leave it out."
        if files is not None and files.architecture != "causal":
            return f"prompt_format=chat was given; a {files.architecture} backbone has no turns. Take plain or auto."
        if files is not None and not files.has_chat_template:
            return (
                f"prompt_format=chat was given; the tokenizer of backbone '{files.name}' has no chat template. Take "
                "plain or auto, or an instruct model."
            )
        return None

    def why_not(self, task: Task, files: BackboneFiles | None, device: str) -> str | None:
        """Refuse also a chat where the likelihood of texts is scored."""
        reason = super().why_not(task, files, device)
        if reason is None and self.prompt_format == "chat" and task.reply is not None and task.reply.wants_likelihood:
            return f"prompt_format=chat was given; '{task.metric}' scores texts without a prompt. Leave it out."
        return reason

    def in_format(self, bench: Bench) -> Bench:
        """Return the bench with the format of prompts, which the ledger notes if it is a chat."""
        is_asked = bench.kind.form == "text" and bench.reply is not None and not bench.reply.wants_likelihood
        if self.prompt_format == "plain" or not is_asked or bench.files.architecture != "causal":
            return bench
        if self.prompt_format == "auto" and not bench.files.has_chat_template:
            return bench
        bench.ledger.remarks["prompt_format"] = "chat"
        return dataclasses.replace(bench, chat=True)

    def check(self, transformer: nn.Module) -> None:
        """Refuse a transformer that lacks the modules this method needs; called before `adapt`.

        Raises:
            UnsupportedError: the reason, and what to try instead.
        """
        if self.gradient_checkpointing and not getattr(transformer, "supports_gradient_checkpointing", False):
            raise UnsupportedError(
                f"transformers does not support gradient checkpointing for a {type(transformer).__name__}: use "
                "gradient_checkpointing=false."
            )

    def needs_modules(self) -> str:
        """Return a name of what `check` demands beside the settings that decide the modules; empty if nothing."""
        return ""

    def adapt(self, transformer: nn.Module, bench: Surroundings) -> nn.Module:
        """Return the transformer with the parameters that a method adds; by default, the transformer itself."""
        return transformer

    @abstractmethod
    def select_trainable(self, transformer: nn.Module) -> Iterator[nn.Parameter]:
        """Yield the parameters of the adapted transformer to train; the head is always trained."""

    def reserved_tokens(self) -> int:
        """Return the number of positions that the method takes from the text."""
        return 0

    def initialise(self, model: AdaptedModel, rows: Rows, bench: Bench) -> None:
        """Initialise the new model before training; `rows` are those to fit on."""

    def begin(self, model: AdaptedModel, inputs: Inputs, batches: Batches, bench: Bench) -> None:
        """Set values before the first step, at the expense of the fit; `batches` are those of training."""

    def make_inputs(self, model: AdaptedModel, examples: Examples, bench: Bench) -> Inputs:
        """Return the inputs of the training rows to the model."""
        return bench.form.inputs(model, examples, bench, compact=self.compacts_embedding and self.l2_start == 0.0)

    def parameter_groups(self, model: AdaptedModel) -> list[ParameterGroup]:
        """Return the trained parameters with their peak learning rates; the transformer first, the head last."""
        body = [parameter for parameter in model.transformer.parameters() if parameter.requires_grad]
        return self.groups(body, list(model.head.parameters()))

    def make_hooks(self, model: AdaptedModel, bench: Bench) -> Hooks | None:
        """Return hooks that run around the steps of the training loop; None without any."""
        return None

    def build(self, bench: Bench) -> AdaptedModel:
        """Return the model in which only the parameters that this method trains require gradients."""
        import torch

        from harness.backbones import make_masters
        from harness.training import make_lean, quicken_dropout, set_attention, set_dropout

        transformer = self.start(bench)
        with bench.clock.phase("load"), torch.random.fork_rng(devices=[]):
            torch.manual_seed(bench.seeded("head"))
            head = bench.form.head(bench.some_backbone.hidden_size, bench.n_outputs, self.dropout)
            if self.transformer_dropout is not None:
                set_dropout(transformer, self.transformer_dropout)
            self.check(transformer)
            set_attention(transformer, self.attention)
            if self.gradient_checkpointing:
                with warnings.catch_warnings():  # transformers is renaming it; the old name serves all versions
                    warnings.simplefilter("ignore", FutureWarning)
                    transformer.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
            torch.manual_seed(bench.seeded("added parameters"))
            adapted = self.adapt(transformer, bench)
            make_lean(adapted)
            device = bench.device.torch_device()
            model = bench.form.model(adapted, head, bench).to(device)
            if bench.device.kind == "cpu":
                quicken_dropout(model)
            selected = list(self.select_trainable(model.transformer))
            if not selected:
                raise UnsupportedError(self._nothing_to_train(transformer))
            make_masters(model, selected)
            trained = {id(parameter) for parameter in selected}
            for parameter in model.transformer.parameters():
                if parameter.is_floating_point():
                    parameter.requires_grad_(id(parameter) in trained)
            self.prepare(model)
            bench.note_weights(model)
        return model

    def prepare(self, model: AdaptedModel) -> None:
        """Change how the trained parameters are kept; by default, not at all."""

    def start(self, bench: Bench) -> nn.Module:
        """Return the transformer to adapt: its frozen weights are shared, and what trains gets its own in `build`."""
        device = bench.device.torch_device()
        with bench.clock.phase("load"):
            if self.trains_everything:
                return bench.form.pretrained(bench, device)
            precision = bench.precision(self.precision)
            weights: Weights = getattr(self, "weights", "auto")
            return bench.form.shared(bench, device, precision, weights, exact=self.rounds_nothing)

    def fit(self, rows: Rows, bench: Bench) -> Fitted:
        """Train on the rows until the budget is spent."""
        from harness.training import Stack, compile_model

        bench = self.in_format(bench)
        examples = bench.form.examples(rows, bench, self.reserved_tokens())
        model = self.build(bench)
        inside, outside = self.carve(rows, bench)
        if self.class_weights == "none":
            bench.form.start(model.head, rows.known_labels[inside])
        self.initialise(model, rows.take(inside), bench)
        model.train()
        inputs = None
        # Collected first: a method may remove some of them later.
        blocks = Stack(model.transformer).all_blocks if self.compile else []
        try:
            with bench.working("fit"):
                inputs = self.make_inputs(model, examples, bench)
                groups = self.rated_groups(model, bench)
                hooks = self.make_hooks(model, bench)
                flops = bench.flops_model(self.flops_key(bench), inputs.count_flops)
                items = examples.items_of(inside)
                batches = inputs.batches(items, examples.targets[items], batch_size=self.batch_size, seed=bench.seed)
                self.begin(model, inputs, batches, bench)
                if self.compile == "auto" and not self._compiling_pays(model, batches, inputs, bench):
                    blocks = []
                with compile_model(blocks):
                    outcome = self.optimise(
                        model,
                        batches,
                        bench,
                        forward=self._forward(model, inputs, bench, compiled=bool(blocks)),
                        groups=groups,
                        flops=flops,
                        precision=bench.precision(self.precision),
                        loss=self.training_loss(rows.known_labels[inside], bench),
                        hooks=hooks,
                        evaluate=self._evaluation(inputs, examples, outside, rows.known_labels[outside], bench),
                        compiles=bool(blocks),
                        predict=self._prediction(model, inputs, examples, rows, outside, bench),
                    )
                read_outside = functools.partial(self._outside, inputs, examples, outside, bench)
                state = self.conclude(examples.state, read_outside, rows, outside, bench)
                inputs.close(outcome.decay[0])
                inputs = None
        finally:
            if inputs is not None:
                inputs.close(1.0)
        model.eval()  # again, for the full embedding: it was absent when training ended
        return self.fitted(model, bench, state)

    def _outside(self, inputs: Inputs, examples: Examples, outside: Ints, bench: Bench) -> Answers:
        """Return the fitted model's raw answers for the validation rows, and charge the operations of reading them."""
        from harness.training import PREDICT_ROWS, Classes, as_written

        form = bench.form
        assert isinstance(form, Classes)
        forward = bench.flops_model(f"{self.flops_key(bench)}/forward", lambda: inputs.count_flops(backward=False))
        bench.ledger.train_flops += forward.rows(examples.lengths[outside], PREDICT_ROWS[bench.device.kind])
        uncompiled = as_written() if self.compile else nullcontext()  # it takes a second to import
        with uncompiled:
            logits = inputs.logits(outside, bench.n_outputs, bench.device, bench.precision(self.precision))
        return form.answers(logits)

    def rated_groups(self, model: AdaptedModel, bench: Bench) -> list[ParameterGroup]:
        """Return the parameter groups with the rates of the transformer's parameters for the width of the backbone."""
        return self.at_width(self.parameter_groups(model), bench)

    def at_width(self, groups: list[ParameterGroup], bench: Bench, exponent: float = 1.0) -> list[ParameterGroup]:
        """Return the groups with the rates for the width; those of matrices fall with a power of it."""
        share = self.rate_share(bench.some_backbone.files)
        if share == 1.0:
            return groups
        bench.ledger.remarks["learning_rate"] = (
            f"{self.learning_rate * share:.3g}: the default of {self.learning_rate:g} is that of backbones of width "
            f"{KNOWN_WIDTH}"
        )
        return [
            dataclasses.replace(
                group, learning_rate=group.learning_rate * share ** (exponent if group.is_of_matrices else 1.0)
            )
            if group.anchored
            else group
            for group in groups
        ]

    def _compiling_pays(self, model: AdaptedModel, batches: Batches, inputs: Inputs, bench: Bench) -> bool:
        """Return whether the fit is long enough for compiling; its first batches are timed for it, as warm-up."""
        from harness.training import compiling_pays, seconds_of_step, warm_up_steps

        with bench.clock.phase("warmup"):
            precision = bench.precision(self.precision)
            forward, loss = inputs.forward, bench.form.loss
            seconds = seconds_of_step(
                lambda: warm_up_steps(model, batches, forward, loss, self.accumulation, bench.device, precision)
            )
        steps = bench.progress(self.default_steps(len(batches)), len(batches)).step_limit
        pays = compiling_pays(seconds, steps, bench.budget.train_seconds)
        said = "compiled" if pays else "not compiled"
        bench.ledger.remarks["compile"] = f"{said}: {steps:,} steps at most, of {seconds:.2g} s before compiling"
        return pays

    def _forward(
        self, model: AdaptedModel, inputs: Inputs, bench: Bench, *, compiled: bool
    ) -> Callable[[Batch], torch.Tensor]:
        """Return the forward pass of training; on a CPU, lean models keep its tensors apart from the heap."""
        from harness.training import is_lean, keeping_apart

        if bench.device.kind != "cpu" or compiled or self.gradient_checkpointing or not is_lean(model):
            return inputs.forward
        return keeping_apart(inputs.forward, [*model.parameters(), *model.buffers()])

    def fitted(self, model: AdaptedModel, bench: Bench, answers: Mapping[str, Any] | None = None) -> FittedModel:
        """Return the result of `fit`; `answers` is the state of the form of answers."""
        return FittedModel(model, self.precision, bench.seed, self.reserved_tokens(), answers, self.in_format)

    def restore(self, tensors: dict[str, npt.NDArray[Any]], state: dict[str, Any], bench: Bench) -> Fitted:
        """Return the fitted model: the pretrained weights with the trained tensors replaced by the saved ones."""
        import torch

        # Values that are drawn and never trained (VeRA's matrices) are drawn again with the saved cell's seed.
        bench = dataclasses.replace(bench, seed=int(state["seed"]))
        model = self.build(bench)
        self.select_saved(model, tensors)
        check_tensors(tensors, expected_parameters(model))
        with torch.no_grad():
            for name, value in saved_values(model).items():
                value.copy_(torch.from_numpy(tensors[name]))
        return self.fitted(model.eval(), bench, read_state(state.get("answers"), bench))

    def select_saved(self, model: AdaptedModel, names: Collection[str]) -> None:
        """Freeze parameters that the fit may have left untrained; `names` are those of the saved tensors."""

    def _evaluation(self, inputs: Inputs, examples: Examples, rows: Ints, labels: Labels, bench: Bench) -> Any:
        """Return a function that scores the validation rows; None without any."""
        if len(rows) == 0:
            return None
        from harness.training import PREDICT_ROWS, as_written

        forward = bench.flops_model(f"{self.flops_key(bench)}/forward", lambda: inputs.count_flops(backward=False))
        spent = forward.rows(examples.lengths[rows], PREDICT_ROWS[bench.device.kind])
        precision = bench.precision(self.precision)

        def evaluate() -> tuple[tuple[float, ...], float]:
            with as_written():
                return bench.form.validate(inputs, examples, rows, labels, bench, precision), spent

        return evaluate

    def _prediction(
        self, model: AdaptedModel, inputs: Inputs, examples: Examples, rows: Rows, outside: Ints, bench: Bench
    ) -> Any:
        """Return a function that predicts the rows of the rungs in the middle of training; None where none can."""
        from harness.training import Classes, as_written

        form, rungs, precision = bench.form, bench.rungs, bench.precision(self.precision)
        if rungs is None or not isinstance(form, Classes):
            return None

        def predict(own: Bench, decay: float) -> Answers:
            uncompiled = as_written() if self.compile else nullcontext()  # it takes a second to import
            read_outside = functools.partial(self._outside, inputs, examples, outside, own)
            state = self.conclude(examples.state, read_outside, rows, outside, own)
            with uncompiled, inputs.whole(decay):
                reserved = self.reserved_tokens()
                raw = form.predict(model, rungs.rows, own, precision, reserved, training_follows=True)
                return form.finish(raw, state)

        return predict

    def flops_key(self, bench: Bench) -> str:
        """Return a key of everything that the operations of a batch depend on; learning rates do not count."""
        head = bench.kind.form if bench.kind.answer_form() is None else bench.kind.name
        return f"{self.name}/{self._shape()}/{bench.files.fingerprint}/{head}/{bench.n_outputs}"

    def _shape(self) -> dict[str, Any]:
        """Return the settings that decide the modules of the adapted transformer."""
        same = {*GradientMethod.model_fields, "compile", "optimiser", "masters", "prompt_format"}
        same |= {"optimiser_rank", "optimiser_blocks"}
        return {name: value for name, value in self.config().items() if name not in same}

    def _why_not_adapted(self, planned: _Planned) -> str | None:
        """Return why the architecture cannot be adapted; None if it can, or if only running it tells."""
        import torch

        from harness.backbones import outline_backbone

        known = outline_backbone(planned.files, language_model=planned.kind.form == "text", whole=self.plans_modules)
        if known is None:
            return None
        transformer = copy.deepcopy(known)
        try:
            with torch.device("meta"), torch.random.fork_rng(devices=[]):
                self.check(transformer)
                adapted = self.adapt(transformer, planned)
                trains_something = any(True for _ in self.select_trainable(adapted))
        except UnsupportedError as error:
            return str(error)
        except Exception:  # noqa: BLE001 - code that needs actual weights fails on meta tensors; the run decides
            return None
        return None if trains_something else self._nothing_to_train(known)

    def _nothing_to_train(self, transformer: nn.Module) -> str:
        return (
            f"'{self.name}' trains {self.trains}; inside a {type(transformer).__name__} there is nothing of that kind. "
            "Use another method: full, lora or linear-probe."
        )
