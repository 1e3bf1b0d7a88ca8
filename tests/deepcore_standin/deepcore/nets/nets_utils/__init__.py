from .parallel import *
from .recorder import *
