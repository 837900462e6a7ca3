"""What every method costs and promises, as one table."""

from __future__ import annotations

from typing import NamedTuple


class Row(NamedTuple):
    """One method's line.

    Attributes:
        name: the function in `mtljax.methods`.
        reads: `"losses"`, `"gramian"` or `"task_grads"`; "any" for a wrapper, which reads what its method reads;
            "batches" for what needs the loss function itself.
        passes: backward passes through the shared network that a step takes; T tasks.
        nonconflicting: whether `<g_k, update> >= 0` for every task. These five speak of the default arguments; None
            stands for "as the wrapped method".
        scale_free: whether `update(s J) = s update(J)` for every s > 0, with the losses as they are.
        permutation: whether the order of tasks makes no difference.
        preference: whether the method itself takes a preference among tasks, or which of them has priority. Beside it,
            `methods.preference` and `Task.prior` give one to every method.
        negative: whether losses may be negative. Where not, a task whose loss is negative sits the step out, as if its
            loss were NaN (`Method.least_loss`).
        paper: authors, year and where.
    """

    name: str
    reads: str
    passes: str
    nonconflicting: bool | None
    scale_free: bool | None
    permutation: bool | None
    preference: bool | None
    negative: bool | None
    paper: str


def table() -> list[Row]:
    """One row a method: what it reads, what it costs, what it promises, where it was published.

    Tests hold every claim. `as_markdown` is the table of the README and of `docs/methods.md`.

    Returns:
        List of `Row`: methods by what they read, then wrappers, then bilevel methods.

    Example:
        >>> import mtljax
        >>> [row.name for row in mtljax.methods.table() if row.nonconflicting and row.scale_free and row.preference]
        ['upgrad', 'dualproj']
    """
    return [Row(*row[:7], _negative(row[0], row[1]), row[7]) for row in _ROWS]


def as_markdown(rows: list[Row]) -> str:
    """The table in markdown, columns padded.

    Example:
        >>> print(as_markdown([row for row in table() if row.name == "mgda"]))
        | method | reads   | passes | no conflict | scale-free | any order | preference | negative losses | paper ...
    """
    promises = ("no conflict", "scale-free", "any order", "preference", "negative losses")
    header = ("method", "reads", "passes", *promises, "paper")
    marks = {True: "yes", False: "", None: "as its method"}
    cells = [header, *((*row[:3], *(marks[each] for each in row[3:8]), row.paper) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(header))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in cells]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _negative(name: str, reads: str) -> bool | None:
    return False if name in _OF_POSITIVE_LOSSES else None if reads == "any" or name == "fs_mtl" else True


# Methods that take logarithms or ratios of losses.
_OF_POSITIVE_LOSSES = {
    *("mean_log", "geometric", "uncertainty", "uncertainty_softmax", "imtl_l", "famo", "igb", "ldc_mtl", "go4align"),
    *("gradnorm", "epo", "db_mtl", "log_losses"),
}

