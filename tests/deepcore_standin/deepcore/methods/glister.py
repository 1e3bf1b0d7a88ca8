import numpy as np
import torch

from .earlytrain import EarlyTrain
from .methods_utils import submodular_optimizer


class Glister(EarlyTrain):
    def __init__(
        self,
        dst_train,
        args,
        fraction=0.5,
        random_seed=None,
        epochs=200,
        specific_model=None,
        balance=True,
        greedy="LazyGreedy",
        eta=None,
        dst_val=None,
        **kwargs,
    ):
        super().__init__(dst_train, args, fraction, random_seed, epochs, specific_model, **kwargs)
        self.balance, self._greedy = balance, greedy
        self.eta = args.lr if eta is None else eta

    def finish_run(self):
        found = []
        for label in range(self.num_classes):
            index = self.members(label)
            rows = self.gradients(index)
            gain = torch.matmul(rows, rows.mean(dim=0)).cpu().numpy()
            optimizer = submodular_optimizer.__dict__[self._greedy](self.args, index, round(self.fraction * len(index)))
            found.append(optimizer.select(lambda some, taken, gain=gain: gain[some]))
        return {"indices": np.concatenate(found)}
