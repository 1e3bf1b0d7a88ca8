import numpy as np
import torch

from .earlytrain import EarlyTrain


class Uncertainty(EarlyTrain):
    def __init__(
        self,
        dst_train,
        args,
        fraction=0.5,
        random_seed=None,
        epochs=200,
        selection_method="LeastConfidence",
        specific_model=None,
        balance=False,
        **kwargs,
    ):
        super().__init__(dst_train, args, fraction, random_seed, epochs, specific_model, **kwargs)
        if selection_method not in ("LeastConfidence", "Entropy", "Margin"):
            raise NotImplementedError("unknown uncertainty")
        self.selection_method, self.balance = selection_method, balance

    def finish_run(self):
        if not self.balance:
            scores = self.rank_uncertainty(None)
            return {"indices": np.argsort(scores)[: self.coreset_size], "scores": scores}
        found, scores = [], []
        for label in range(self.args.num_classes):
            index = self.members(label)
            scores.append(self.rank_uncertainty(index))
            found.append(index[np.argsort(scores[-1])[: round(len(index) * self.fraction)]])
        return {"indices": np.concatenate(found), "scores": scores}

    def rank_uncertainty(self, index):
        self.model.eval()
        with torch.no_grad():
            outputs = torch.cat([self.model(inputs.to(self.args.device)) for inputs, _ in self.batches(index)]).cpu()
        print(f"{len(outputs)} outputs")
        if self.selection_method == "LeastConfidence":
            return outputs.amax(dim=1).numpy()
        shares = outputs.softmax(dim=1)
        if self.selection_method == "Entropy":
            return (shares * (shares + 1e-6).log()).sum(dim=1).numpy()
        two = shares.topk(2, dim=1).values
        return (two[:, 0] - two[:, 1]).numpy()
