"""`python -m keras_pspnet.cli` is the command `keras-pspnet`."""

import sys

from keras_pspnet.cli import main

sys.exit(main())
