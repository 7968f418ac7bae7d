from .recipes import recipe as recipe
from .run import fit as fit
