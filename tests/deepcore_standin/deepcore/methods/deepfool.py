import numpy as np
import torch

from .earlytrain import EarlyTrain


class DeepFool(EarlyTrain):
    def __init__(
        self,
        dst_train,
        args,
        fraction=0.5,
        random_seed=None,
        epochs=200,
        specific_model=None,
        balance=False,
        max_iter=50,
        **kwargs,
    ):
        super().__init__(dst_train, args, fraction, random_seed, epochs, specific_model, **kwargs)
        self.balance, self.max_iter = balance, max_iter

    def finish_run(self):
        self.model.no_grad = False
        ways = np.concatenate([self.deep_fool(inputs) for inputs, _ in self.batches(None)])
        groups = [self.members(label) for label in range(self.args.num_classes)] if self.balance else [self.train_indx]
        found = [one[ways[one].argsort()[: round(len(one) * self.fraction)]] for one in groups]
        return {"indices": np.concatenate(found), "scores": ways}

    def deep_fool(self, inputs):
        """Squared lengths of the ways to another class."""
        self.model.eval()
        walking = inputs.requires_grad_(True).to(self.args.device)
        ways = torch.zeros_like(walking, requires_grad=False)
        open_ = torch.arange(len(inputs), device=walking.device)
        first = self.model(walking).argmax(dim=1)
        for _ in range(self.max_iter):
            outputs = self.model(walking)
            rows = torch.arange(len(outputs), device=walking.device)
            slopes = torch.stack(
                [torch.autograd.grad(outputs[:, c].sum(), walking, retain_graph=True)[0] for c in range(outputs.shape[1])], 1
            ).flatten(2)
            slopes = slopes - slopes[rows, first][:, None]
            lengths = slopes.norm(dim=2)
            lengths[rows, first] = 1.0
            away = (outputs - outputs[rows, first][:, None]).detach().abs() / lengths
            away[rows, first] = torch.inf
            best = away.argmin(dim=1)
            step = (away[rows, best] / lengths[rows, best])[:, None] * slopes[rows, best]
            ways[open_] += step.view_as(walking)
            walking += step.view_as(walking)
            going = self.model(walking).argmax(dim=1) == first
            walking, first, open_ = walking[going], first[going], open_[going]
            if not len(first):
                break
        return ways.flatten(1).double().square().sum(dim=1).cpu().numpy()
