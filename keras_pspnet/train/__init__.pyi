from .recipe_fields import Recipe as Recipe
from .recipes import recipe as recipe
from .run import fit as fit
