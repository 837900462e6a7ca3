"""One table of the costs and guarantees of all methods."""

from __future__ import annotations

from typing import NamedTuple


class Row(NamedTuple):
    """One method's line.

    Attributes:
        name: the function in `mtljax.methods`.
        reads: `"losses"`, `"gramian"` or `"task_grads"`; "any" for a wrapper, which reads what its method reads;
            "batches" for what needs the loss function itself.
        passes: backward passes through the shared network that a step takes; T tasks.
        nonconflicting: whether `<g_k, update> >= 0` for every task: to first order no loss rises under plain gradient
            descent. An optimizer that rescales entries, such as Adam, does not keep it. This and what follows speak of
            the default arguments; None stands for "as the wrapped method".
        invariant: whether the update keeps its direction, at every step, when one loss is multiplied by a constant.
        homogeneous: whether `update(s J) = s update(J)` for every s > 0, with the losses as they are.
        identical: what T identical tasks give at the first step: the "sum" of their gradients, the "mean", or "other".
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
    invariant: bool | None
    homogeneous: bool | None
    identical: str | None
    permutation: bool | None
    preference: bool | None
    negative: bool | None
    paper: str


def table() -> list[Row]:
    """One row per method: what it reads, what it costs, what it guarantees, where it was published.

    Tests hold every claim. `as_markdown` is the table of the README and of `docs/methods.md`.

    Returns:
        List of `Row`: methods by what they read, then wrappers, then bilevel methods.

    Example:
        >>> import mtljax
        >>> [row.name for row in table() if row.nonconflicting and row.invariant]
        ['nash_mtl', 'fairgrad']
    """
    return [Row(*row[:9], _negative(row[0], row[1]), row[9]) for row in _ROWS]


def as_markdown(rows: list[Row], *, papers: bool = True) -> str:
    """The table in markdown, columns padded.

    Args:
        rows: the lines.
        papers: whether the last column is there.

    Example:
        >>> print(as_markdown([row for row in table() if row.name == "mgda"], papers=False))
        | method | reads   | passes | no conflict | loss-scale invariant | homogeneous | sum or mean | ...
    """
    header = (
        *("method", "reads", "passes", "no conflict", "loss-scale invariant", "homogeneous", "sum or mean"),
        *("any order", "preference", "negative losses", "paper"),
    )
    marks = {True: "yes", False: "", None: "its method's"}
    cells = [header, *((*row[:3], *(marks.get(each, each) for each in row[3:10]), row.paper) for row in rows)]
    cells = [line if papers else line[:-1] for line in cells]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in cells]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _negative(name: str, reads: str) -> bool | None:
    return False if name in _OF_POSITIVE_LOSSES else None if reads == "any" or name in ("fs_mtl", "sampled") else True


# Methods that take logarithms or ratios of losses.
_OF_POSITIVE_LOSSES = {
    *("mean_log", "geometric", "uncertainty", "uncertainty_softmax", "imtl_l", "famo", "igb", "ldc_mtl", "go4align"),
    *("gradnorm", "epo", "db_mtl", "log_losses"),
}

# Yes, no, and as the wrapped method.
Y, N, W = True, False, None
# Name, reads, passes, no conflict, loss-scale invariant, homogeneous, sum or mean, any order, preference, paper.
_ROWS = (
    ("equal", "losses", "1", N, N, Y, "sum", Y, N, ""),
    ("pooled", "losses", "1", N, N, Y, "mean", Y, N, ""),
    ("fixed", "losses", "1", N, N, Y, "sum", Y, Y, ""),
    ("mean_log", "losses", "1", N, Y, Y, "other", Y, N, "Navon et al., ICML 2022, arXiv:2202.01017 (SI)"),
    ("geometric", "losses", "1", N, Y, Y, "mean", Y, N, "Chennupati et al., CVPR Workshops 2019, arXiv:1904.08492"),
    ("uncertainty", "losses", "1", N, N, Y, "other", Y, N, "Kendall et al., CVPR 2018, arXiv:1705.07115"),
    ("uncertainty_softmax", "losses", "1", N, N, Y, "mean", Y, N, "Kirchdorfer et al., GCPR 2024, arXiv:2408.07985"),
    ("imtl_l", "losses", "1", N, N, Y, "sum", Y, N, "Liu et al., ICLR 2021"),
    ("random", "losses", "1", N, N, Y, "mean", N, N, "Lin et al., TMLR 2022, arXiv:2111.10603"),
    ("dwa", "losses", "1", N, N, Y, "sum", Y, N, "Liu et al., CVPR 2019, arXiv:1803.10704"),
    ("famo", "losses", "1 and a forward", N, Y, Y, "mean", Y, N, "Liu et al., NeurIPS 2023, arXiv:2306.03792"),
    ("stch", "losses", "1", N, N, Y, "other", Y, Y, "Lin et al., ICML 2024, arXiv:2402.19078"),
    ("tchebycheff", "losses", "1", N, N, Y, "other", Y, Y, "Bowman, LNEMS 130, 1976"),
    ("pbi", "losses", "1", N, N, Y, "other", Y, Y, "Zhang, Li, IEEE TEC 2007"),
    ("cosmos", "losses", "1", N, N, Y, "mean", Y, Y, "Ruchte, Grabocka, ICDM 2021, arXiv:2103.13392"),
    ("igb", "losses", "1", N, Y, Y, "other", Y, N, "Dai et al., UAI 2023, arXiv:2307.10154"),
    ("ldc_mtl", "losses", "1", N, Y, Y, "mean", N, N, "Xiao et al., 2025, arXiv:2502.08585"),
    ("go4align", "losses", "1", N, N, Y, "sum", Y, N, "Shen et al., NeurIPS 2024, arXiv:2404.06486"),
    ("cov_weighting", "losses", "1", N, N, Y, "mean", Y, N, "Groenendijk et al., WACV 2021, arXiv:2009.01717"),
    ("dynamic_task_priority", "losses", "1", N, N, Y, "other", Y, N, "Guo et al., ECCV 2018"),
    ("loss_normalization", "losses", "1", N, Y, Y, "other", Y, N, "van Hasselt et al., NeurIPS 2016 (Pop-Art)"),
    ("mgda", "gramian", "T", Y, N, Y, "mean", Y, N, "Desideri, 2012; Sener, Koltun, NeurIPS 2018, arXiv:1810.04650"),
    ("pcgrad", "gramian", "T", N, N, Y, "sum", N, N, "Yu et al., NeurIPS 2020, arXiv:2001.06782"),
    ("gradvac", "gramian", "T", N, N, Y, "sum", N, N, "Wang et al., ICLR 2021, arXiv:2010.05874"),
    ("cagrad", "gramian", "T", N, N, Y, "other", Y, N, "Liu et al., NeurIPS 2021, arXiv:2110.14048"),
    ("conicgrad", "gramian", "T", N, N, Y, "mean", Y, N, "Hassanpour et al., 2025, arXiv:2502.00217"),
    ("upgrad", "gramian", "T", Y, N, Y, "mean", Y, Y, "Quinton, Rey, 2024, arXiv:2406.16232"),
    ("dualproj", "gramian", "T", Y, N, Y, "mean", Y, Y, "Lopez-Paz, Ranzato, NeurIPS 2017, arXiv:1706.08840 (GEM)"),
    ("nash_mtl", "gramian", "T", Y, Y, N, "other", Y, N, "Navon et al., ICML 2022, arXiv:2202.01017"),
    ("fairgrad", "gramian", "T", Y, Y, N, "other", Y, N, "Ban, Ji, ICML 2024, arXiv:2402.15638"),
    ("pivrg", "gramian", "T", Y, N, N, "other", Y, N, "Qin et al., CVPR 2025"),
    ("consmtl", "gramian", "T", Y, N, N, "other", Y, N, "Qin et al., CVPR 2025"),
    ("imtl_g", "gramian", "T", N, Y, Y, "mean", Y, N, "Liu et al., ICLR 2021"),
    ("aligned_mtl", "gramian", "T", N, N, Y, "sum", Y, Y, "Senushkin et al., CVPR 2023, arXiv:2305.19000"),
    ("config", "gramian", "T", N, Y, Y, "sum", Y, Y, "Liu et al., ICLR 2025, arXiv:2408.11104"),
    ("ntkmtl", "gramian", "T", N, Y, Y, "other", Y, N, "Qin et al., NeurIPS 2025"),
    ("krum", "gramian", "T", N, N, Y, "mean", N, N, "Blanchard et al., NeurIPS 2017, arXiv:1703.02757"),
    ("gradnorm", "gramian", "T", N, N, Y, "sum", Y, N, "Chen et al., ICML 2018, arXiv:1711.02257"),
    ("sdmgrad", "gramian", "T", N, N, N, "mean", N, Y, "Xiao et al., NeurIPS 2023, arXiv:2305.18409"),
    ("modo", "gramian", "T", N, N, N, "mean", Y, N, "Chen et al., NeurIPS 2023, arXiv:2305.20057"),
    ("pcd", "gramian", "T", N, Y, Y, "mean", N, Y, "Varam, AlHajri, TMLR 2026, arXiv:2606.29521"),
    ("epo", "gramian", "T", N, N, Y, "mean", Y, Y, "Mahapatra, Rajan, ICML 2020"),
    ("graddrop", "task_grads", "T", N, N, Y, "sum", Y, N, "Chen et al., NeurIPS 2020, arXiv:2010.06808"),
    ("trimmed_mean", "task_grads", "T", N, N, Y, "mean", Y, N, "Yin et al., ICML 2018, arXiv:1803.01498"),
    ("moco", "task_grads", "T", N, N, N, "other", Y, N, "Fernando et al., ICLR 2023, arXiv:2210.12624"),
    ("db_mtl", "task_grads", "T", N, Y, Y, "other", Y, N, "Lin et al., 2023, arXiv:2308.12029"),
    ("excess_mtl", "task_grads", "T", N, N, Y, "mean", Y, N, "He et al., ICML 2024, arXiv:2402.02009"),
    ("adatask", "task_grads", "T", N, N, N, "sum", Y, N, "Yang et al., AAAI 2023, arXiv:2211.15055"),
    ("sam_gs", "task_grads", "T", N, N, N, "sum", Y, N, "Borsani et al., 2025, arXiv:2506.06130"),
    ("m_config", "task_grads", "1", N, N, Y, "mean", N, N, "Liu et al., ICLR 2025, arXiv:2408.11104"),
    ("cr_mogm", "any", "its method's", N, N, W, W, W, W, "Zhou et al., NeurIPS 2022"),
    ("ema", "any", "its method's", N, N, W, W, W, W, "Zhou et al., NeurIPS 2022 (CR-MOGM)"),
    ("every", "any", "1 + (T - 1) / n", N, W, W, W, W, W, "Navon et al., ICML 2022, arXiv:2202.01017"),
    ("log_losses", "any", "its method's", W, Y, W, "other", W, W, "Navon et al., ICML 2022, arXiv:2202.01017 (LOG_*)"),
    ("normalize", "any", "its method's", W, Y, N, "other", W, W, "Sener, Koltun, NeurIPS 2018, arXiv:1810.04650"),
    ("rescale", "any", "its method's", W, W, W, "sum", W, W, ""),
    ("clip", "any", "its method's", W, W, N, "other", W, W, ""),
    ("preference", "any", "its method's", N, W, W, "other", W, Y, ""),
    ("warmup", "any", "1, then its method's", N, N, W, "sum", W, W, ""),
    ("per_group", "any", "T", W, N, W, W, W, W, "Wang et al., ICLR 2021, arXiv:2010.05874"),
    ("auto_lambda", "batches", "3 and a tangent", N, N, N, "other", Y, Y, "Liu et al., TMLR 2022, arXiv:2202.03091"),
    ("moml", "batches", "T tangents and 1", N, N, N, "mean", Y, N, "Ye et al., NeurIPS 2021, arXiv:2102.07121"),
    ("forum", "batches", "T + inner steps + 1", N, N, N, "mean", Y, N, "Ye et al., ECAI 2024, arXiv:2401.09257"),
    ("sampled", "batches", "T per batch", N, W, W, W, W, W, "Chen et al., NeurIPS 2023, arXiv:2305.20057"),
    ("fs_mtl", "batches", "2 T", N, N, W, W, W, W, "Phan et al., ICCV 2025, arXiv:2211.13723"),
)
