"""Bridges to other libraries: leaves that nothing else imports.

`optax_links` is imported here; `flax_linen` and `flax_nnx` are modules to import by name, since Flax takes a second
to load: `from mtljax.adapters.flax_nnx import from_nnx`.
"""

from mtljax.adapters.optax_links import OptaxState, as_optax

__all__ = ["OptaxState", "as_optax"]
