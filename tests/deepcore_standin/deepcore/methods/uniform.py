import numpy as np

from .coresetmethod import CoresetMethod


class Uniform(CoresetMethod):
    def __init__(self, dst_train, args, fraction=0.5, random_seed=None, balance=False, replace=False, **kwargs):
        super().__init__(dst_train, args, fraction, random_seed)
        self.balance, self.replace = balance, replace

    def select(self, **kwargs):
        np.random.seed(self.random_seed)
        everything = np.arange(self.n_train)
        if not self.balance:
            return {"indices": np.random.choice(everything, self.coreset_size, replace=self.replace)}
        found = []
        for label in range(self.num_classes):
            members = everything[self.dst_train.targets == label]
            found.append(np.random.choice(members, round(self.fraction * len(members)), replace=self.replace))
        return {"indices": np.concatenate(found)}
