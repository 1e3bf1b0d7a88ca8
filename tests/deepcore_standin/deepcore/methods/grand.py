import numpy as np
import torch

from .earlytrain import EarlyTrain


class GraNd(EarlyTrain):
    def __init__(
        self,
        dst_train,
        args,
        fraction=0.5,
        random_seed=None,
        epochs=200,
        repeat=10,
        specific_model=None,
        balance=False,
        **kwargs,
    ):
        super().__init__(dst_train, args, fraction, random_seed, epochs, specific_model)
        self.repeat, self.balance = repeat, balance

    def finish_run(self):
        self.lengths[:, self.cur_repeat] = torch.linalg.vector_norm(self.gradients(None), dim=1).cpu()

    def select(self, **kwargs):
        self.lengths = torch.zeros(self.n_train, self.repeat)
        for self.cur_repeat in range(self.repeat):
            self.run()
            self.random_seed += 5
        scores = self.lengths.mean(dim=1).numpy()
        groups = [self.members(label) for label in range(self.num_classes)] if self.balance else [self.train_indx]
        found = [one[np.argsort(scores[one])[::-1][: round(self.fraction * len(one))]] for one in groups]
        return {"indices": np.concatenate(found), "scores": scores}
