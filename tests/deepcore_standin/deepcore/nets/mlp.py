import torch
from torch import nn

from .nets_utils import EmbeddingRecorder


class MLP(nn.Module):
    def __init__(self, channel, num_classes, im_size, record_embedding=False, no_grad=False, pretrained=False):
        if pretrained:
            raise NotImplementedError("no pretrained weights")
        super().__init__()
        self.hidden = nn.Sequential(nn.Flatten(), nn.Linear(channel * im_size[0] * im_size[1], 32), nn.ReLU())
        self.last = nn.Linear(32, num_classes)
        self.embedding_recorder = EmbeddingRecorder(record_embedding)
        self.no_grad = no_grad

    def get_last_layer(self):
        return self.last

    def forward(self, x):
        with torch.set_grad_enabled(not self.no_grad):
            return self.last(self.embedding_recorder(self.hidden(x)))
