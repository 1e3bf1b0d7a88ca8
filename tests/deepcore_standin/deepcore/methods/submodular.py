import numpy as np

from .earlytrain import EarlyTrain
from .methods_utils import submodular_function, submodular_optimizer


class Submodular(EarlyTrain):
    def __init__(
        self,
        dst_train,
        args,
        fraction=0.5,
        random_seed=None,
        epochs=200,
        specific_model=None,
        balance=False,
        function="LogDeterminant",
        greedy="ApproximateLazyGreedy",
        metric="cossim",
        **kwargs,
    ):
        super().__init__(dst_train, args, fraction, random_seed, epochs, specific_model, **kwargs)
        if greedy not in submodular_optimizer.optimizer_choices:
            raise ModuleNotFoundError("unknown optimizer")
        self.balance, self._function, self._greedy = balance, function, greedy

    def finish_run(self):
        groups = [self.members(label) for label in range(self.num_classes)] if self.balance else [self.train_indx]
        found = []
        for index in groups:
            rows = self.gradients(index).cpu().numpy()
            rows = rows / np.linalg.norm(rows, axis=1)[:, None]
            gains = submodular_function.__dict__[self._function](index=index, similarity_matrix=0.5 + 0.5 * rows @ rows.T)
            budget = round(self.fraction * len(index))
            optimizer = submodular_optimizer.__dict__[self._greedy](self.args, index, budget)
            found.append(optimizer.select(gains.calc_gain, gains.update_state))
        return {"indices": np.concatenate(found)}
