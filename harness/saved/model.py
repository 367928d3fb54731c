"""A saved model that is loaded for prediction."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from harness.data import TextColumns
from harness.saved.ensemble import check_ensemble, mixed
from harness.saved.inputs import fields_of, read_inputs, why_not_input
from harness.saved.layout import MEMBERS, Description, EnsembleDescription, read_description
from harness.saved.predictions import answers_in_words, check_asked, check_top, tabulate_predictions
from harness.support import HarnessError, UnsupportedError, UsageError, reason_of, spelt_for_caller, whole_number
from harness.tasks import FORMS, Floats, Kind, Reply, Rows, Source, Unscaled, ending_of, prompts_of

if TYPE_CHECKING:
    import pandas as pd

    from harness.features import FeatureStore, TokenStore
    from harness.methods import Bench, Fitted, Method
    from harness.serving import Connection

Inputs: TypeAlias = Iterable[str] | Iterable[tuple[str, str | Sequence[str]]] | Iterable[Sequence[str]]
"""Texts, pairs of texts, questions with their choices, or lists of words."""

SAVED_FORMS: Final = ("classes", "choices", "spans", "text", "number", "labels", "tags")
"""Forms of answers that a saved model gives."""

_WITHOUT_TABLE: Final = {"number": "numbers", "spans": "parts of texts", "text": "texts"}

_ROWS = 8192
"""Number of texts that are predicted at a time: memory does not grow with the data."""

_NAMED = 5
"""Maximum number of texts listed in one error message."""

_SUM_TOLERANCE = 1e-3
"""Largest distance from 1 of the sum of a text's probabilities; rounding in float32 makes less than 1e-5."""


@dataclass(frozen=True, eq=False)
class _Member:
    """A fitted method that has been loaded."""

    described: Description
    method: Method
    fitted: Fitted
    bench: Bench

    def rows_of(self, inputs: Sequence[Any]) -> Rows:
        """Return inputs as rows."""
        texts, fields = fields_of(inputs, self.bench.kind)
        return Rows(_source(self.described, "inputs", texts, fields), np.arange(len(texts), dtype=np.int64))


