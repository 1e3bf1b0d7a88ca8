import numpy as np
import torch

from .earlytrain import EarlyTrain
from .methods_utils import FacilityLocation, submodular_optimizer


class Craig(EarlyTrain):
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
        **kwargs,
    ):
        super().__init__(dst_train, args, fraction, random_seed, epochs, specific_model, **kwargs)
        if greedy not in submodular_optimizer.optimizer_choices:
            raise ModuleNotFoundError("unknown optimizer")
        self.balance, self._greedy = balance, greedy

    def finish_run(self):
        found, weights = [], []
        for label in range(self.args.num_classes):
            index = self.members(label)
            rows = self.gradients(index)
            near = -torch.cdist(rows, rows).cpu().numpy()
            near -= near.min() - 1e-3
            optimizer = submodular_optimizer.__dict__[self._greedy](self.args, index, round(self.fraction * len(index)))
            gains = FacilityLocation(index=index, similarity_matrix=near)
            found.append(optimizer.select(gains.calc_gain, gains.update_state))
            nearest = near[np.isin(index, found[-1])].argmax(axis=0)
            weights.append(1.0 + np.bincount(nearest, minlength=len(found[-1])))
        return {"indices": np.concatenate(found), "weights": np.concatenate(weights)}
