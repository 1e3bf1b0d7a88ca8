from .digits import *
