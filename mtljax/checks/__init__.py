"""Checks of arguments, with messages of one form: "{where}: {what} must be {expected}, found {found}".

Each check returns the value that it was given. Types, shapes and dtypes are always checked. Values are checked if they
are concrete; the range of a traced array is not checked.
"""

from mtljax.checks.messages import expect, found
from mtljax.checks.numbers import (
    check_count,
    check_indices,
    check_losses,
    check_mask,
    check_nonnegative,
    check_number,
    check_preference,
    check_weights,
    is_zero,
)
from mtljax.checks.objects import (
    check_alone,
    check_axis_name,
    check_callable,
    check_choice,
    check_flag,
    check_key,
    check_method,
    check_method_of_evidence,
    check_names,
    check_optimizer,
    check_refine,
    check_task,
)
from mtljax.checks.predictions import check_labels, check_least_loss, check_outputs, check_pair, check_values

__all__ = [
    "check_alone",
    "check_axis_name",
    "check_callable",
    "check_choice",
    "check_count",
    "check_flag",
    "check_indices",
    "check_key",
    "check_labels",
    "check_least_loss",
    "check_losses",
    "check_mask",
    "check_method",
    "check_method_of_evidence",
    "check_names",
    "check_nonnegative",
    "check_number",
    "check_optimizer",
    "check_outputs",
    "check_pair",
    "check_preference",
    "check_refine",
    "check_task",
    "check_values",
    "check_weights",
    "expect",
    "found",
    "is_zero",
]
