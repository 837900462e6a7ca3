"""Multi-task Gaussian-process regression: `cov(f_s(x), f_t(x')) = B_st k(x, x')`, `B = W W^T + diag(kappa)`.

The task covariance B couples the tasks; it is learned with the kernel and each task's noise. The same model has three
forms, which agree to rounding. `N` is the number of rows, `n` of inputs, `T` of tasks, `p` of features, and `r` the
rank:

| data | time | functions |
|---|---|---|
| any rows, each of one task | `O(N^3)` | `log_marginal_likelihood`, `predict` |
| every task at every input | `O(n^3 + T^3)` | `Block`, `block_log_likelihood`, `block_predict` |
| any rows, linear functions | `O(T p^3 + (r p)^3 + T r^2 p^2)` | `linear_log_likelihood`, `linear_predict` |

`init` returns initial hyper-parameters, and `fit` those that maximise the likelihood; the docstring of `fit` has an
example. All public names are exported here.

With `jax_enable_x64`, float64 data are processed in float64. In float32, with 1,000 rows and a noise variance of a
tenth of the signal variance, relative errors are 1e-5 for likelihoods, 1e-3 for their gradients and 1e-4 for
predictions. Errors grow with the ratio of signal to noise; if it is in the thousands, use float64.

References:
    Bonilla, Chai and Williams, "Multi-Task Gaussian Process Prediction", NeurIPS 2007.
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