# Name, reads, passes, no conflict, scale-free, permutation-invariant, preference, paper.
_ROWS = (
    ("equal", "losses", "1", False, True, True, False, ""),
    ("fixed", "losses", "1", False, True, True, True, ""),
    ("mean_log", "losses", "1", False, True, True, False, "Navon et al., ICML 2022, arXiv:2202.01017 (SI)"),
    ("geometric", "losses", "1", False, True, True, False, "Chennupati et al., CVPR Workshops 2019, arXiv:1904.08492"),
    ("uncertainty", "losses", "1", False, True, True, False, "Kendall et al., CVPR 2018, arXiv:1705.07115"),
    ("uncertainty_softmax", "losses", "1", False, True, True, False, "Kirchdorfer et al., GCPR 2024, arXiv:2408.07985"),
    ("imtl_l", "losses", "1", False, True, True, False, "Liu et al., ICLR 2021"),
    ("random", "losses", "1", False, True, False, False, "Lin et al., TMLR 2022, arXiv:2111.10603"),
    ("dwa", "losses", "1", False, True, True, False, "Liu et al., CVPR 2019, arXiv:1803.10704"),
    ("famo", "losses", "1 and a forward", False, True, True, False, "Liu et al., NeurIPS 2023, arXiv:2306.03792"),
    ("stch", "losses", "1", False, True, True, True, "Lin et al., ICML 2024, arXiv:2402.19078"),
    ("tchebycheff", "losses", "1", False, True, True, True, "Bowman, LNEMS 130, 1976"),
    ("pbi", "losses", "1", False, True, True, True, "Zhang, Li, IEEE TEC 2007"),
    ("cosmos", "losses", "1", False, True, True, True, "Ruchte, Grabocka, ICDM 2021, arXiv:2103.13392"),
    ("igb", "losses", "1", False, True, True, False, "Dai et al., UAI 2023, arXiv:2307.10154"),
    ("ldc_mtl", "losses", "1", False, True, False, False, "Xiao et al., 2025, arXiv:2502.08585"),
    ("go4align", "losses", "1", False, True, True, False, "Shen et al., NeurIPS 2024, arXiv:2404.06486"),
    ("cov_weighting", "losses", "1", False, True, True, False, "Groenendijk et al., WACV 2021, arXiv:2009.01717"),
    ("dynamic_task_priority", "losses", "1", False, True, True, False, "Guo et al., ECCV 2018"),
    ("loss_normalisation", "losses", "1", False, True, True, False, "van Hasselt et al., NeurIPS 2016 (Pop-Art)"),
    ("mgda", "gramian", "T", True, True, True, False, "Desideri, 2012; Sener, Koltun, NeurIPS 2018, arXiv:1810.04650"),
    ("pcgrad", "gramian", "T", False, True, False, False, "Yu et al., NeurIPS 2020, arXiv:2001.06782"),
    ("gradvac", "gramian", "T", False, True, False, False, "Wang et al., ICLR 2021, arXiv:2010.05874"),
    ("cagrad", "gramian", "T", False, True, True, False, "Liu et al., NeurIPS 2021, arXiv:2110.14048"),
    ("conicgrad", "gramian", "T", False, True, True, False, "Hassanpour et al., 2025, arXiv:2502.00217"),
    ("upgrad", "gramian", "T", True, True, True, True, "Quinton, Rey, 2024, arXiv:2406.16232"),
    ("dualproj", "gramian", "T", True, True, True, True, "Lopez-Paz, Ranzato, NeurIPS 2017, arXiv:1706.08840 (GEM)"),
    ("nash_mtl", "gramian", "T", True, False, True, False, "Navon et al., ICML 2022, arXiv:2202.01017"),
    ("fairgrad", "gramian", "T", True, False, True, False, "Ban, Ji, ICML 2024, arXiv:2402.15638"),
    ("pivrg", "gramian", "T", True, False, True, False, "Qin et al., CVPR 2025"),
    ("consmtl", "gramian", "T", True, False, True, False, "Qin et al., CVPR 2025"),
    ("imtl_g", "gramian", "T", False, True, True, False, "Liu et al., ICLR 2021"),
    ("aligned_mtl", "gramian", "T", False, True, True, True, "Senushkin et al., CVPR 2023, arXiv:2305.19000"),
    ("config", "gramian", "T", False, True, True, True, "Liu et al., ICLR 2025, arXiv:2408.11104"),
    ("ntkmtl", "gramian", "T", False, True, True, False, "Qin et al., NeurIPS 2025"),
    ("krum", "gramian", "T", False, True, False, False, "Blanchard et al., NeurIPS 2017, arXiv:1703.02757"),
    ("gradnorm", "gramian", "T", False, True, True, False, "Chen et al., ICML 2018, arXiv:1711.02257"),
    ("sdmgrad", "gramian", "T", False, False, False, True, "Xiao et al., NeurIPS 2023, arXiv:2305.18409"),
    ("modo", "gramian", "T", False, False, True, False, "Chen et al., NeurIPS 2023, arXiv:2305.20057"),
    ("pcd", "gramian", "T", False, True, False, True, "Varam, AlHajri, TMLR 2026, arXiv:2606.29521"),
    ("epo", "gramian", "T", False, True, True, True, "Mahapatra, Rajan, ICML 2020"),
    ("graddrop", "task_grads", "T", False, True, True, False, "Chen et al., NeurIPS 2020, arXiv:2010.06808"),
    ("trimmed_mean", "task_grads", "T", False, True, True, False, "Yin et al., ICML 2018, arXiv:1803.01498"),
    ("moco", "task_grads", "T", False, False, True, False, "Fernando et al., ICLR 2023, arXiv:2210.12624"),
    ("db_mtl", "task_grads", "T", False, True, True, False, "Lin et al., 2023, arXiv:2308.12029"),
    ("excess_mtl", "task_grads", "T", False, True, True, False, "He et al., ICML 2024, arXiv:2402.02009"),
    ("adatask", "task_grads", "T", False, False, True, False, "Yang et al., AAAI 2023, arXiv:2211.15055"),
    ("sam_gs", "task_grads", "T", False, False, True, False, "Borsani et al., 2025, arXiv:2506.06130"),
    ("m_config", "task_grads", "1", False, True, False, False, "Liu et al., ICLR 2025, arXiv:2408.11104"),
    ("cr_mogm", "any", "its method's", False, False, None, None, "Zhou et al., NeurIPS 2022"),
    ("ema", "any", "its method's", False, False, None, None, "Zhou et al., NeurIPS 2022 (CR-MOGM)"),
    ("every", "any", "1 + (T - 1) / n", False, None, None, None, "Navon et al., ICML 2022, arXiv:2202.01017"),
    ("log_losses", "any", "its method's", None, None, None, None, "Navon et al., ICML 2022, arXiv:2202.01017 (LOG_*)"),
    ("normalize", "any", "its method's", None, False, None, None, "Sener, Koltun, NeurIPS 2018, arXiv:1810.04650"),
    ("rescale", "any", "its method's", None, None, None, None, ""),
    ("clip", "any", "its method's", None, False, None, None, ""),
    ("preference", "any", "its method's", False, None, None, True, ""),
    ("warmup", "any", "1, then its method's", False, None, None, None, ""),
    ("per_group", "any", "T", None, None, None, None, "Wang et al., ICLR 2021, arXiv:2010.05874"),
    ("auto_lambda", "batches", "3 and a tangent", False, False, True, True, "Liu et al., TMLR 2022, arXiv:2202.03091"),
    ("moml", "batches", "T tangents and 1", False, False, True, False, "Ye et al., NeurIPS 2021, arXiv:2102.07121"),
    ("forum", "batches", "T + inner steps + 1", False, False, True, False, "Ye et al., ECAI 2024, arXiv:2401.09257"),
    ("fs_mtl", "batches", "2 T", None, False, None, None, "Phan et al., ICCV 2025, arXiv:2211.13723"),
)
