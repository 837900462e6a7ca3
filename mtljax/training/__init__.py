"""Training: the step, its parallel forms, the loop, recipes in stages, evaluation and checkpoints.

A training step calls the five functions of a step in a row (README.md, "Map"), and adds penalties and the optimizer.
Only this folder owns jit, devices, files and the terminal.
"""

from mtljax.training.checkpoint import RestoredParams, restore_params
from mtljax.training.evaluate import make_evaluate
from mtljax.training.loop import FitResult, fit
from mtljax.training.parallel import jit, pmap, sharded, split_batch
from mtljax.training.recipes import add_task_later, alternate, begin_at, pretrain_then_finetune, scheduled
from mtljax.training.resting import ByTaskState, by_task
from mtljax.training.stages import Stage, run_stages, stage_functions
from mtljax.training.step import make_train_step

__all__ = [
    "ByTaskState",
    "FitResult",
    "RestoredParams",
    "Stage",
    "add_task_later",
    "alternate",
    "begin_at",
    "by_task",
    "fit",
    "jit",
    "make_evaluate",
    "make_train_step",
    "pmap",
    "pretrain_then_finetune",
    "restore_params",
    "run_stages",
    "scheduled",
    "sharded",
    "split_batch",
    "stage_functions",
]
