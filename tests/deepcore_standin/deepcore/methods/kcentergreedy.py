import numpy as np
import torch

from .earlytrain import EarlyTrain


def k_center_greedy(matrix, budget, metric, device, random_seed=None, index=None, already_selected=None, print_freq=20):
    count = len(matrix)
    with torch.no_grad():
        np.random.seed(random_seed)
        already_selected = np.array([] if already_selected is None else already_selected)
        if len(already_selected):
            taken = np.in1d(index, already_selected)
        else:
            taken = np.zeros(count, dtype=bool)
            taken[np.random.randint(0, count)] = True
            budget -= 1
        distances = torch.full((int(taken.sum()) + budget - 1, count), -1.0, device=device)
        distances[: taken.sum(), ~taken] = metric(matrix[taken], matrix[~taken])
        nearest = distances[: taken.sum()].amin(dim=0)
        for turn in range(budget):
            if turn % print_freq == 0:
                print(f"centre {turn + 1} of {budget}")
            centre = int(nearest.argmax())
            taken[centre] = True
            nearest[centre] = -1
            nearest[~taken] = torch.minimum(nearest[~taken], metric(matrix[[centre]], matrix[~taken])[0])
    return index[taken]


class kCenterGreedy(EarlyTrain):
    def __init__(
        self,
        dst_train,
        args,
        fraction=0.5,
        random_seed=None,
        epochs=0,
        specific_model="ResNet18",
        balance=False,
        already_selected=[],
        metric="euclidean",
        torchvision_pretrain=True,
        **kwargs,
    ):
        more = {"torchvision_pretrain": torchvision_pretrain, **kwargs}
        super().__init__(dst_train, args, fraction, random_seed, epochs, specific_model, **more)
        self.balance, self.already_selected = balance, np.array(already_selected)
        self.metric = torch.cdist

    def construct_matrix(self, index=None):
        return self.embeddings(index)

    def select(self, **kwargs):
        self.run()
        groups = [self.members(label) for label in range(self.args.num_classes)] if self.balance else [np.arange(self.n_train)]
        return {"indices": np.concatenate([self.centres(one, round(self.fraction * len(one))) for one in groups])}

    def centres(self, index, budget):
        return k_center_greedy(
            self.construct_matrix(index),
            budget=budget,
            metric=self.metric,
            device=self.args.device,
            random_seed=self.random_seed,
            index=index,
            already_selected=self.already_selected[np.in1d(self.already_selected, index)],
            print_freq=self.args.print_freq,
        )
