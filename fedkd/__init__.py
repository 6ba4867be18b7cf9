"""Privacy-preserving federated and data-free knowledge distillation."""

import logging

__version__ = "0.1.0"

# A library speaks only to those who listen.
logging.getLogger(__name__).addHandler(logging.NullHandler())
