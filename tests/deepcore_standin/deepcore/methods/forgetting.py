import numpy as np
import torch

from .earlytrain import EarlyTrain


class Forgetting(EarlyTrain):
    def __init__(
        self, dst_train, args, fraction=0.5, random_seed=None, epochs=200, specific_model=None, balance=True, **kwargs
    ):
        super().__init__(dst_train, args, fraction, random_seed, epochs, specific_model)
        self.balance = balance

    def before_run(self):
        self.forgetting_events = torch.zeros(self.n_train).to(self.args.device)
        self.last_acc = torch.zeros(self.n_train).to(self.args.device)

    def after_loss(self, outputs, loss, targets, batch_inds, epoch):
        right = (outputs.argmax(dim=1) == targets).float()
        self.forgetting_events[torch.tensor(batch_inds)[self.last_acc[batch_inds] - right > 0.01]] += 1
        self.last_acc[batch_inds] = right

    def select(self, **kwargs):
        self.run()
        events = self.forgetting_events.cpu().numpy()
        groups = [self.members(label) for label in range(self.num_classes)] if self.balance else [self.train_indx]
        found = [one[np.argsort(events[one])[::-1][: round(self.fraction * len(one))]] for one in groups]
        return {"indices": np.concatenate(found), "scores": self.forgetting_events}
