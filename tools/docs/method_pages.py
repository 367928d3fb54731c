"""The pages of methods: a table by family, and one page for each method."""

from __future__ import annotations

import re
from collections.abc import Iterator

from harness.methods import CAPABILITIES, Method, capabilities_of, methods
from harness.methods.peft_table import NOT_COMPARABLE
from harness.records import AuditedDefault, Budget, Workload
from harness.support import text
from harness.tasks import kinds
from tools.docs.describe import (
    FAMILIES,
    audits_of,
    family_position,
    own,
    search_text,
    serves_kind,
    setting_meanings,
    setting_text,
    telling_settings,
)
from tools.docs.markdown import code, fill, linked, read_docstring, table
from tools.docs.measured import measured

_LABELS = (32, 512)
"""Numbers of labels for which a page states the work of a fit."""

_BLOCKS = 6
"""Blocks of the default backbone, all-MiniLM-L6-v2."""


_FIXED_BYTES = {"qlora": "half a byte each in the blocks' matrices, and 2 or 4 bytes each elsewhere"}
"""Memory of the fixed parameters, for methods that do not keep them in float32."""


def method_pages() -> dict[str, str]:
    """Return the overview and each method's page by its path."""
    ours = [cls for cls in methods if own(methods, cls.name)]
    ours.sort(key=lambda cls: (*family_position(cls.family), cls.name))
    pages = {"methods/index.md": _index(ours)}
    for cls in ours:
        pages[f"methods/{cls.name}.md"] = "\n\n".join(_page(cls))
    return pages


def _index(ours: list[type[Method]]) -> str:
    families = {}
    for family in FAMILIES:
        rows = [
            (
                f"[`{cls.name}`]({cls.name}.md)",
                cls.trains.removesuffix(", and the output layer"),
                _needs(cls),
                _kinds(cls),
                _papers(cls),
            )
            for cls in ours
            if cls.family == family
        ]
        headings = ("method", "trains", "needs", "kinds", "source")
        families[family.replace(" ", "_").replace("-", "_")] = table(headings, rows)
    reasons = "\n".join(f"- `{name}`: {reason}." for name, reason in NOT_COMPARABLE.items())
    return fill("methods.md", {**families, "n_methods": text.counted(len(ours), "method"), "not_comparable": reasons})


def _needs(cls: type[Method]) -> str:
    """Return the transformers that a method adapts and its other needs; empty where any transformer will do."""
    if not cls.serves:
        return ", ".join(filter(None, ("no backbone", cls.needs)))
    known = ("encoder", "causal", "sequence-to-sequence")
    served = [name for name in known if name in cls.serves]
    return ", ".join(filter(None, ("" if len(served) == len(known) else " or ".join(served), cls.needs)))


def _kinds(cls: type[Method]) -> str:
    known = [kind for kind in kinds if own(kinds, kind.name)]
    served = [kind.name for kind in known if serves_kind(cls, kind)]
    return "all" if len(served) == len(known) else ", ".join(served)


def _papers(cls: type[Method]) -> str:
    """Return the authors and years of the papers alone."""
    return re.sub(r", (arXiv:[\d.]+|doi:\S+?(?=;|$|\s))", "", cls.source).removesuffix("; peft")


def _page(cls: type[Method]) -> Iterator[str]:
    yield f"# {cls.name}"
    yield read_docstring(cls.__doc__).prose
    backbone = "" if not cls.serves or "encoder" in cls.serves else f" --backbone {kinds.get('generation').backbone}"
    yield f"```bash\nharness run sentiment --methods {cls.name}{backbone}\n```"
    facts = [
        ("family", f"[{cls.family}](index.md#{cls.family.replace(' ', '-')})"),
        ("trains", cls.trains),
        ("needs", _needs(cls) or "any transformer"),
        *([("can", _abilities(cls))] if cls.can else []),
        ("kinds of task", ", ".join(f"[{name}](../kinds.md#{name})" for name in _kinds_of(cls))),
        ("source", linked(cls.source)),
        *([("experimental", cls.experimental)] if cls.experimental else []),
        *([] if cls.is_candidate else [("`choose`", "considers it only where it is named")]),
        ("version", f"{cls.version}" + (f"; {cls.later_versions()}" if cls.later_versions() else "")),
    ]
    yield "\n".join(f"- **{name}**: {value}" for name, value in facts)
    own_settings, others = _settings(cls)
    yield "## Settings"
    yield from _table_of_settings(cls, own_settings)
    if audits := audits_of(cls):
        yield "## Audit of the defaults"
        yield (
            "`harness audit-defaults` compares the default settings with others. Differences are in points, with their "
            "95 % interval."
        )
        yield "\n".join(f"- {_audited(one)}" for one in audits)
    yield "## Cost"
    yield " ".join(_cost(cls))
    yield "## Measured results"
    yield from _measured(cls)
    if others:
        yield "## Settings in common with others"
        yield from _table_of_settings(cls, others)


