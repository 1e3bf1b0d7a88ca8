import torch

from .kcentergreedy import kCenterGreedy


class ContextualDiversity(kCenterGreedy):
    def __init__(
        self,
        dst_train,
        args,
        fraction=0.5,
        random_seed=None,
        epochs=200,
        specific_model=None,
        balance=True,
        already_selected=[],
        torchvision_pretrain=False,
        **kwargs,
    ):
        more = {"already_selected": already_selected, "torchvision_pretrain": torchvision_pretrain, **kwargs}
        super().__init__(dst_train, args, fraction, random_seed, epochs, specific_model, balance, **more)
        self.metric = self._metric

    def _metric(self, one, other):
        gap = one[:, None].log() - other[None].log()
        return (0.5 * (one[:, None] - other[None]) * gap).sum(dim=2)

    def construct_matrix(self, index=None):
        self.model.eval()
        self.model.no_grad = True
        parts = [self.model(inputs.to(self.args.device)).softmax(dim=1) for inputs, _ in self.batches(index)]
        self.model.no_grad = False
        return torch.cat(parts)
