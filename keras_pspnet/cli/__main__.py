"""Run the command `keras-pspnet` as `python -m keras_pspnet.cli`."""

import sys

from keras_pspnet.cli import main

sys.exit(main())
