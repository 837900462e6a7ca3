"""What has to be set before JAX starts, for the tests and the doctests, of mtljax/, README.md and docs/.

Environment read: `MTLJAX_TEST_PLATFORM` (as `JAX_PLATFORMS`, for example `cuda,cpu`) runs the tests elsewhere than
on the CPU; `MTLJAX_TEST_OPTIMIZED` compiles as users do, which takes longer; `CI` makes hypothesis draw the
same examples every time.
"""

from __future__ import annotations

import importlib.metadata
import os

os.environ["JAX_PLATFORMS"] = os.environ.get("MTLJAX_TEST_PLATFORM") or os.environ.get("JAX_PLATFORMS") or "cpu"
os.environ["XLA_FLAGS"] = " ".join(
    # A later flag wins, so what the user gives holds.
    [
        "--xla_force_host_platform_device_count=8",
        # Emulated devices share one pool of threads, as many as there are cores. On two busy cores they have been seen
        # to wait for one another in it until XLA gave up after 40 seconds and took the process down.
        "--xla_cpu_multi_thread_eigen=false",
        "--xla_cpu_collective_call_terminate_timeout_seconds=300",
        os.environ.get("XLA_FLAGS", ""),
    ]
).strip()
if "MTLJAX_TEST_OPTIMIZED" not in os.environ:
    # Most of the suite's time is the compiler's, and most tests ask what a program computes, not how fast it runs. Set
    # here and not in JAX's configuration, so that processes which tests start compute the same bits. The emitters of
    # fusions by MLIR take three times as long as those before them; jaxlib 0.11 and newer have no others, and end at a
    # flag that they do not know. One thread compiles for each of two workers.
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    quick = ["--xla_cpu_parallel_codegen_split_count=1"]
    if [int(part) for part in importlib.metadata.version("jaxlib").split(".")[:2]] < [0, 11]:
        quick.append("--xla_cpu_use_fusion_emitters=false")
    os.environ["XLA_FLAGS"] = " ".join([*quick, os.environ["XLA_FLAGS"]])

import gc
from pathlib import Path

import hypothesis
import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")

hypothesis.settings.register_profile(
    "mtljax",
    deadline=None,  # the first example of a test compiles
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("mtljax")

# Full collections walk everything that JAX has traced, and find next to nothing: they took 5 % of the suite's time. One
# follows where compiled programs are forgotten.
gc.set_threshold(700, 10, 1_000_000)

MAPPINGS = Path("/proc/self/maps")
CHECKED_EVERY, TOO_MANY = 25, 40_000
tests_run = 0


@pytest.fixture(autouse=True)
def few_programs_at_a_time():
    """Forgets compiled programs before the process runs out of memory mappings.

    Linux allows 65,530 of them; every program that XLA:CPU compiles takes several, and where none is left LLVM ends the
    process with a segmentation fault.
    """
    global tests_run
    yield
    tests_run += 1
    if tests_run % CHECKED_EVERY == 0 and MAPPINGS.exists():
        with MAPPINGS.open("rb") as lines:
            mappings = sum(1 for _ in lines)
        if mappings > TOO_MANY:
            jax.clear_caches()
            gc.collect()
