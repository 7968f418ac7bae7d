from .augment import Augmentation as Augmentation
from .datasets import open_source as open_source
from .datasets import splits_of as splits_of
from .inspect import inspect_dataset as inspect_dataset
from .pipeline import load as load
from .pipeline import with_aux as with_aux
