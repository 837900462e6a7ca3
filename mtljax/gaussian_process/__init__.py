"""Multi-task Gaussian-process regression: `cov(f_s(x), f_t(x')) = B_st k(x, x')`, `B = W W^T + diag(kappa)`.

Tasks share what they have in common through B, which is learnt with the kernel and each task's noise. Three forms of
one model, equal to rounding; `N` rows in all, `n` inputs, `T` tasks, `p` features, rank `r`:

| data | time | functions |
|---|---|---|
| any rows, each of one task | `O(N^3)` | `log_marginal_likelihood`, `predict` |
| every task at every input | `O(n^3 + T^3)` | `Block`, `block_log_likelihood`, `block_predict` |
| any rows, linear functions | `O(T p^3 + (r p)^3 + T r^2 p^2)` | `linear_log_likelihood`, `linear_predict` |

`init` gives hyper-parameters to start from, `fit` those that maximise the likelihood. All public names stand here.

Under `jax_enable_x64` float64 data are computed with in float64. In float32, with 1,000 rows and noise of a tenth of
the signal's variance, likelihoods are right to 1e-5, their gradients to 1e-3 and predictions to 1e-4. Errors grow as
the ratio of signal to noise does: where it is in the thousands take float64.

E. V. Bonilla, K. M. A. Chai, C. K. I. Williams (2007), "Multi-task Gaussian process prediction", NeurIPS.

`fit` shows it at work.
"""

from mtljax.gaussian_process.block import Block, block_log_likelihood, block_observations, block_predict
from mtljax.gaussian_process.data import Hyperparameters, Observations, Prediction, init
from mtljax.gaussian_process.dense import log_marginal_likelihood, predict
from mtljax.gaussian_process.fit import Fitted, fit
from mtljax.gaussian_process.kernels import Kernel, SumParams, linear, rbf, sum_of
from mtljax.gaussian_process.linear_process import LinearWeights, linear_log_likelihood, linear_predict, linear_weights
from mtljax.gaussian_process.statistics import LinearStatistics, linear_statistics

__all__ = [
    "Block",
    "Fitted",
    "Hyperparameters",
    "Kernel",
    "LinearStatistics",
    "LinearWeights",
    "Observations",
    "Prediction",
    "SumParams",
    "block_log_likelihood",
    "block_observations",
    "block_predict",
    "fit",
    "init",
    "linear",
    "linear_log_likelihood",
    "linear_predict",
    "linear_statistics",
    "linear_weights",
    "log_marginal_likelihood",
    "predict",
    "rbf",
    "sum_of",
]
