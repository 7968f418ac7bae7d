from . import data as data
from . import export as export
from . import labels as labels
from . import network as network
from . import scenes as scenes
from . import scoring as scoring
from . import train as train
from . import visualize as visualize
from .errors import UserError as UserError
from .export.deliver import export_model as export_model
from .inference.load import from_preset as from_preset
from .inference.load import load_model as load_model
from .inference.segment import segment as segment
from .labels import LabelSet as LabelSet
from .machine import fast_cpu as fast_cpu
from .network import losses as losses
from .network.convert import convert as convert
from .network.dilation import dilate as dilate
from .network.layers import PyramidPoolingModule as PyramidPoolingModule
from .network.model import build_pspnet as build_pspnet
from .network.normalization import CaffeNormalization as CaffeNormalization
from .network.optimizer import PSPNetSGD as PSPNetSGD
from .network.transfer import with_classes as with_classes
from .scoring.evaluation import evaluate as evaluate
from .visualize import overlay as overlay

__version__: str
