"""Make a task of a user's own data, of any kind."""

from __future__ import annotations

import warnings

from harness.data import (
    Columns,
    TaskSpec,
    TextColumns,
    UserData,
    check_own_settings,
    files_of,
    own_spec,
    table_task,
)
from harness.support import DataWarning, UsageError, checked_text
from harness.tasks import CLASS_KINDS, LabelColumns, own_columns, own_prompt


def own_task(
    data: UserData,
    text: TextColumns | None = None,
    label: LabelColumns | None = None,
    test: UserData | None = None,
    name: str | None = None,
    *,
    kind: str | None = None,
    label_separator: str | None = None,
    metric: str | None = None,
    max_length: int | None = None,
    strict: bool = False,
    prompt: str | None = None,
) -> TaskSpec:
    """Return the task of a user's own data; None takes the default of the task, and guesses the kind.

    Rows of classes are checked here; those of other kinds when the task is prepared.

    Raises:
        UsageError: an unknown kind or metric, or a metric of other kinds of task; columns in another number than the
            kind reads; a length that is too small; a prompt without the columns' names.
        DataError: the data cannot be used.
    """
    length = TaskSpec.model_fields["max_length"].default if max_length is None else max_length
    length = check_own_settings(name, length)
    files = files_of(data, test)
    own = own_columns(files, text, label, kind, label_separator)
    template = None if prompt is None else own_prompt(prompt, own)
    accepted = own.kind.metrics
    if metric is not None and checked_text("metric", metric) not in accepted:
        raise UsageError(
            f"--metric {metric} was given; expected one of {', '.join(accepted)}, which score a {own.kind.name} task. "
            "--kind names another kind."
        )
    metric = accepted[0] if metric is None else metric
    if own.kind.name not in CLASS_KINDS:
        return own_spec(
            files,
            name,
            kind=own.kind.name,
            kind_because=own.because,
            texts=own.texts,
            labels=own.labels,
            columns=Columns(**own.roles),
            label_columns=own.labels if len(own.labels) > 1 else (),
            label_separator=own.separator,
            metric=metric,
            max_length=length,
            strict=strict,
            prompt=template,
            prompt_in_configuration=template is not None and own.kind.form != "text",
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # the display warns, with the summary of the data
        spec = table_task(
            data, own.texts, own.labels[0], test, name, metric=metric, max_length=length, strict=strict, known=own.rows
        )
    if spec.metric == "f1" and len(spec.label_names) != 2:
        raise UsageError(
            f"--metric f1 was given, which scores two classes; column '{own.labels[0]}' has {len(spec.label_names)}. "
            "Give --metric macro_f1, or leave it out."
        )
    return spec.model_copy(update={"prompt": template, "prompt_in_configuration": template is not None})
