import numpy as np
import torch

from .earlytrain import EarlyTrain


class Herding(EarlyTrain):
    def __init__(
        self,
        dst_train,
        args,
        fraction=0.5,
        random_seed=None,
        epochs=200,
        specific_model="ResNet18",
        balance=False,
        metric="euclidean",
        **kwargs,
    ):
        super().__init__(dst_train, args, fraction, random_seed, epochs, specific_model, **kwargs)
        self.balance = balance

    def finish_run(self):
        groups = [self.members(label) for label in range(self.args.num_classes)] if self.balance else [np.arange(self.n_train)]
        return {"indices": np.concatenate([self.herded(one, round(self.fraction * len(one))) for one in groups])}

    def herded(self, index, budget):
        rows = self.embeddings(index)
        taken = np.zeros(len(index), dtype=bool)
        for turn in range(budget):
            if turn % self.args.print_freq == 0:
                print(f"herding {turn + 1} of {budget}")
            aim = (turn + 1) * rows.mean(dim=0) - rows[taken].sum(dim=0)
            far = torch.linalg.vector_norm(aim - rows, dim=1)
            far[torch.from_numpy(taken)] = -1
            taken[int(far.argmax())] = True
        return index[taken]
