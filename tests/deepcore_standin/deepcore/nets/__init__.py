from .mlp import *
from .resnet import *
