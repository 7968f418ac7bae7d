from .deliver import export_model as export_model
from .formats import available_formats as available_formats
