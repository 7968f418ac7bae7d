"""What a measurement was made on."""

from keras_pspnet.machine import cores, processor


def machine() -> str:
    """Cores and processor, as "2 cores, AMD EPYC"."""
    return f"{cores()} cores, {processor()}"
