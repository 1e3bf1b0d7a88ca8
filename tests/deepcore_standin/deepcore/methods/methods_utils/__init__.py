from .submodular_function import *
from .submodular_optimizer import *