def _abilities(cls: type[Method]) -> str:
    return "; ".join(f"`{name}` ({CAPABILITIES[name]})" for name in capabilities_of(cls))


def _audited(audit: AuditedDefault) -> str:
    verdict = "**The defaults are behind**" if audit.is_behind else "The defaults are not shown to be far behind"
    return f"{verdict} on {code(audit.backbone)}: {audit.said}."


def _kinds_of(cls: type[Method]) -> list[str]:
    return [kind.name for kind in kinds if own(kinds, kind.name) and serves_kind(cls, kind)]


def _settings(cls: type[Method]) -> tuple[list[str], list[str]]:
    """Return the names of the settings that tell a method from others, and of those it shares with others."""
    telling = telling_settings(cls)
    others = [name for name in cls.model_fields if name not in telling and name != "tune"]
    return telling, [*others, *(["tune"] if cls.search_space else [])]


def _table_of_settings(cls: type[Method], names: list[str]) -> Iterator[str]:
    if not names:
        yield "It has no settings of its own."
        return
    meanings = setting_meanings(cls)
    defaults = cls().model_dump(mode="json")
    if names == telling_settings(cls):
        yield f"Settings go in brackets: `--methods '{cls.name}[{names[0]}={setting_text(defaults[names[0]])}]'`."
    rows = [
        (
            code(name),
            code(_shown(setting_text(defaults[name]))),
            search_text(cls.search_space.get(name)),
            meanings.get(name, "").replace("<", "&lt;"),
        )
        for name in names
    ]
    if any(searched for _, _, searched, _ in rows):
        yield table(("setting", "default", "`--tune` tries", "meaning"), rows)
    else:
        yield table(("setting", "default", "meaning"), [(name, default, said) for name, default, _, said in rows])


def _shown(value: str) -> str:
    """Return a default as code that stands on one line."""
    return value.replace("\n", "\\n") or '""'


def _cost(cls: type[Method]) -> Iterator[str]:
    """Yield sentences on the work that the method declares for a fit, and on the bytes of what it trains."""
    method = cls()
    few, many = (method.workload(n, Budget(), _BLOCKS) for n in _LABELS)
    if not cls.serves:
        yield "It runs no transformer."
        return
    if many.encoded and not many.texts_per_step:
        yield "Each training text passes once through the frozen transformer, and cells share the result."
    elif many.encoded and many.encoded < _LABELS[1]:
        n_lower = round(_BLOCKS * many.encoded / _LABELS[1])
        yield f"Each training text passes once through the lower blocks: {n_lower} of the default backbone's {_BLOCKS}."
    elif many.encoded:
        yield "Each training text passes once through the transformer outside the steps."
    if many.steps and many.texts_per_step:
        yield _steps(few, many)
    elif many.steps:
        yield (
            f"A fit takes {few.steps:,} steps with {_LABELS[0]} labels and {many.steps:,} with {_LABELS[1]}. They run "
            "a small network on stored features, which takes little."
        )
    if many.share_trained:
        part = "All parameters of the transformer" if many.share_trained == 1 else "Parameters of the trained blocks"
        yield (
            f"{part} have a gradient and two moments of AdamW: 16 bytes for each in training, with the weight itself."
            + ("" if many.share_trained == 1 else " Fixed parameters take 4 bytes each.")
        )
    elif many.steps and many.texts_per_step:
        yield (
            f"Almost all parameters are fixed, at {_FIXED_BYTES.get(cls.name, '4 bytes each')}. A trained one takes 16 "
            "bytes: weight, gradient and two moments of AdamW."
        )
    yield _prediction(many)


def _steps(few: Workload, many: Workload) -> str:
    sizes = [
        f"{load.steps:,} steps of {load.texts_per_step} texts with {labels} labels"
        for load, labels in ((few, _LABELS[0]), (many, _LABELS[1]))
    ]
    passes = f"{many.passes_per_text:.2g} forward pass{'' if many.passes_per_text == 1 else 'es'}"
    total = many.encoded + many.steps * many.texts_per_step * many.passes_per_text
    return (
        f"A fit takes {sizes[0]}, and {sizes[1]}. With its backward pass, a text of a step costs as much as {passes}. "
        f"That makes {total:,.0f} forward passes in all with {_LABELS[1]} labels."
    )


def _prediction(load: Workload) -> str:
    n_texts = load.texts_per_answer
    if n_texts > 1:
        return f"Each answer reads a prompt of about {n_texts:g} texts: the demonstrations and the row's own."
    return "Each answer reads the row's text once."


def _measured(cls: type[Method]) -> Iterator[str]:
    parts = list(measured(cls.name))
    if len(parts) > 1:
        yield fill("measured.md", {}).strip()
    yield from parts
