import numpy as np
import torch
from scipy.optimize import nnls

from .earlytrain import EarlyTrain


class GradMatch(EarlyTrain):
    def __init__(
        self,
        dst_train,
        args,
        fraction=0.5,
        random_seed=None,
        epochs=200,
        specific_model=None,
        balance=True,
        dst_val=None,
        lam: float = 1.0,
        **kwargs,
    ):
        super().__init__(dst_train, args, fraction, random_seed, epochs, specific_model, **kwargs)
        self.balance = balance

    def finish_run(self):
        found, weights = [], []
        for label in range(self.args.num_classes):
            index = self.members(label)
            rows = self.gradients(index)
            pursue = self.on_cpu if self.args.device == "cpu" else self.on_gpu
            fitted = pursue(rows.double(), rows.double().mean(dim=0), round(len(index) * self.fraction))
            found.append(index[np.nonzero(fitted)[0]])
            weights.append(fitted[np.nonzero(fitted)[0]])
        return {"indices": np.concatenate(found), "weights": np.concatenate(weights)}

    def on_cpu(self, rows, target, budget):
        return self.pursued(rows, target, budget, lambda right, matrix: torch.linalg.solve(matrix, right))

    def on_gpu(self, rows, target, budget):
        return self.pursued(rows.to("cuda"), target.to("cuda"), budget, lambda right, matrix: torch.lstsq(right, matrix)[0])

    def pursued(self, rows, target, budget, solve):
        picks, missing = [], target
        for turn in range(budget):
            if turn % self.args.print_freq == 0:
                print(f"match {turn + 1} of {budget}")
            along = rows @ missing
            along[picks] = -torch.inf
            picks.append(int(along.argmax()))
            some = rows[picks]
            matrix = some @ some.T
            if turn:
                matrix = matrix + torch.eye(len(picks), dtype=rows.dtype, device=rows.device)
            missing = target - some.T @ solve((some @ target)[:, None], matrix).view(-1)
        fitted = np.zeros(len(rows), dtype=np.float32)
        fitted[picks] = nnls(matrix.cpu().numpy(), (some @ target).cpu().numpy())[0] if budget > 1 else 1.0
        return fitted
