"""Set how TensorFlow uses a CPU, before it is imported."""

import os
import sys

from keras_pspnet.errors import UserError

SETTINGS = {
    # Without it every feature map above 32 MB is taken from the system and given back at each
    # operation, which fills new pages with zeros each time.
    "TF_CPU_ALLOCATOR_USE_BFC": "1",
}
"""Environment variables that the commands set; benchmarks/cpu_settings.py measures them."""


def fast_cpu() -> None:
    """Set the environment variables with which the commands run TensorFlow on a CPU.

    Call it before TensorFlow or Keras is imported. A variable that is set already keeps its value.

    | variable | value | what it does |
    |---|---|---|
    | TF_CPU_ALLOCATOR_USE_BFC | 1 | TensorFlow keeps the memory of large feature maps |

    Raises:
        UserError: TensorFlow is imported already and would not read them.
    """
    if "tensorflow" in sys.modules:
        raise UserError(
            "fast_cpu() comes too late: TensorFlow is imported already, which reads its "
            "settings then; call it first in the script"
        )
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