@dataclass(frozen=True, eq=False)
class SavedModel:
    """A fitted method, or an ensemble of several, that predicts.

    Attributes:
        description: its task and method; also its backbone, or the members of an ensemble.
    """

    description: Description | EnsembleDescription
    _members: tuple[_Member, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes, in the order of `probabilities`."""
        return self.description.labels

    def close(self) -> None:
        """Close the connection to a served model; other models have none."""
        for one in self._members:
            if one.bench.served is not None:
                one.bench.served.close()

    @property
    def _kind(self) -> Kind:
        return self._members[0].bench.kind

    @property
    def form(self) -> str:
        """Form of the answers, one of `SAVED_FORMS`."""
        return self._kind.form

    @spelt_for_caller
    def probabilities(self, texts: Inputs | pd.DataFrame, text: TextColumns | None = None) -> Floats:
        """Return the probability of each class for each text, shape (texts, classes), float32.

        For label sets they are scores, moved so that the threshold is 0.5: a label is given where its score is at least
        0.5. For a model of tags, the rows are the words of all texts, one
        text after another. For a model of choices, a column is the position of a choice; rows with fewer have 0.

        Args:
            texts: a list of texts, of pairs for a model of pairs, or of lists of words for a model of tags; or a data
                frame. Training refuses blank texts, so they are refused here too.
            text: column of a data frame that holds the texts; two columns for a model of pairs. None takes the kind's
                own names, such as `text`.

        Raises:
            UsageError: the model predicts numbers, texts or parts of texts; or a text is not a string, is blank, or is
                not valid Unicode: the message names its index.
            HarnessError: the model fails, or gives a probability that is not finite.
        """
        if self.form in _WITHOUT_TABLE:
            what = _WITHOUT_TABLE[self.form]
            raise UsageError(f"The model predicts {what}, which have no table of probabilities. Use predict_frame.")
        return self._answers(self._checked_inputs(texts, text))

    @spelt_for_caller
    def predict(self, texts: Inputs | pd.DataFrame, text: TextColumns | None = None) -> list[Any]:
        """Return the answer for each text.

        It is the most probable class or choice, a text or a part of the context, a number, a list of labels, or a list
        of tags.
        Arguments and errors are those of `probabilities`, except that all forms of answers are predicted.
        """
        given = self._checked_inputs(texts, text)
        return answers_in_words(self._answers(given), self.labels, self.form, given)

    @spelt_for_caller
    def predict_frame(
        self,
        texts: Iterable[Any] | pd.DataFrame,
        text: TextColumns | None = None,
        *,
        probabilities: bool = False,
        top: int | None = None,
    ) -> pd.DataFrame:
        """Return one row per text: the answer (`prediction`) and, for classes, choices and spans, its `probability`.

        The answer is a class, a choice, a text or a part of the context, a number, a list of labels, or a list of tags;
        `words` then holds the words of the tags. It is missing where a text is missing, blank, no string, or not valid
        Unicode. The probability of a span is missing where a language model wrote it.

        Args:
            texts: a list of texts, of pairs for a model of pairs, or of lists of words for a model of tags; or a data
                frame. The result has its index, so that `frame.join` puts both together.
            text: column of a data frame that holds the texts; two columns for a model of pairs. None takes the kind's
                own names, such as `text`.
            probabilities: whether to add the probability of each class or label, in columns such as
                `probability_billing`, or `score_billing` where a row has several labels.
            top: number of most probable classes to add, as `top_1`, `top_1_probability`, `top_2` and so on.

        Raises:
            UsageError: one text instead of a list, `top` is not from 1 to the number of classes, or the model's answers
                have no such columns.
            HarnessError: the model fails, or gives no probabilities.
        """
        import pandas as pd

        check_asked(self.form, probabilities=probabilities, top=top)
        if top is not None:
            check_top(whole_number("top", top), self.labels)
        given = read_inputs(texts, text, self._kind)
        usable = [at for at, one in enumerate(given) if why_not_input(one, self._kind) is None]
        columns = self.tabulate([given[at] for at in usable], probabilities=probabilities, top=top)
        frame = pd.DataFrame(columns, index=usable).reindex(range(len(given)))
        return frame.set_axis(texts.index, axis=0) if isinstance(texts, pd.DataFrame) else frame

    def tabulate(
        self, inputs: Sequence[Any], *, probabilities: bool = False, top: int | None = None
    ) -> dict[str, np.ndarray[Any, Any]]:
        """Return the columns of `predict_frame` for inputs that have been checked, one value per input."""
        return tabulate_predictions(
            self._answers(inputs),
            self.labels,
            form=self.form,
            inputs=inputs,
            probabilities=probabilities,
            top=top,
        )

    def _checked_inputs(self, texts: Inputs | pd.DataFrame, text: TextColumns | None) -> list[Any]:
        given = read_inputs(texts, text, self._kind)
        wrong = [(at, why) for at, one in enumerate(given) if (why := why_not_input(one, self._kind)) is not None]
        if wrong:
            listed = ", ".join(f"text {at} is {reason}" for at, reason in wrong[:_NAMED])
            more = f" ({len(wrong):,} such texts in all)" if len(wrong) > _NAMED else ""
            raise UsageError(f"Nothing was predicted: {listed}{more}. Indices count from 0. Leave these texts out.")
        return given

    def _answers(self, given: Sequence[Any]) -> Floats:
        parts = [self._some(given[at : at + _ROWS]) for at in range(0, len(given), _ROWS)]
        if self.form == "choices":
            most = max((part.shape[1] for part in parts), default=1)
            parts = [np.pad(part, ((0, 0), (0, most - part.shape[1]))) for part in parts]
        return np.concatenate(parts) if parts else np.zeros((0, max(1, len(self.labels))), dtype=np.float32)

    @property
    def probabilities_are(self) -> str:
        """Meaning of the method's probabilities, where they do not estimate how often a class is right; else empty."""
        from harness.methods import methods

        found = [methods.get(_method_name(one.described)).probabilities_are for one in self._members]
        said = dict.fromkeys(meaning for meaning in found if meaning)
        if len(found) > 1 and said:
            return f"an average, in part of {'; '.join(said)}"
        return "; ".join(said)

    def merged(self) -> SavedModel:
        """Return the model with what its method added merged into the weights, so that it predicts faster.

        Predictions stay the same up to rounding. Members of an ensemble that add nothing stay as they are.

        Raises:
            UnsupportedError: the method adds nothing that can be merged. `harness methods --can merge` lists others.
        """
        from harness.methods import merged, why_not_merged

        return self._with(merged, why_not_merged, "merged")

    def converted_to_lora(self, rank: int | None = None) -> SavedModel:
        """Return the model with what its method added replaced by the nearest addition of LoRA.

        Args:
            rank: rank of the addition to each matrix; None takes the smallest that keeps 0.999999 of its squared
                singular values.

        Raises:
            UnsupportedError: the method adds no matrix to each adapted matrix, or `rank` is above a matrix's.
                `harness methods --can convert-to-lora` lists others.
        """
        from harness.methods import converted_to_lora, why_not_lora

        return self._with(lambda fitted: converted_to_lora(fitted, rank), why_not_lora, "converted to LoRA")

    def _with(
        self, change: Callable[[Fitted], Fitted], why_not: Callable[[Fitted], str | None], what: str
    ) -> SavedModel:
        reasons = [why_not(one.fitted) for one in self._members]
        if all(reason is not None for reason in reasons):
            raise UnsupportedError(f"The model '{self.description.method}' cannot be {what}. {reasons[0]}")
        members = tuple(
            one if reason is not None else dataclasses.replace(one, fitted=change(one.fitted))
            for one, reason in zip(self._members, reasons, strict=True)
        )
        return dataclasses.replace(self, _members=members)

    def _some(self, inputs: Sequence[Any], features: FeatureStore | None = None) -> Floats:
        """Return the weighted mean of the members' probabilities; those of one backbone encode the texts once."""
        from harness.features import FeatureStore, TokenStore

        texts, fields = fields_of(inputs, self._kind)
        parts = ("\1".join(one) if isinstance(one, tuple) else one for one in itertools.chain(*fields.values()))
        key = hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()
        tokens, features = TokenStore(), features or FeatureStore(self._members[0].bench.device, None)
        found = [_predicted(one, key, texts, fields, tokens, features) for one in self._members]
        if len(found) == 1:
            return found[0]
        assert isinstance(self.description, EnsembleDescription)
        members = self.description.members
        mean = mixed(found, [one.weight for one in members], [one.temperature for one in members])
        return np.asarray(mean, dtype=np.float32)


def _predicted(
    one: _Member,
    key: str,
    texts: list[str],
    fields: dict[str, list[Any]],
    tokens: TokenStore,
    features: FeatureStore,
) -> Floats:
    described = one.described
    source = _source(described, key, texts, fields)
    bench = dataclasses.replace(one.bench, tokens=tokens, features=features)  # without those of other texts
    if bench.kind.form == "choices":
        bench = dataclasses.replace(bench, n_outputs=max(map(len, fields["choices"])))
    try:
        with _threads(bench):
            answers = one.fitted.predict(Rows(source, np.arange(len(texts), dtype=np.int64)), bench)
    except HarnessError:
        raise
    except FloatingPointError as error:
        raise HarnessError(f"{_broken(described)}: {error}") from error
    except Exception as error:  # the model's files may be damaged in a way that only predicting shows
        raise HarnessError(f"The model '{described.method}' failed to predict ({reason_of(error)}).") from error
    form = bench.kind.form
    if form in ("spans", "text"):
        written: Floats = _checked_texts(answers, len(texts), described, form)
        return written
    n_rows = sum(map(len, fields["tokens"])) if form == "tags" else len(texts)
    return _checked(answers, (n_rows, bench.n_outputs), described, form)


def _source(described: Description, key: str, texts: list[str], fields: dict[str, list[Any]]) -> Source:
    return Source(
        key=f"{key}/predict",
        texts=texts,
        fields=fields,
        prompts=None if described.prompt is None else prompts_of(described.prompt, texts, fields),
        cut="left" if described.truncation_side == "left" else "right",
        characters=described.characters,
        ending=_ending(described),
    )


def _method_name(described: Description) -> str:
    return described.method.partition("[")[0]


def _ending(described: Description) -> str | None:
    """Return the words of prompts after their input, where long prompts lose the end of that."""
    inside = described.truncation_side == "input" and described.prompt is not None
    return ending_of(described.prompt) if inside and described.prompt is not None else None


def _checked_texts(answers: Any, n_rows: int, described: Description, form: str) -> Any:
    """Return the text of each answer, and for spans its confidence, shape (rows, 1 or 2), objects.

    The confidence is NaN where a language model has written the answer.
    """
    from harness.tasks import TextAnswers

    if not isinstance(answers, TextAnswers) or len(answers.texts) != n_rows:
        raise HarnessError(f"{_broken(described)}: something else than {n_rows} answers.")
    found = np.full((n_rows, 2 if form == "spans" else 1), np.nan, dtype=object)
    found[:, 0] = list(answers.texts)
    if form == "spans" and answers.confidence is not None:
        found[:, 1] = answers.confidence
    return found


def _checked(answers: Any, expected: tuple[int, int], described: Description, form: str) -> Floats:
    """Refuse answers that are not one finite number for each output; those of classes and tags sum to 1."""
    what = {"number": "numbers", "labels": "scores"}.get(form, "probabilities")
    if isinstance(answers, Unscaled):
        answers = answers.values[:, None]
    if not isinstance(answers, np.ndarray) or answers.shape != expected:
        found = getattr(answers, "shape", type(answers).__name__)
        raise HarnessError(f"{_broken(described)}: {what} of shape {found}; expected {expected}.")
    if not np.isfinite(answers).all():
        raise HarnessError(f"{_broken(described)}: {what} that are not finite.")
    if form == "number":
        return answers
    if form == "labels":
        if (answers < 0).any() or (answers > 1).any():
            raise HarnessError(f"{_broken(described)}: scores outside 0 to 1.")
        return answers
    off = np.abs(answers.sum(axis=1, dtype=np.float64) - 1.0) > _SUM_TOLERANCE
    if (answers < 0).any() or off.any():
        raise HarnessError(f"{_broken(described)}: numbers that are no probabilities, negative or not of sum 1.")
    return answers


def _broken(described: Description) -> str:
    return f"Nothing was predicted. The model '{described.method}' is damaged or has diverged, and gives"


def load_model(
    folder: str | Path,
    device: str = "auto",
    *,
    endpoint: str | None = None,
    endpoint_key: str | None = None,
    answers: Path | None = None,
) -> SavedModel:
    """Load a model that `harness choose --save FOLDER` has written, after checking every file of it.

    The endpoint of a served model is contacted: it must be reachable, accept the key and serve the same model.

    Args:
        folder: the folder.
        device: `auto`, `cpu` or `cuda`.
        endpoint: URL of the served model that the saved one asks; None takes the saved URL.
        endpoint_key: name of the environment variable that holds its key; None takes the saved name.
        answers: file that keeps every answer of a served model, so that none is asked for twice; None keeps them in
            memory.

    Raises:
        MissingResourceError: the endpoint of a served model cannot be reached.
        UsageError: the folder holds no saved model, a file of it is missing, changed or damaged, or another version of
            the method saved it. The message names the file or the tensor.
    """
    from harness.saved.files import check_files
    from harness.support import checked_path, quiet_libraries

    folder = Path(checked_path("folder", folder, "the folder of a saved model")).expanduser()
    described = read_description(folder)
    if (endpoint, endpoint_key) != (None, None) and getattr(described, "endpoint", None) is None:
        raise UsageError(
            f"--endpoint was given, and the model in '{folder}' asks no served model ({described.method}). Leave the "
            "option out."
        )
    if isinstance(described, EnsembleDescription):
        kind_of_saved(described.kind)
        inside = check_ensemble(folder, described)
        quiet_libraries()
        return SavedModel(
            described,
            tuple(
                _load(folder / MEMBERS / member.folder, one, device)
                for member, one in zip(described.members, inside, strict=True)
            ),
        )
    check_files(folder, described)
    kind_of_saved(described.kind)
    quiet_libraries()
    connection = None
    if described.endpoint is not None:
        from harness.saved.served import connect

        connection = connect(folder, described, endpoint, endpoint_key, answers)
    return SavedModel(described, (_load(folder, described, device, connection),))


def _load(folder: Path, described: Description, device: str, connection: Connection | None = None) -> _Member:
    """Load a saved model whose files have been checked."""
    from harness.methods import read_artifact, rebuild_artifact
    from harness.saved.transformer import load_transformer

    saved = read_artifact(folder)
    if saved.method.name != _method_name(described):
        raise UsageError(
            f"'{folder}': model.json is about '{described.method}', adapted.json about a '{saved.method.name}'."
        )
    backbone, merged = (None, {}) if connection is not None else load_transformer(folder, described)
    bench = _bench(described, kind_of_saved(described.kind), backbone, device)
    bench.served = connection
    method, fitted = rebuild_artifact(saved, folder, bench, besides=merged)
    return _Member(described, method, fitted, bench)


def kind_of_saved(name: str) -> Kind:
    """Return the kind of task of a saved model.

    Raises:
        UsageError: there is no such kind, or its answers have another form than `SAVED_FORMS`.
    """
    from harness.tasks import kinds

    kind = kinds.get(name)
    if kind.form not in SAVED_FORMS:
        raise UsageError(
            f"A saved model predicts {', '.join(FORMS[form] for form in SAVED_FORMS)} for a text or a pair; tasks of "
            f"the kind '{name}' ask for something else."
        )
    return kind


def check_can_be_saved(name: str) -> None:
    """Refuse to choose a model for a kind whose models cannot be saved, or whose answers are texts.

    Raises:
        UsageError: the kind's answers have such a form.
    """
    from harness.tasks import kinds

    served = [kind.name for kind in kinds if kind.form in SAVED_FORMS and kind.form != "text"]
    if name not in served:
        raise UsageError(
            f"The data make a task of the kind '{name}', for which choose has no search. `harness run` compares "
            f"methods on it; choose serves {', '.join(served)}."
        )


def _bench(described: Description, kind: Kind, backbone: Any, device_name: str) -> Bench:
    import torch

    from harness.features import FeatureStore, TokenStore
    from harness.measure import MemoryMeter, PhaseClock, find_device
    from harness.methods import Bench, Ledger
    from harness.records import Budget

    device = find_device(device_name)
    torch.set_num_threads(device.threads)
    limits = [described.max_length, *([backbone.max_length] if backbone is not None else [])]
    return Bench(
        kind=kind,
        n_outputs=max(1, len(described.labels)),
        n_strata=max(1, len(described.labels)),
        max_length=min(limits),
        label_words=described.label_words,
        prompt=described.prompt,
        reply=None if described.reply is None else Reply(**described.reply.model_dump()),
        ending=_ending(described),
        measure=lambda *_: 0.0,
        backbone=backbone,
        tokens=TokenStore(),
        features=FeatureStore(device, None),
        flops_models={},
        clock=PhaseClock(),
        memory=MemoryMeter(),
        ledger=Ledger(),
        budget=Budget(),
        seed=described.seed,
        device=device,
        report=lambda *_: None,
    )


def _threads(bench: Bench) -> Any:
    from threadpoolctl import threadpool_limits

    return threadpool_limits(bench.device.threads)
